"""The platform's own secret store. Implements ``ports.SecretVault``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from weakref import WeakValueDictionary

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.secrets import SecretRow, SecretRows, WrappedRow
from erp.errors import FieldError, ProviderError
from erp.runtime.ports import SecretVersion
from erp.security import envelope
from erp.security.keyring import Keyring

MAX_PATH_LENGTH = 512
MOST_TRIES = 20
AT_ONCE = 16
"""How many data keys are wrapped at the same time, which matters where the key is elsewhere."""


class EnvelopeVault:
    """Secrets by tenant and path, every version in an envelope of its own."""

    def __init__(self, rows: SecretRows, keyring: Keyring) -> None:
        self._rows = rows
        self._keyring = keyring
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self.on_put: Callable[[str, str], None] = lambda _tenant, _path: None
        """Called after a version was stored in this process."""

    async def put(self, tenant: str, path: str, value: str, *, overlap_seconds: float | None = None) -> int:
        """Store a new version and return its number; earlier ones are kept, with ``overlap_seconds`` only so long.

        Raises:
            ProviderError: ``invalid_argument`` for a path that cannot be stored, ``not_found`` when
                the tenant does not exist.
        """
        if not 0 < len(path) <= MAX_PATH_LENGTH or not path.isprintable():
            problem = FieldError("/path", f"Use 1 to {MAX_PATH_LENGTH} printable characters.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The path of the secret is not valid.", errors=[problem])
        async with self._turn(tenant, path):
            version = await self._add(tenant, path, value.encode(), overlap_seconds)
        self.on_put(tenant, path)
        return version

    async def _add(self, tenant: str, path: str, value: bytes, overlap_seconds: float | None) -> int:
        """Seal for the next number, which another process may take first.

        The key may be slow to reach, so that no transaction is held meanwhile.
        """
        for _ in range(MOST_TRIES):
            version = await self._rows.next_version(tenant, path)
            sealed = await envelope.seal(self._keyring, value, tenant=tenant, path=path, version=version)
            if await self._rows.add(tenant, path, version, *sealed, overlap_seconds=overlap_seconds):
                return version
        message = "Many write this secret at the same time; nothing was stored."
        raise ProviderError(ErrorCode.CONFLICT, message)

    @contextlib.asynccontextmanager
    async def _turn(self, tenant: str, path: str) -> AsyncIterator[None]:
        """Let those who write one secret in this process take turns."""
        lock = self._turns.get((tenant, path))
        if lock is None:
            lock = self._turns[tenant, path] = asyncio.Lock()
        async with lock:
            yield

    async def get(self, tenant: str, path: str, version: int | None = None) -> str:
        row = await self._rows.find(tenant, path, version)
        if row is None or row.envelope is None or row.key_id is None:
            wanted = "" if version is None else f" in version {version}"
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no secret {path[:MAX_PATH_LENGTH]!r}{wanted}.")
        place = {"tenant": tenant, "path": path}
        value = await envelope.unseal(self._keyring, row.key_id, row.envelope, version=row.version, **place)
        return value.decode()

    async def count_to_rewrap(self) -> int:
        """Return how many secrets (versions) an older key-encryption key still wraps."""
        return await self._rows.count_wrapped_otherwise(self._keyring.current_kek_id)

    async def rewrap(self, *, limit: int = 500) -> int:
        """Wrap up to ``limit`` data keys by the present key-encryption key; no value is opened. Return how many.

        Raises:
            ProviderError: why a key cannot be used; nothing of this round was stored.
        """
        rows = await self._rows.wrapped_otherwise(self._keyring.current_kek_id, limit=limit)
        changes: list[tuple[WrappedRow, str, bytes]] = []
        for begin in range(0, len(rows), AT_ONCE):
            changes += await asyncio.gather(*(self._rewrapped(row) for row in rows[begin : begin + AT_ONCE]))
        if changes:
            await self._rows.replace(changes)
        return len(rows)

    async def _rewrapped(self, row: WrappedRow) -> tuple[WrappedRow, str, bytes]:
        place = {"tenant": row.tenant, "path": row.path}
        return row, *await envelope.rewrap(self._keyring, row.key_id, row.envelope, version=row.version, **place)

    async def versions(self, tenant: str, path: str) -> list[SecretVersion]:
        rows, due = await self._rows.versions(tenant, path), await self._rows.due(tenant, path)
        current = max((row.version for row in rows if row.envelope is not None), default=0)
        return [_version(row, current, due.get(row.version)) for row in reversed(rows)]

    async def newest(self, tenant: str, path: str) -> int | None:
        return await self._rows.newest(tenant, path)

    async def list(self, tenant: str, prefix: str) -> list[str]:
        return await self._rows.paths(tenant, prefix)

    async def delete(self, tenant: str, path: str) -> bool:
        return await self._rows.destroy(tenant, path)

    async def destroy(self, tenant: str, path: str, version: int) -> bool:
        return await self._rows.destroy(tenant, path, version)


def _version(row: SecretRow, current: int, due_at: int | None) -> SecretVersion:
    created_at = moments.text(row.created_at)
    if row.envelope is None:
        return SecretVersion(version=row.version, created_at=created_at, state="destroyed")
    return SecretVersion(
        version=row.version,
        created_at=created_at,
        state="current" if row.version == current else "previous",
        destroyed_after=moments.optional_text(due_at),
    )
