"""Events of one tenant as they become durable, for whoever listens right now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from erp.errors import ProviderError

if TYPE_CHECKING:
    from erp.runtime.ports import OutboxEvent

POLL_SECONDS = 0.25
BATCH = 200

Numbered = tuple[int, "OutboxEvent"]
Read = Callable[[str, int, int], Awaitable[Sequence[Numbered]]]
"""``await read(tenant, after, limit)``: the tenant's events behind a position, in order."""
End = Callable[[], Awaitable[int]]
"""``await end()``: the position of the latest event of all tenants."""


class EventFeed:
    """Looks for new events once for all who listen; nobody listens, nobody looks."""

    def __init__(self, read: Read, end: End) -> None:
        self._read = read
        self._end = end
        self._arrived = asyncio.Event()
        self._listeners = 0
        self._watcher: asyncio.Task[None] | None = None

    async def latest(self) -> int:
        """Return the position to begin behind for whoever wants only what is to come from now on."""
        return await self._end()

    async def events(self, tenant: str, after: int) -> AsyncGenerator[Numbered]:
        """Yield the tenant's events behind ``after``, then those to come."""
        position = after
        with self._listening():
            while True:
                arrived = self._arrived
                found = await self._read(tenant, position, BATCH)
                for number, event in found:
                    yield number, event
                    position = number
                if len(found) < BATCH:
                    await arrived.wait()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        self._listeners += 1
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="event feed")
        try:
            yield
        finally:
            self._listeners -= 1

    async def _watch(self) -> None:
        try:
            seen = -1  # the first look tells all: what came before it may not have been read
            while self._listeners:
                await asyncio.sleep(POLL_SECONDS)
                with contextlib.suppress(ProviderError):  # the database will answer again
                    present = await self._end()
                    if present != seen:
                        seen = present
                        arrived, self._arrived = self._arrived, asyncio.Event()
                        arrived.set()
        finally:
            self._watcher = None

    async def close(self) -> None:
        """Look no more."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
