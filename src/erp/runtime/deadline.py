"""A time limit that costs nothing when there is nothing to wait for.

``asyncio.timeout`` arms and disarms a timer for every call. Most calls to embedded providers, and most reads
of request bodies, end without ever waiting; so the coroutine is driven to its first wait before a timer is armed.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


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
        self._timeout = asyncio.timeout(self._seconds)
        async with self._timeout:
            return await _resumed(work, waits_for)


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
