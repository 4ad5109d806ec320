"""Takes a connection's configuration into use: proven before a call meets it, and without a call failing.

The provider is opened with the new configuration beside the one that calls go to, and asked for its health. Only then
the configuration is stored, calls go to the new one, and the old one closes after its last call. What does not open, or
is down, changes nothing, and the secrets that came with it are destroyed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import effects
from erp.runtime.ports import AuditEntry, Completion, Connection

if TYPE_CHECKING:
    from erp.runtime.operation import Order
    from erp.runtime.plan import PlanBook
    from erp.runtime.pool import OpenProvider, ProviderPool
    from erp.runtime.ports import ConnectionStore, Journal, SecretVault

HEALTH_SECONDS = 5.0
AREA = "connections"


class Wish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A configuration that somebody wants, as an operation keeps it: secrets are references."""

    connection: Connection
    expected: str | None = None
    """The revision the connection has to have; empty: none yet; None: any."""
    default: bool | None = None
    """Whether services shall use it for its domain; None: as it is."""
    may_be_down: bool = False
    """Whether it is taken into use although its health is bad, because what it reaches is not there yet."""
    staged: list[tuple[str, int]] = []
    """Path and version of the secrets that were stored for this wish alone."""


def wish_of(order: Order) -> Wish:
    """Return the wish of an operation."""
    return msgspec.json.decode(order.body, type=Wish)


class Configuring:
    """Proves and stores configurations."""

    def __init__(
        self, *, pool: ProviderPool, plans: PlanBook, connections: ConnectionStore, vault: SecretVault, journal: Journal
    ) -> None:
        self._pool = pool
        self._plans = plans
        self._connections = connections
        self._vault = vault
        self._journal = journal

    async def run(self, order: Order) -> Connection:
        """Carry out the wish of an operation; return the connection as it is stored.

        Raises:
            ProviderError: why it was not taken into use; nothing has changed.
        """
        wish = wish_of(order)
        try:
            stored = await self._stored(wish)
        except BaseException as error:
            await asyncio.shield(self.withdraw(wish))
            await asyncio.shield(self._record(order, wish, error))
            raise
        await self._choose(stored, wish.default)
        await self._record(order, wish, None)
        self._plans.forget(stored.tenant)
        return stored

    async def withdraw(self, wish: Wish) -> None:
        """Destroy the secrets that were stored for a wish that was not granted."""
        present = await self._present(wish)
        used = set(present.secrets.values()) if present is not None else set()
        for path, version in wish.staged:
            if f"secret://{path}#{version}" not in used:
                await self._vault.destroy(wish.connection.tenant, path, version)

    async def _stored(self, wish: Wish) -> Connection:
        present = await self._present(wish)
        if present is not None and _same(present, wish.connection) and present.revision != wish.expected:
            return present  # stored by the process that died before it could say so
        opened = await self._proven(wish)
        try:
            stored = await self._connections.put(opened.connection, revision=wish.expected)
        except BaseException:
            self._pool.retire(opened)
            raise
        opened.connection = stored
        self._pool.adopt(opened)
        return stored

    async def _present(self, wish: Wish) -> Connection | None:
        wanted = wish.connection
        return await self._connections.find(wanted.tenant, wanted.domain, wanted.provider, wanted.name)

    async def _proven(self, wish: Wish) -> OpenProvider:
        opened = await self._pool.open_unpooled(wish.connection)
        try:
            if not wish.may_be_down:
                await prove(opened)
        except BaseException:
            self._pool.retire(opened)
            raise
        return opened

    async def _choose(self, stored: Connection, is_default: bool | None) -> None:  # noqa: FBT001  (three states)
        if is_default is None:
            return
        change = self._connections.set_domain_default if is_default else self._connections.clear_domain_default
        await change(stored.tenant, stored.domain, stored.provider, stored.name)

    async def _record(self, order: Order, wish: Wish, error: BaseException | None) -> None:
        """Keep what became of the wish; when the platform acted for a tenant, in both audit trails."""
        wanted, actor = wish.connection, order.actor
        target = f"{wanted.domain}/{wanted.provider}#{wanted.name}"
        code = "ok" if error is None else getattr(error, "code", ErrorCode.INTERNAL).value
        reason = "done" if error is None else str(error)
        trails = {wanted.tenant: target, actor.tenant: target}
        if actor.tenant != wanted.tenant:
            trails[actor.tenant] = f"{wanted.tenant}/{target}"
        for tenant, named in trails.items():
            audit = AuditEntry(
                tenant=tenant,
                actor=actor.id,
                action=f"{AREA}.configure",
                target=named,
                outcome=code,
                reason=reason,
                request_id=order.request_id,
                time=effects.now(),
                effect="write",
                traceparent=order.traceparent or None,
            )
            await self._journal.complete(Completion(audit=audit))


async def prove(opened: OpenProvider) -> None:
    """Ask a provider that was just opened for its health.

    Raises:
        ProviderError: ``unavailable`` when it does not answer or is down.
    """
    ref = opened.manifest.ref
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            health: Any = await opened.provider.health()
    except Exception as error:
        message = f"{ref} opened, but does not answer its health check; nothing was changed."
        raise ProviderError(ErrorCode.UNAVAILABLE, message, detail=f"{type(error).__name__}: {error}") from error
    if health.status == "down":
        why = f": {health.message}" if health.message else ""
        raise ProviderError(
            ErrorCode.UNAVAILABLE,
            f"{ref} opened, but is down{why} Nothing was changed; with may_be_down it is stored all the same.",
        )


def _same(present: Connection, wanted: Connection) -> bool:
    names = ("config", "secrets", "policy", "region", *(["versions"] if wanted.versions else []))
    return all(getattr(present, name) == getattr(wanted, name) for name in names)
