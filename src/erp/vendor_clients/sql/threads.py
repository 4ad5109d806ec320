"""Runs the blocking calls of a driver in threads, and stops what nobody waits for any more."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.sql.lending import closed

T = TypeVar("T")
INTERRUPT_EVERY_SECONDS = 0.02


class Threads:
    """At most ``size`` threads; the first starts with the first work."""

    def __init__(self, size: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def run(self, work: Callable[[], T], *, stop: Callable[[], None], seconds: float | None = None) -> T:
        """Run ``work``; ``stop`` makes the engine end what runs, and does no harm when nothing does.

        When the caller goes away or ``seconds`` have passed the work is stopped, and waited for: nobody else gets
        its connection before.

        Raises:
            ProviderError: ``timeout`` after ``seconds``.
        """
        try:
            task = asyncio.get_running_loop().run_in_executor(self._executor, work)
        except RuntimeError:
            raise closed() from None
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            await stopped(task, stop)
            raise
        if done:
            return task.result()
        await stopped(task, stop)
        if task.exception() is None:
            return task.result()
        raise too_slow() from task.exception()

    async def close(self) -> None:
        """End the threads once their work has ended. Safe twice."""
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)


async def stopped(task: asyncio.Future[Any], stop: Callable[[], None], *, ends: float = math.inf) -> None:
    """Stop until ``task`` has ended, or until ``ends``: it may begin its next statement just after it was stopped.

    A further cancellation does not end the waiting; the connection would be lent out while it is still used.
    """
    while not task.done() and time.monotonic() < ends:
        stop()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=INTERRUPT_EVERY_SECONDS)
    if task.done() and not task.cancelled():
        task.exception()


def too_slow() -> ProviderError:
    """Return the error of a statement that took longer than it may."""
    message = "The statement took longer than it may; it was stopped and changed nothing."
    return ProviderError(ErrorCode.TIMEOUT, message)
