"""Takes new, changed and removed providers into account while calls go on.

A changed provider is opened beside the old one for every connection in use and asked for its health, and only then
calls go to it; the old one closes after its last call. What cannot be loaded, opened or is down is refused with the
reason, and everything stays as it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from erp.errors import ProviderError
from erp.runtime import loader
from erp.runtime.configuring import prove

if TYPE_CHECKING:
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.foreign import Unusable
    from erp.runtime.manifest import ProviderManifest
    from erp.runtime.pool import OpenProvider, ProviderPool

Outcome = Literal["added", "changed", "removed", "refused"]
Pair = tuple["OpenProvider", "OpenProvider"]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one provider."""

    ref: str
    outcome: Outcome
    version: str | None = None
    """Of the provider that is in use now; None: there is none."""
    connections: int = 0
    """Open connections that calls were moved from."""
    reason: str | None = None
    """Why it was refused."""


class HotSwap:
    """Reloads the catalog of one process, one reload at a time."""

    def __init__(self, catalog: ProviderCatalog, pool: ProviderPool) -> None:
        self._catalog = catalog
        self._pool = pool
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> list[Change]:
        """Look for providers anew and take into use what has proven itself; return what changed, by name."""
        async with self._one_at_a_time:
            found, unusable = await asyncio.to_thread(self._catalog.discover)
            changes = [self._refused(one.place, one.reason) for one in unusable if self._is_news(one)]
            kept = self._kept(unusable)
            wanted = {manifest.ref: manifest for manifest in found}
            for ref in sorted({*self._catalog.providers, *wanted}):
                change = await self._settle(ref, wanted.get(ref), is_kept=ref in kept)
                changes += [change] if change else []
            return sorted(changes, key=lambda change: change.ref)

    def _is_news(self, one: Unusable) -> bool:
        """A name that is taken has been said at the start."""
        known = self._catalog.providers.get(one.place)
        return known is None or known.build is not None

    def _kept(self, unusable: list[Unusable]) -> set[str]:
        """A provider whose files are broken now goes on as it was loaded."""
        places = {one.place for one in unusable}
        return {ref for ref, known in self._catalog.providers.items() if places & {ref, known.package}}

    async def _settle(self, ref: str, wanted: ProviderManifest | None, *, is_kept: bool) -> Change | None:
        known = self._catalog.providers.get(ref)
        if wanted == known or (wanted is None and is_kept):
            return None
        if wanted is None:
            return self._remove(ref)
        try:
            return await self._take(wanted, known)
        except ProviderError as error:
            return self._refused(ref, " ".join(filter(None, (error.message, error.detail))))

    def _refused(self, ref: str, reason: str) -> Change:
        known = self._catalog.providers.get(ref)
        return Change(ref, "refused", version=known.version if known else None, reason=reason)

    def _remove(self, ref: str) -> Change:
        connections = len(self._pool.of_provider(ref))
        self._know(ref, None)
        self._pool.retire_outdated(ref)
        return Change(ref, "removed", connections=connections)

    async def _take(self, wanted: ProviderManifest, known: ProviderManifest | None) -> Change:
        """Prove the provider, then let calls go to it.

        Raises:
            ProviderError: it cannot be loaded or opened, or is down; nothing has changed.
        """
        pairs: list[Pair] = []
        modules = loader.forget(wanted)
        try:
            await asyncio.to_thread(self._pool.load, wanted)
            for opened in self._pool.of_provider(wanted.ref):
                pairs.append((opened, await self._pool.open_unpooled(opened.connection, wanted)))
                await prove(pairs[-1][1])
        except BaseException:
            loader.forget(wanted)
            loader.restore(modules)
            for _, new in pairs:
                self._pool.retire(new)
            raise
        self._know(wanted.ref, wanted)
        for old, new in pairs:
            self._pool.put(new, instead_of=old)
        self._pool.retire_outdated(wanted.ref)
        return Change(wanted.ref, "changed" if known else "added", wanted.version, len(pairs))

    def _know(self, ref: str, wanted: ProviderManifest | None) -> None:
        """Change what is known of one provider, without changing who comes first of those that need no settings."""
        manifests = dict(self._catalog.providers)
        if wanted is not None:
            manifests[ref] = wanted
        else:
            manifests.pop(ref, None)
        self._catalog.replace(manifests.values())
