"""Blocking work in threads: it ends, is stopped with whoever waits for it, or takes too long."""

from __future__ import annotations

import asyncio
import threading

import pytest

from erp.errors import ProviderError
from erp.vendor_clients.sql.threads import Threads

pytestmark = pytest.mark.anyio


def nothing() -> None:
    """Stops what needs no stopping."""


async def test_work_answers_and_fails_as_it_does() -> None:
    threads = Threads(2, "test")
    assert await threads.run(lambda: 7, stop=nothing) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0, stop=nothing)
    await threads.close()
    await threads.close()


async def test_cancelled_work_is_stopped_and_waited_for() -> None:
    threads, stopped, ended = Threads(1, "test"), threading.Event(), threading.Event()

    def work() -> None:
        stopped.wait(30)
        ended.set()

    task = asyncio.ensure_future(threads.run(work, stop=stopped.set))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    await threads.close()


async def test_work_that_takes_too_long_is_stopped_with_a_timeout() -> None:
    threads, stopped = Threads(1, "test"), threading.Event()

    def work() -> None:
        stopped.wait(30)
        raise RuntimeError

    with pytest.raises(ProviderError) as refused:
        await threads.run(work, stop=stopped.set, seconds=0.05)
    assert refused.value.code == "timeout"
    await threads.close()


async def test_work_that_ends_as_it_is_stopped_has_its_answer() -> None:
    threads, stopped = Threads(1, "test"), threading.Event()
    assert await threads.run(lambda: stopped.wait(30), stop=stopped.set, seconds=0.05) is True
    await threads.close()


async def test_work_after_the_end_is_unavailable() -> None:
    threads = Threads(1, "test")
    await threads.close()
    with pytest.raises(ProviderError) as refused:
        await threads.run(lambda: 1, stop=nothing)
    assert refused.value.code == "unavailable"
