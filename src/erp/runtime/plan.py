"""What a call resolves to: the method to run and everything that protects it.

A plan is made once per tenant, action and connection and reused, so that the hot path is one
dictionary look-up. It is checked against the stored connection once a second, and dropped at once
when the connection changes in this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import call_policy
from erp.runtime.pool import Key, OpenProvider, ProviderPool, key_of
from erp.runtime.ports import Connection
from erp.runtime.resilience import BulkheadGate, CircuitBreaker, TokenBucket
from erp.runtime.sharing import OwnPlaces, Sharing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from erp.runtime.action import Action
    from erp.runtime.call_policy import Breaker, Bulkhead, CallPolicy, Rate
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.manifest import ProviderManifest
    from erp.runtime.ports import Connections
    from erp.runtime.sharing import Gate, SharedRate

    Outgoing = Callable[["Method", ProviderManifest, str, Action], "Method"]
    """``outgoing(method, manifest, connection, action)``: the method as it is run, for what it may carry to others."""

FRESH_SECONDS = 1.0
MAX_PLANS = 20_000
MAX_REREADS = 3

Method = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(slots=True, eq=False)
class Plan:
    """A resolved call target."""

    action: Action
    method: Method
    policy: CallPolicy
    gate: Gate
    bucket: TokenBucket
    breaker: CircuitBreaker | None
    opened: OpenProvider | None
    provider: str
    connection: str
    may_repeat: bool
    """True when running the action twice has the effect of running it once."""
    takes_keys: bool
    """True when the provider deduplicates by the call's idempotency key."""
    fresh_until: float
    shared_rate: SharedRate | None = None
    """The rate limit that all processes share; None: the bucket is the whole limit."""

    @property
    def is_usable(self) -> bool:
        """False once its time is up or its provider is being closed."""
        if self.opened is not None and self.opened.is_closing:
            return False
        return self.fresh_until > time.monotonic()

    @property
    def region(self) -> str:
        """Where the connection keeps data; empty: nobody has said."""
        return self.opened.connection.region if self.opened is not None else ""

    @property
    def translate_by(self) -> Any:
        """The object whose ``translate`` table applies."""
        return self.opened.provider if self.opened is not None else None


@dataclass(slots=True, eq=False)
class Guards:
    """Bulkheads, breakers and rate limits of one connection, by their settings."""

    revision: str
    gates: dict[Bulkhead, BulkheadGate] = field(default_factory=dict)
    breakers: dict[Breaker, CircuitBreaker] = field(default_factory=dict)
    buckets: dict[Rate, TokenBucket] = field(default_factory=dict)

    def of(self, policy: CallPolicy) -> tuple[BulkheadGate, CircuitBreaker, TokenBucket]:
        """Return what protects a call with ``policy``, made at its first use."""
        gate = self.gates.setdefault(policy.bulkhead, BulkheadGate(policy.bulkhead))
        breaker = self.breakers.setdefault(policy.breaker, CircuitBreaker(policy.breaker))
        bucket = self.buckets.setdefault(policy.rate, TokenBucket(policy.rate))
        return gate, breaker, bucket


