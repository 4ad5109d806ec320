"""The pipeline over toys: ports in memory instead of a database."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.toys import DOMAINS, SERVICES, KeyRequest, PutRequest, Script, Step, manifest

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.call import Answer, Call
from erp.runtime.calls import Calls
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.context import Actor, CallContext
from erp.runtime.observation import Observer
from erp.runtime.overlaps import OverlapKeeper
from erp.runtime.plan import Plan, PlanBook
from erp.runtime.pool import PoolSettings, ProviderPool
from erp.runtime.ports import (
    AuditEntry,
    Claim,
    ClaimOutcome,
    Completion,
    Connection,
    Decision,
    Identity,
    LinkMaker,
    Question,
    Reminders,
    Route,
    RouteKind,
    RouteTarget,
    SecretVault,
)
from erp.runtime.routes import RouteBook
from erp.telemetry.call_log import CallLog
from erp.telemetry.call_metrics import CallMetrics
from erp.telemetry.ids import continued
from erp.telemetry.trace import Spans


@dataclass
class MemoryRoutes:
    """Routes in a dictionary."""

    stored: dict[tuple[str, str, str], Route] = field(default_factory=dict)

    async def find(self, tenant: str, domain: str, name: str) -> Route | None:
        return self.stored.get((tenant, domain, name))


@dataclass
class MemoryConnections:
    """The port ``Connections`` on dictionaries."""

    stored: dict[tuple[str, str, str, str], Connection] = field(default_factory=dict)
    defaults: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    policies: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    async def find(self, tenant: str, domain: str, provider: str, name: str) -> Connection | None:
        return self.stored.get((tenant, domain, provider, name))

    async def domain_default(self, tenant: str, domain: str) -> tuple[str, str] | None:
        return self.defaults.get((tenant, domain))

    async def tenant_policy(self, tenant: str) -> Mapping[str, Any]:
        return self.policies.get(tenant, {})


@dataclass
class RecordingJournal:
    """The port ``Journal``, keeping everything in lists."""

    steps: list[str]
    outcome: ClaimOutcome = field(default_factory=lambda: ClaimOutcome(state="won"))
    claims: list[Claim] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    notes: list[AuditEntry] = field(default_factory=list)
    before_complete: Callable[[], Awaitable[Any]] | None = None

    async def claim(self, claim: Claim) -> ClaimOutcome:
        self.steps.append("claim")
        self.claims.append(claim)
        return self.outcome

    async def complete(self, completion: Completion) -> None:
        if self.before_complete is not None:
            await self.before_complete()
        self.steps.append("complete")
        self.completions.append(completion)

    def note(self, audit: AuditEntry) -> None:
        self.steps.append("note")
        self.notes.append(audit)


@dataclass
class ListedPolicy:
    """The port ``Policy``: allows everything but the refs in ``denied``."""

    steps: list[str]
    denied: set[str] = field(default_factory=set)

    def known(self, question: Question) -> Decision | None:
        return None

    async def decide(self, question: Question) -> Decision:
        self.steps.append("policy")
        if f"{question.domain}.{question.action}" in self.denied:
            return Decision(allow=False, reason="the role has no right to it")
        return Decision(allow=True, reason="listed")


@dataclass
class CountedQuotas:
    """The port ``Quotas``: ``left`` calls may be made."""

    steps: list[str]
    left: int = 1000

    async def reserve(self, tenant: str, units: int = 1) -> None:
        self.steps.append("quota")
        if self.left < units:
            raise ProviderError(ErrorCode.QUOTA_EXHAUSTED, "The quota is used up.", retry_after_seconds=60.0)
        self.left -= units


class RecordingObserver(Observer):
    """Keeps how calls ended, beside doing what the real one does."""

    def __init__(self, steps: list[str]) -> None:
        super().__init__(CallMetrics(), CallLog(io.BytesIO(), enabled=False), Spans())
        self.steps = steps
        self.ended: list[tuple[str, str]] = []

    def observe(self, call: Call, seconds: float, answer: Answer | None, failure: ProviderError | None) -> None:
        super().observe(call, seconds, answer, failure)
        self.steps.append("observe")
        self.ended.append((call.action.ref, "ok" if failure is None else failure.code.value))


class Shop:
    """A service that reaches the toy provider."""

    def __init__(self) -> None:
        self.method: Step | None = None

    async def buy(self, request: PutRequest, context: CallContext) -> Any:
        if self.method is not None:
            return await self.method(request, context)
        return await context.invoke("toy", "append", request, idempotency_key="line-1")

    async def browse(self, request: KeyRequest, context: CallContext) -> Any:
        return await context.invoke("toy", "get", request)


KEY_OF_ACME = Actor(id="key_acme", tenant="acme", roles=frozenset({"developer"}))


@dataclass
class ToyLayer:
    """The pipeline over toys, and every part of it."""

    script: Script
    steps: list[str]
    catalog: ProviderCatalog
    connections: MemoryConnections
    routes: MemoryRoutes
    pool: ProviderPool
    plans: PlanBook
    policy: ListedPolicy
    quotas: CountedQuotas
    journal: RecordingJournal
    observer: RecordingObserver
    calls: Calls
    shop: Shop

    def connect(
        self,
        tenant: str = "acme",
        *,
        provider: str = "box",
        name: str = "default",
        revision: str = "r1",
        script: Script | None = None,
        **more: Any,
    ) -> Connection:
        """Store a connection whose provider follows ``script``."""
        config = {"script": script or self.script, **more.pop("config", {})}
        facts = {"secrets": {}, "policy": {}} | more
        made = Connection(
            tenant=tenant, domain="toy", provider=provider, name=name, revision=revision, config=config, **facts
        )
        self.connections.stored[tenant, "toy", provider, name] = made
        return made

    def lead(self, name: str, kind: RouteKind, *targets: str, **more: Any) -> Route:
        """Store a route to connections of ``toy/box`` (or ``provider#connection``)."""
        split = [target.rpartition("#") for target in targets]
        made = Route(
            tenant="acme",
            domain="toy",
            name=name,
            kind=kind,
            revision=f"r{len(self.routes.stored)}",
            targets=[RouteTarget(provider=provider or "box", connection=each) for provider, _, each in split],
            **more,
        )
        self.routes.stored["acme", "toy", name] = made
        return made

    def protect(self, **policy: Any) -> None:
        """Give acme's default connection these protections."""
        self.connect(policy=policy)

    async def planned(self, action: str = "get", *, provider: str = "box", **policy: Any) -> Plan:
        """Return the plan of an action on a connection with these protections; retries do not pause."""
        quick = {"retry": {"max_attempts": 3, "base_seconds": 0, "cap_seconds": 0}}
        self.connect(provider=provider, policy=quick | policy)
        return await self.plans.find("acme", self.catalog.action("providers", "toy", action), provider, "default")

    def call(self, name: str, body: bytes | None = None, *, area: Any = "providers", **facts: Any) -> Call:
        """Return a call of acme's key to an action of the toy domain (or of the shop)."""
        group = "toy" if area == "providers" else "shop"
        facts = {
            "actor": KEY_OF_ACME,
            "provider": "box" if area == "providers" else "shop",
            "request_id": "req_1",
            "traceparent": continued(None),
        } | facts
        action = self.catalog.action(area, group, name)
        return Call(action=action, body=b'{"params":{"key":"a"}}' if body is None else body, **facts)

    async def invoke(self, name: str, body: bytes | None = None, **facts: Any) -> Answer:
        """Run such a call."""
        return await self.calls.invoke(self.call(name, body, **facts))

    async def refused(self, name: str, body: bytes | None = None, **facts: Any) -> ProviderError:
        """Run such a call, which must fail, and return its error."""
        with pytest.raises(ProviderError) as caught:
            await self.invoke(name, body, **facts)
        return caught.value


def assembled(script: Script, catalog: ProviderCatalog, pool: ProviderPool) -> ToyLayer:
    """Put the pipeline together over ports in memory."""
    connections = MemoryConnections()
    plans = PlanBook(catalog, pool, connections)
    routes = MemoryRoutes()
    policy, quotas = ListedPolicy(script.steps), CountedQuotas(script.steps)
    journal, observer = RecordingJournal(script.steps), RecordingObserver(script.steps)
    calls = Calls(
        plans=plans,
        policy=policy,
        quotas=quotas,
        journal=journal,
        connections=connections,
        routes=RouteBook(routes),
        observer=observer,
        max_in_flight=20,
    )
    shop = Shop()
    plans.add_service("shop", shop)
    return ToyLayer(
        script, script.steps, catalog, connections, routes, pool, plans, policy, quotas, journal, observer, calls, shop
    )


@pytest.fixture
async def toy(
    tmp_path: Path,
    vault: SecretVault,
    identity: Identity,
    link_maker: LinkMaker,
    listed_reminders: Reminders,
    overlaps: OverlapKeeper,
) -> AsyncIterator[ToyLayer]:
    """A layer with acme's connection ``default`` of ``toy/box``. Whatever a test does, no place stays taken."""
    catalog = ProviderCatalog(
        DOMAINS, SERVICES, [manifest(), manifest("vat", capabilities=["ttl"], idempotency_keys=True)]
    )
    pool = ProviderPool(
        catalog,
        data_dir=tmp_path / "data",
        models_dir=tmp_path / "models",
        vault=vault,
        identity=identity,
        links=link_maker,
        reminders=listed_reminders,
        overlaps=overlaps,
        settings=PoolSettings(drain_seconds=1.0, open_timeout_seconds=1.0, close_timeout_seconds=0.2),
    )
    made = assembled(Script(), catalog, pool)
    made.connect()
    yield made
    assert made.calls.in_flight == 0
    assert {plan.gate.running for plan in made.plans._plans.values()} <= {0}
    assert {opened.running for opened in pool._open.values()} <= {0}
    await pool.close()
