"""Runs the blocking calls of a driver that cannot be stopped in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar, cast

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.sql.lending import closed
from erp.vendor_clients.sql.threads import stopped, too_slow

T = TypeVar("T")
PATIENCE_SECONDS = 1.0
MOST_LEFT = 64


class LeftRunningError(Exception):
    """Work took longer than it may, could not be stopped, and goes on in its thread."""


class LeavingThreads:
    """A thread for each piece of work, left behind when the work cannot be stopped.

    For drivers that wait for a silent server, and ask it again, whatever they are told. Whoever left work behind gives up
    its connection.
    """

    def __init__(self, name: str, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._name = name
        self._patience = patience_seconds
        self._left: set[_Work[Any]] = set()
        self._is_closed = False

    async def run(
        self,
        work: Callable[[], T],
        *,
        stop: Callable[[], None],
        late: Callable[[T | None], None],
        seconds: float | None = None,
    ) -> T:
        """Run ``work``; ``stop`` asks the engine to end what runs, and does no harm when nothing does.

        When the caller goes away or ``seconds`` have passed the work is stopped. What has not ended a second later is
        left behind: ``late`` has its result then, in its thread, or None when it failed.

        Raises:
            LeftRunningError: the work goes on.
            ProviderError: ``timeout`` after ``seconds``; ``unavailable`` when too much was left behind, or after ``close``.
        """
        self._require_room()
        running = _Work(work, late)
        running.begin(self._name)
        try:
            done, _ = await asyncio.wait({running.ended}, timeout=seconds)
        except asyncio.CancelledError:
            await self._end(running, stop)
            raise
        if done or await self._end(running, stop):
            return running.result(is_late=not done)
        raise LeftRunningError

    def _require_room(self) -> None:
        if self._is_closed:
            raise closed()
        if len(self._left) >= MOST_LEFT:
            message = f"{MOST_LEFT} statements still wait for a server that is silent. Try again when it answers."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=10.0)

    async def _end(self, running: _Work[T], stop: Callable[[], None]) -> bool:
        """Stop the work, and leave it when it does not end; return whether it ended."""
        await stopped(running.ended, stop, ends=time.monotonic() + self._patience)
        if not running.leave():
            await stopped(running.ended, stop)  # it has ended in the meantime
            return True
        self._left.add(running)
        running.ended.add_done_callback(lambda _: self._left.discard(running))
        return False

    def close(self) -> None:
        """Begin nothing more. What was left behind ends by itself, or with the process. Safe twice."""
        self._is_closed = True


class _Work(Generic[T]):
    """What runs in a thread of its own, which nobody need wait for."""

    def __init__(self, work: Callable[[], T], late: Callable[[T | None], None]) -> None:
        self._work = work
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._turn = threading.Lock()
        self._is_left = self._has_ended = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def begin(self, name: str) -> None:
        """Begin in a thread that does not hold up the end of the process."""
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
            self._error = error
        with self._turn:
            self._has_ended = True
            is_left = self._is_left
        if is_left:
            with suppress(Exception):
                self._late(self._result)
        with suppress(RuntimeError):  # the loop may have ended before a thread that was left
            self._loop.call_soon_threadsafe(self._note)

    def _note(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def leave(self) -> bool:
        """Leave it to itself, unless it has ended; return whether it is left."""
        with self._turn:
            self._is_left = not self._has_ended
            return self._is_left

    def result(self, *, is_late: bool) -> T:
        """Return what it answered, or raise what it raised; ``timeout`` for what failed because it was stopped."""
        if self._error is None:
            return cast("T", self._result)
        if is_late:
            raise too_slow() from self._error
        raise self._error
