"""Which tenants' databases are looked into for open orders.

A tenant is noted before the first of its orders is written and forgotten when nothing has been open for a while, so that
the databases of all others stay closed. No clock is compared with another machine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

SERVICE = "order"
FRESH_SECONDS = 60.0
"""How long orders may be accepted on the strength of one mark, which saves a commit per order."""
QUIET_SECONDS = 180.0
"""How long a mark has to stand before its tenant is forgotten. More than ``FRESH_SECONDS``: by then no order that was
accepted on its strength can still be unwritten."""


class OpenWork(Protocol):
    """Tenants for which a service may have begun something that it has not ended, kept through restarts."""

    async def mark(self, service: str, tenant: str) -> None:
        """Note the tenant under a mark that was never there before; durable when this returns."""

    async def marks(self, service: str) -> Mapping[str, str]:
        """Return the mark of every tenant noted for ``service``."""

    async def clear(self, service: str, tenant: str, mark: str) -> None:
        """Forget the tenant, unless it was marked again since ``mark``."""


@dataclass(slots=True)
class _Mark:
    """The mark that this process last made for a tenant."""

    made_at: float = -math.inf
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Watch:
    """Notes and forgets tenants. Times are those of the monotonic clock, in seconds."""

    def __init__(self, open_work: OpenWork, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._open_work = open_work
        self._quiet_seconds = quiet_seconds
        self._made: dict[str, _Mark] = {}
        self._seen: dict[str, tuple[str, float]] = {}
        """Tenant -> its mark and since when this process has seen that one."""

    @contextlib.asynccontextmanager
    async def over(self, tenant: str) -> AsyncIterator[None]:
        """Have the tenant noted while something is opened for it, and at the end of that.

        Raises:
            ProviderError: the control plane cannot note it; then nothing must be opened.
        """
        await self._note(tenant)
        yield
        await self._note(tenant)  # what is opened may have taken longer than a mark lasts

    async def _note(self, tenant: str) -> None:
        mark = self._made.setdefault(tenant, _Mark())
        async with mark.lock:
            now = time.monotonic()
            if now - mark.made_at >= FRESH_SECONDS:
                await self._open_work.mark(SERVICE, tenant)
                mark.made_at = now

    async def tenants(self) -> list[str]:
        """Return the tenants that are noted, by whichever process."""
        marks, now = await self._open_work.marks(SERVICE), time.monotonic()
        known = self._seen
        self._seen = {
            tenant: known[tenant] if tenant in known and known[tenant][0] == mark else (mark, now)
            for tenant, mark in marks.items()
        }
        return list(marks)

    async def nothing_open(self, tenant: str, looked_at: float) -> None:
        """Forget a tenant in whose database nothing was open when it was looked into, begun at ``looked_at``."""
        mark, since = self._seen[tenant]
        if looked_at - since >= self._quiet_seconds:
            await self._open_work.clear(SERVICE, tenant, mark)