class PlanBook:
    """Finds or makes the plan of a call."""

    def __init__(self, catalog: ProviderCatalog, pool: ProviderPool, connections: Connections) -> None:
        self.catalog = catalog
        self._pool = pool
        self._connections = connections
        self.sharing = Sharing(OwnPlaces())
        self._services: dict[str, Any] = {}
        self._plans: dict[tuple[str, Action, str, str], Plan] = {}
        self._guards: dict[Key, Guards] = {}
        self.outgoing: Outgoing | None = None
        """Treats what methods carry to others; None: they are run as they are."""
        pool.on_retired = self._let_go

    def add_service(self, name: str, service: Any) -> None:
        """Make the actions of ``service`` callable."""
        self._services[name] = service

    def is_repeatable(self, action: Action, provider: str) -> bool:
        """Whether a call with a key may run again after the process that ran it died."""
        if action.idempotent or action.area == "services":
            return action.idempotent
        return self.catalog.provider(action.group, provider).idempotency_keys

    def known(self, tenant: str, action: Action, provider: str, connection: str) -> Plan | None:
        """Return a fresh plan without waiting, or None."""
        plan = self._plans.get((tenant, action, provider, connection))
        return plan if plan is not None and plan.is_usable else None

    async def find(self, tenant: str, action: Action, provider: str, connection: str) -> Plan:
        """Return the plan of a call, opening the provider when needed.

        Raises:
            ProviderError: ``not_found`` for an unknown provider or connection, ``unsupported`` for
                an undeclared capability, or what opening the provider raised.
        """
        plan = self.known(tenant, action, provider, connection)
        if plan is not None:
            return plan
        policy = await self._connections.tenant_policy(tenant)
        if action.area == "services":
            made = self._service_plan(action, policy)
        else:
            made = await self._provider_plan(tenant, action, provider, connection, policy)
        return self._keep((tenant, action, provider, connection), made)

    def _keep(self, key: tuple[str, Action, str, str], made: Plan) -> Plan:
        previous = self._plans.get(key)
        if previous is not None and made.opened is None and previous.policy == made.policy:
            made.bucket, made.gate = previous.bucket, previous.gate
        if previous is None and len(self._plans) >= MAX_PLANS:
            self._plans.pop(next(iter(self._plans)))
        self._plans[key] = made
        return made

    def _service_plan(self, action: Action, tenant_policy: Mapping[str, Any]) -> Plan:
        policy = call_policy.resolve(action.name, {}, tenant_policy)
        return Plan(
            action=action,
            method=getattr(self._services[action.group], action.name),
            policy=policy,
            gate=BulkheadGate(policy.bulkhead),
            bucket=TokenBucket(policy.rate),
            breaker=None,
            opened=None,
            provider=action.group,
            connection="default",
            may_repeat=action.idempotent,
            takes_keys=False,
            fresh_until=time.monotonic() + FRESH_SECONDS,
        )

    async def _provider_plan(
        self, tenant: str, action: Action, provider: str, connection: str, tenant_policy: Mapping[str, Any]
    ) -> Plan:
        target = await self.connection(tenant, action.group, provider, connection)
        manifest = self.catalog.provider(action.group, provider)
        if action.capability is not None and action.capability not in manifest.capabilities:
            raise ProviderError(
                ErrorCode.UNSUPPORTED,
                f"{manifest.ref} does not declare the capability {action.capability!r} that {action.ref} needs.",
            )
        opened = await self._opened(target)
        policy = call_policy.resolve(action.name, manifest.limits, tenant_policy, opened.connection.policy)
        gate, breaker, bucket = self._guards_of(opened.connection).of(policy)
        method = getattr(opened.provider, action.name)
        sharing, own = self.sharing, opened.connection
        return Plan(
            action=action,
            method=method if self.outgoing is None else self.outgoing(method, manifest, connection, action),
            policy=policy,
            gate=sharing.gate(gate, own, action.name, policy, (tenant_policy, own.policy)),
            shared_rate=sharing.rate(own, action.name, policy),
            bucket=bucket,
            breaker=breaker,
            opened=opened,
            provider=manifest.ref,
            connection=connection,
            may_repeat=action.idempotent,
            takes_keys=manifest.idempotency_keys,
            fresh_until=time.monotonic() + FRESH_SECONDS,
        )

    async def _opened(self, target: Connection) -> OpenProvider:
        """Return the open provider of a connection as it is now, even when it changes while it is being opened."""
        for _ in range(MAX_REREADS):
            opened = await self._pool.acquire(target)
            if not opened.is_closing:
                return opened
            target = await self.connection(*key_of(target))
        message = f"The connection {target.name[:100]!r} keeps changing."
        raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0)

    def _guards_of(self, target: Connection) -> Guards:
        """Actions of a connection share its protections unless they have settings of their own."""
        key = key_of(target)
        guards = self._guards.get(key)
        if guards is None or guards.revision != target.revision:
            guards = self._guards[key] = Guards(target.revision)
        return guards

    async def connection(self, tenant: str, domain: str, provider: str, name: str) -> Connection:
        """Return the stored connection, or the implicit one of an embedded provider."""
        manifest = self.catalog.provider(domain, provider)
        self.catalog.check_reach(manifest)
        found = await self._connections.find(tenant, domain, provider, name)
        if found is not None:
            return found
        if name == "default" and not manifest.needs_configuration:
            return implicit(tenant, domain, provider)
        raise ProviderError(
            ErrorCode.NOT_FOUND,
            f"{manifest.ref} has no connection named {name[:100]!r} for this tenant. "
            f"Create it with POST /providers/{manifest.ref}/configure.",
        )

    async def default_of(self, tenant: str, domain: str) -> tuple[str, str] | None:
        """Provider and connection a service means when it names only ``domain``."""
        chosen = await self._connections.domain_default(tenant, domain)
        if chosen is not None:
            return chosen
        embedded = self.catalog.embedded(domain)
        return (embedded.name, "default") if embedded is not None else None

    async def is_healthy(self, tenant: str, domain: str, provider: str, name: str) -> bool:
        """Ask a connection now whether it can work."""
        health = await self._pool.health(await self.connection(tenant, domain, provider, name))
        return health.status != "down"

    def breaker_state(self, target: Connection) -> str:
        """State of the connection's circuit breaker: closed, open or half_open."""
        guards = self._guards.get(key_of(target))
        states = {breaker.state for breaker in guards.breakers.values()} if guards else set()
        return next((state for state in ("open", "half_open") if state in states), "closed")

    def forget(self, tenant: str) -> None:
        """Drop the plans of ``tenant``; its next call resolves anew."""
        for key in [key for key in self._plans if key[0] == tenant]:
            del self._plans[key]

    def _let_go(self) -> None:
        """Drop the plans of providers that are being closed, and the protections nobody needs any more."""
        for key in [key for key, plan in self._plans.items() if plan.opened is not None and plan.opened.is_closing]:
            del self._plans[key]
        for connection in [key for key in self._guards if not self._pool.holds(key)]:
            del self._guards[connection]


def implicit(tenant: str, domain: str, provider: str) -> Connection:
    """Return the connection an embedded provider has without being configured."""
    return Connection(
        tenant=tenant,
        domain=domain,
        provider=provider,
        name="default",
        revision="implicit",
        config={},
        secrets={},
        policy={},
    )
