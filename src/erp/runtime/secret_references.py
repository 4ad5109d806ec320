"""What a secret reference stands for, wherever it is kept.

    secret://PATH#VERSION                            in the platform's own vault
    secret://secrets/NAME/CONNECTION/PATH#VERSION    at a provider of the domain secrets

The version may be left away: then it is the present one at the time a provider is opened.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.contracts.models.secrets import GetRequest
from erp.errors import ProviderError
from erp.runtime.context import CallContext
from erp.runtime.service_calls import service_actor
from erp.runtime.translation import translated
from erp.telemetry.trace import new_request_id

if TYPE_CHECKING:
    from erp.runtime.pool import OpenProvider, ProviderPool
    from erp.runtime.ports import Connection, Connections, SecretVault

DOMAIN = "secrets"
ELSEWHERE = f"{DOMAIN}/"
ACTOR = "secrets"
READ_SECONDS = 10.0


class SecretReferences:
    """Reads secrets of a tenant for the layer itself; never for a caller."""

    def __init__(self, vault: SecretVault, pool: ProviderPool) -> None:
        self._vault = vault
        self._pool = pool
        self.connections: Connections | None = None
        """Where connections of the domain secrets are found; None: nothing is kept elsewhere."""

    async def read(self, tenant: str, path: str, version: int | None, *, domain: str) -> str:
        """Return the value; ``domain`` is that of the connection it is for.

        Raises:
            ProviderError: ``not_found`` when there is none, what opening or asking the provider raises, and
                ``failed_precondition`` when a connection of secrets would need another one.
        """
        if not path.startswith(ELSEWHERE):
            return await self._vault.get(tenant, path, version)
        if domain == DOMAIN:
            message = "The credentials of a secrets provider cannot be kept at a secrets provider; keep them in secrets/local."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        connection, rest = await self._found(tenant, path)
        opened = await self._pool.acquire(connection)
        request = GetRequest(path=rest) if version is None else GetRequest(path=rest, version=version)
        return await _asked(opened, request, tenant)

    async def _found(self, tenant: str, path: str) -> tuple[Connection, str]:
        parts = path.removeprefix(ELSEWHERE).split("/", 2)
        if len(parts) == 3 and self.connections is not None:  # noqa: PLR2004  (provider, connection, path)
            name, connection, rest = parts
            found = await self.connections.find(tenant, DOMAIN, name, connection)
            if found is not None:
                return found, rest
        message = f"There is no connection for the secret {path[:200]!r}."
        raise ProviderError(ErrorCode.NOT_FOUND, message)


async def _asked(opened: OpenProvider, request: GetRequest, tenant: str) -> str:
    context = CallContext(
        tenant=tenant,
        actor=service_actor(ACTOR, tenant),
        request_id=new_request_id(),
        deadline=time.monotonic() + READ_SECONDS,
        connection=opened.connection.name,
    )
    opened.enter()
    try:
        found = await opened.provider.get(request, context)
    except Exception as error:
        made = translated(opened.provider, error, opened.manifest.ref)
        raise made from error
    finally:
        opened.leave()
    value: str = found.value
    return value
