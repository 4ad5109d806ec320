"""A time limit that costs nothing when there is nothing to wait for, and little when the wait is short.

``asyncio.timeout`` arms and disarms a timer for every call. Most calls to embedded providers, and most reads
of request bodies, end without ever waiting; so the coroutine is driven to its first wait before a timer is armed.
Of those that wait most end long before their limit; so limits that are far off share one timer, and get one of their own
only when they come near.
"""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

NEAR_SECONDS = 1.0
"""What ends within so long has a timer of its own."""
LOOK_SECONDS = 0.5
"""How often the others are looked at; a look may be late by the difference."""


class TimeLimit:
    """At most ``seconds`` for one coroutine, counted from its first wait."""

    __slots__ = ("_seconds", "_timeout")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout: asyncio.Timeout | None = None

    @property
    def is_expired(self) -> bool:
        """Whether the limit struck."""
        return self._timeout is not None and self._timeout.expired()

    async def keep(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what ``work`` returns, or cancel it and raise TimeoutError."""
        try:
            waits_for = work.send(None)
        except StopIteration as ended:
            result: T = ended.value
            return result
        if self._seconds <= NEAR_SECONDS:
            self._timeout = asyncio.timeout(self._seconds)
            async with self._timeout:
                return await _resumed(work, waits_for)
        self._timeout = limit = asyncio.timeout(None)
        async with limit:
            far_off = _far_off()
            far_off.add(limit, self._seconds)
            try:
                return await _resumed(work, waits_for)
            finally:
                far_off.discard(limit)


class _FarOff:
    """The limits of one event loop that are not near yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._ends: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._ends[limit] = self.loop.time() + seconds
        if self._timer is None:
            self._timer = self.loop.call_later(LOOK_SECONDS, self._look)

    def discard(self, limit: asyncio.Timeout) -> None:
        self._ends.pop(limit, None)

    def _look(self) -> None:
        """Give those that came near a timer of their own."""
        soon = self.loop.time() + NEAR_SECONDS
        for limit in [limit for limit, end in self._ends.items() if end <= soon]:
            limit.reschedule(self._ends.pop(limit))
        self._timer = self.loop.call_later(LOOK_SECONDS, self._look) if self._ends else None


_of_thread = threading.local()


def _far_off() -> _FarOff:
    """Return those of the running loop."""
    loop = asyncio.get_running_loop()
    found: _FarOff | None = getattr(_of_thread, "far_off", None)
    if found is None or found.loop is not loop:
        found = _of_thread.far_off = _FarOff(loop)
    return found


@types.coroutine
def _resumed(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that has yielded ``waits_for``, passing everything on in both directions."""
    step: Callable[[Any], Any]
    while True:
        try:
            sent = yield waits_for
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001  (passed on, whatever it is)
            step, value = work.throw, error
        else:
            step, value = work.send, sent
        try:
            waits_for = step(value)
        except StopIteration as ended:
            result: T = ended.value
            return result
