"""The platform's own secret store. Implements ``ports.SecretVault``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.secrets import SecretRow, SecretRows
from erp.errors import FieldError, ProviderError
from erp.runtime.ports import SecretVersion
from erp.security import envelope
from erp.security.keyring import Keyring

MAX_PATH_LENGTH = 512


class EnvelopeVault:
    """Secrets by tenant and path, every version in an envelope of its own."""

    def __init__(self, rows: SecretRows, keyring: Keyring) -> None:
        self._rows = rows
        self._keyring = keyring
        self.on_put: Callable[[str, str], None] = lambda _tenant, _path: None
        """Called after a version was stored in this process."""

    async def put(self, tenant: str, path: str, value: str) -> int:
        """Store a new version and return its number; earlier ones are kept.

        Raises:
            ProviderError: ``invalid_argument`` for a path that cannot be stored, ``not_found`` when
                the tenant does not exist.
        """
        if not 0 < len(path) <= MAX_PATH_LENGTH or not path.isprintable():
            problem = FieldError("/path", f"Use 1 to {MAX_PATH_LENGTH} printable characters.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The path of the secret is not valid.", errors=[problem])
        version = await self._rows.add(tenant, path, partial(self._seal, tenant, path, value.encode()))
        self.on_put(tenant, path)
        return version

    def _seal(self, tenant: str, path: str, value: bytes, version: int) -> tuple[str, bytes]:
        return envelope.seal(self._keyring, value, tenant=tenant, path=path, version=version)

    async def get(self, tenant: str, path: str, version: int | None = None) -> str:
        row = await self._rows.find(tenant, path, version)
        if row is None or row.envelope is None or row.key_id is None:
            wanted = "" if version is None else f" in version {version}"
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no secret {path[:MAX_PATH_LENGTH]!r}{wanted}.")
        place = {"tenant": tenant, "path": path}
        value = envelope.unseal(self._keyring, row.key_id, row.envelope, version=row.version, **place)
        return value.decode()

    async def count_to_rewrap(self) -> int:
        """Return how many secrets (versions) an older key-encryption key still wraps."""
        return await self._rows.count_wrapped_otherwise(self._keyring.current_kek_id)

    async def rewrap(self, *, limit: int = 500) -> int:
        """Wrap up to ``limit`` data keys by the present key-encryption key; no value is opened. Return how many."""
        return await self._rows.rewrap(self._keyring.current_kek_id, self._rewrapped, limit=limit)

    def _rewrapped(self, tenant: str, path: str, version: int, key_id: str, sealed: bytes) -> tuple[str, bytes]:
        return envelope.rewrap(self._keyring, key_id, sealed, tenant=tenant, path=path, version=version)

    async def versions(self, tenant: str, path: str) -> list[SecretVersion]:
        rows = await self._rows.versions(tenant, path)
        current = max((row.version for row in rows if row.envelope is not None), default=0)
        return [_version(row, current) for row in reversed(rows)]

    async def list(self, tenant: str, prefix: str) -> list[str]:
        return await self._rows.paths(tenant, prefix)

    async def delete(self, tenant: str, path: str) -> bool:
        return await self._rows.destroy(tenant, path)

    async def destroy(self, tenant: str, path: str, version: int) -> bool:
        return await self._rows.destroy(tenant, path, version)


def _version(row: SecretRow, current: int) -> SecretVersion:
    created_at = moments.text(row.created_at)
    if row.envelope is None:
        return SecretVersion(version=row.version, created_at=created_at, state="destroyed")
    return SecretVersion(
        version=row.version, created_at=created_at, state="current" if row.version == current else "previous"
    )
