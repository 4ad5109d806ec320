"""Which issuers tenants trust: their connections of ``auth/oidc``, and an open client for each that is used."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.revisions import Topic
from erp.errors import ProviderError
from erp.vendor_clients.egress import EgressRefusedError
from erp.vendor_clients.oidc.failures import IssuerMisconfiguredError
from erp.vendor_clients.oidc.issuer import Issuer
from erp.vendor_clients.oidc.settings import IssuerSettings
from erp.vendor_clients.oidc.wire import issuer_http

if TYPE_CHECKING:
    from erp.control_plane.connections import StoredConnections
    from erp.control_plane.revisions import Revisions
    from erp.runtime.pool import ProviderPool
    from erp.runtime.ports import Connection

DOMAIN, PROVIDER = "auth", "oidc"
MOST_OPEN = 1000


class Trusted(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant's trust in one issuer."""

    tenant: str
    name: str
    revision: str
    issuer: str
    opaque_tokens: bool
    connection: Connection

    @classmethod
    def by(cls, connection: Connection) -> Trusted:
        """Read a connection of ``auth/oidc``."""
        return cls(
            tenant=connection.tenant,
            name=connection.name,
            revision=connection.revision,
            issuer=str(connection.config.get("issuer", "")),
            opaque_tokens=bool(connection.config.get("opaque_tokens")),
            connection=connection,
        )


class Trust:
    """The issuers of all tenants, read again after a configuration has changed."""

    def __init__(self, connections: StoredConnections, pool: ProviderPool, revisions: Revisions) -> None:
        self._connections = connections
        self._pool = pool
        self._revisions = revisions
        self._by_issuer: dict[str, list[Trusted]] = {}
        self._by_tenant: dict[str, list[Trusted]] = {}
        self._is_read = False
        self._generation = 0
        self._reading = asyncio.Lock()
        self._open: dict[tuple[str, str], tuple[str, Issuer]] = {}
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        revisions.watch(Topic.CONFIGURATION, self._forget)

    def _forget(self) -> None:
        self._is_read = False
        self._generation += 1

    async def of_issuer(self, issuer: str) -> list[Trusted]:
        """Return who trusts an issuer."""
        await self._read()
        return self._by_issuer.get(issuer, [])

    async def of_tenant(self, tenant: str) -> list[Trusted]:
        """Return whom a tenant trusts."""
        await self._read()
        return self._by_tenant.get(tenant, [])

    async def named(self, tenant: str, name: str) -> Trusted | None:
        """Return a tenant's issuer by the name of its connection."""
        return next((one for one in await self.of_tenant(tenant) if one.name == name), None)

    async def _read(self) -> None:
        await self._revisions.refresh()
        if self._is_read:
            return
        async with self._reading:
            generation = self._generation
            found = [Trusted.by(one) for one in await self._connections.of_provider(DOMAIN, PROVIDER)]
            self._by_issuer, self._by_tenant = {}, {}
            for one in found:
                self._by_issuer.setdefault(one.issuer, []).append(one)
                self._by_tenant.setdefault(one.tenant, []).append(one)
            self._is_read = generation == self._generation
            live = {(one.tenant, one.name): one.revision for one in found}
            for key in [key for key, (revision, _) in self._open.items() if live.get(key) != revision]:
                self._close(self._open.pop(key)[1])

    async def issuer(self, trusted: Trusted) -> Issuer:
        """Return the open client of a tenant's issuer.

        Raises:
            IssuerMisconfiguredError: its configuration cannot be used any more.
        """
        key = (trusted.tenant, trusted.name)
        found = self._open.get(key)
        if found is None or found[0] != trusted.revision:
            async with self._opening:
                found = self._open.get(key)
                if found is None or found[0] != trusted.revision:
                    found = (trusted.revision, await self._opened(trusted))
                    self._keep(key, found)
        return found[1]

    async def _opened(self, trusted: Trusted) -> Issuer:
        try:
            settings = IssuerSettings.of(await self._pool.configuration(trusted.connection))
            http = issuer_http(settings.timeout_seconds)
            http.check_url(settings.issuer)
        except (EgressRefusedError, ValueError) as error:
            raise IssuerMisconfiguredError(str(error)) from error
        except ProviderError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            raise IssuerMisconfiguredError("The secret of the client is gone.") from error
        return Issuer(settings, http, trusted.tenant)

    def _keep(self, key: tuple[str, str], opened: tuple[str, Issuer]) -> None:
        previous = self._open.pop(key, None)
        if previous is not None:
            self._close(previous[1])
        while len(self._open) >= MOST_OPEN:
            self._close(self._open.pop(next(iter(self._open)))[1])
        self._open[key] = opened

    def _close(self, issuer: Issuer) -> None:
        task = asyncio.ensure_future(issuer.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all clients."""
        while self._open:
            self._close(self._open.popitem()[1][1])
        await asyncio.gather(*self._closing, return_exceptions=True)
