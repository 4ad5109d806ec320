"""The secrets of endpoints and receivers: kept in the vault, their versions in the tables."""

from __future__ import annotations

from typing import Literal

from erp.runtime.spi import OpenContext

MAX_REMEMBERED = 2000
Owner = Literal["endpoints", "receivers"]


class Keys:
    """Stores and finds secrets by owner and version; remembers those in use."""

    def __init__(self, context: OpenContext) -> None:
        self._vault = context.vault
        self._tenant = context.tenant
        self._space = f"connections/integration/webhook/{context.connection}"
        self._remembered: dict[tuple[str, int], str] = {}

    def __repr__(self) -> str:
        return f"Keys({self._space!r})"

    def _path(self, owner: Owner, id_: str) -> str:
        return f"{self._space}/{owner}/{id_}"

    async def add(self, owner: Owner, id_: str, secret: str) -> int:
        """Store a new version and return its number; earlier ones stay."""
        return await self._vault.put(self._tenant, self._path(owner, id_), secret)

    async def all(self, owner: Owner, id_: str, versions: list[int]) -> list[str]:
        """Return the secrets of ``versions``.

        Raises:
            ProviderError: ``not_found`` when one is destroyed.
        """
        return [await self._one(self._path(owner, id_), version) for version in versions]

    async def _one(self, path: str, version: int) -> str:
        found = self._remembered.get((path, version))
        if found is None:
            found = await self._vault.get(self._tenant, path, version)
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[path, version] = found
        return found

    async def destroy(self, owner: Owner, id_: str) -> None:
        """Destroy all versions."""
        path = self._path(owner, id_)
        await self._vault.delete(self._tenant, path)
        for key in [key for key in self._remembered if key[0] == path]:
            del self._remembered[key]


def valid_versions(current: int | None, previous: int | None, until: float | None, now: float) -> list[int]:
    """The versions that count now: the current one, and the previous one until its time is over."""
    versions = [] if current is None else [current]
    if previous is not None and until is not None and now < until:
        versions.append(previous)
    return versions
