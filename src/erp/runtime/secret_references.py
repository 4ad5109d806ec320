"""What a secret reference stands for, wherever it is kept.

    secret://PATH#VERSION                            in the platform's own vault
    secret://secrets/NAME/CONNECTION/PATH#VERSION    at a provider of the domain secrets

The version may be left away. A connection then remembers the one that was proven, and another takes its place when it has
proven itself, too (``rotation``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.contracts.models.secrets import DestroyVersionRequest, GetRequest, NewestRequest
from erp.errors import ProviderError
from erp.runtime.context import CallContext
from erp.runtime.service_calls import service_actor
from erp.runtime.translation import translated
from erp.telemetry.ids import new_request_id

if TYPE_CHECKING:
    from erp.runtime.pool import OpenProvider, ProviderPool
    from erp.runtime.ports import Connection, Connections, SecretVault

SECRET_SCHEME = "secret://"  # noqa: S105  (a URL scheme, not a secret)
DOMAIN = "secrets"
ELSEWHERE = f"{DOMAIN}/"
LOCAL, LOCAL_SPACE = "local", "tenant/"
"""The provider that keeps secrets in the platform's own vault, and where."""
FOLLOWING = "following"
"""The capability of providers that can name their newest version."""
Use = tuple[str, int | str | None]
"""A path and a version: its number, or as it is named where it is kept elsewhere; None: nobody knows which."""
ACTOR = "secrets"
READ_SECONDS = 10.0


class SecretReferences:
    """Reads secrets of a tenant for the layer itself; never for a caller."""

    def __init__(self, vault: SecretVault, pool: ProviderPool) -> None:
        self._vault = vault
        self._pool = pool
        self.connections: Connections | None = None
        """Where connections of the domain secrets are found; None: nothing is kept elsewhere."""

    async def read(self, tenant: str, path: str, version: int | str | None, *, domain: str) -> str:
        """Return the value of a version: by number, as ``newest`` names it, or the present one.

        ``domain`` is that of the connection it is for.

        Raises:
            ProviderError: ``not_found`` when there is none, what opening or asking the provider raises, and
                ``failed_precondition`` when a connection of secrets would need another one.
        """
        if not path.startswith(ELSEWHERE):
            return await self._vault.get(tenant, path, None if version is None else int(version))
        opened, rest = await self._opened(tenant, path, domain)
        found = await _asked(opened, "get", _request(rest, version), tenant)
        value: str = found.value
        return value

    async def newest(self, tenant: str, path: str, *, domain: str) -> str | None:
        """Name the newest version without reading it; None where it is kept nobody can say.

        Raises:
            ProviderError: as ``read``.
        """
        if not path.startswith(ELSEWHERE):
            number = await self._vault.newest(tenant, path)
            if number is None:
                raise ProviderError(ErrorCode.NOT_FOUND, f"There is no secret {path[:200]!r}.")
            return str(number)
        opened, rest = await self._opened(tenant, path, domain)
        if FOLLOWING not in opened.manifest.capabilities:
            return None
        name: str = (await _asked(opened, "newest", NewestRequest(path=rest), tenant)).version_id
        return name

    async def destroy(self, tenant: str, path: str, version_id: str) -> bool:
        """Destroy a version that is kept elsewhere; False: it is the current one, and stays.

        Raises:
            ProviderError: ``not_found`` when its connection is gone, else what opening or asking the provider raises.
        """
        connection, rest = await self._found(tenant, path)
        opened = await self._pool.acquire(connection)
        request = DestroyVersionRequest(path=rest, version_id=version_id)
        is_gone: bool = (await _asked(opened, "destroy_version", request, tenant)).destroyed
        return is_gone

    async def newest_of(self, connection: Connection) -> dict[str, str]:
        """Name the newest version of every secret that ``connection`` names without one, as far as that can be said."""
        found: dict[str, str] = {}
        for reference in sorted({text for text in connection.secrets.values() if "#" not in text}):
            path = reference.removeprefix(SECRET_SCHEME)
            name = await self.newest(connection.tenant, path, domain=connection.domain)
            if name is not None:
                found[reference] = name
        return found

    async def values(self, connection: Connection) -> tuple[dict[str, str], dict[str, str]]:
        """Return the secrets of a connection by setting, and which version was read of those named without one.

        A version that the connection remembers is read again; when it is gone, the newest.

        Raises:
            ProviderError: as ``read``.
        """
        found: dict[str, str] = {}
        versions: dict[str, str] = {}
        for name, reference in connection.secrets.items():
            path, _, number = reference.removeprefix(SECRET_SCHEME).partition("#")
            if number:
                found[name] = await self.read(connection.tenant, path, int(number), domain=connection.domain)
                continue
            known = versions.get(reference) or connection.versions.get(reference)
            found[name], version = await self._followed(connection, path, known)
            if version is not None:
                versions[reference] = version
        return found, versions

    async def _followed(self, connection: Connection, path: str, known: str | None) -> tuple[str, str | None]:
        tenant, domain = connection.tenant, connection.domain
        if known is not None:
            try:
                return await self.read(tenant, path, known, domain=domain), known
            except ProviderError as error:
                if error.code is not ErrorCode.NOT_FOUND:
                    raise
        newest = await self.newest(tenant, path, domain=domain)
        return await self.read(tenant, path, newest, domain=domain), newest

    async def _opened(self, tenant: str, path: str, domain: str) -> tuple[OpenProvider, str]:
        if domain == DOMAIN:
            message = "The credentials of a secrets provider cannot be kept at a secrets provider; keep them in secrets/local."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        connection, rest = await self._found(tenant, path)
        return await self._pool.acquire(connection), rest

    async def _found(self, tenant: str, path: str) -> tuple[Connection, str]:
        parts = path.removeprefix(ELSEWHERE).split("/", 2)
        if len(parts) == 3 and self.connections is not None:  # noqa: PLR2004  (provider, connection, path)
            name, connection, rest = parts
            found = await self.connections.find(tenant, DOMAIN, name, connection)
            if found is not None:
                return found, rest
        message = f"There is no connection for the secret {path[:200]!r}."
        raise ProviderError(ErrorCode.NOT_FOUND, message)


def uses(secrets: Mapping[str, str], versions: Mapping[str, str]) -> set[Use]:
    """Return which versions a connection uses that has these secrets."""
    found: set[Use] = set()
    for reference in secrets.values():
        path, _, number = reference.removeprefix(SECRET_SCHEME).partition("#")
        begin = f"{ELSEWHERE}{LOCAL}/"
        if path.startswith(begin):
            path = LOCAL_SPACE + path.removeprefix(begin).partition("/")[2]
        known = number or versions.get(reference)
        is_number = number or not path.startswith(ELSEWHERE)
        found.add((path, int(known) if known and is_number and known.isdecimal() else known))
    return found


def _request(path: str, version: int | str | None) -> GetRequest:
    if version is None:
        return GetRequest(path=path)
    return (
        GetRequest(path=path, version=version)
        if isinstance(version, int)
        else GetRequest(path=path, version_id=version)
    )


async def _asked(opened: OpenProvider, action: str, request: Any, tenant: str) -> Any:
    context = CallContext(
        tenant=tenant,
        actor=service_actor(ACTOR, tenant),
        request_id=new_request_id(),
        deadline=time.monotonic() + READ_SECONDS,
        connection=opened.connection.name,
    )
    opened.enter()
    try:
        return await getattr(opened.provider, action)(request, context)
    except Exception as error:
        made = translated(opened.provider, error, opened.manifest.ref)
        raise made from error
    finally:
        opened.leave()
