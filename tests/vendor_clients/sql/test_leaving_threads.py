"""Blocking work that cannot be stopped is left behind, and holds up nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from erp.errors import ProviderError
from erp.vendor_clients.sql import leaving_threads
from erp.vendor_clients.sql.leaving_threads import LeavingThreads, LeftRunningError

pytestmark = pytest.mark.anyio


def nothing(*_: object) -> None:
    """Stops what needs no stopping, and cleans up nothing."""


class Deaf:
    """Work that hears of no stop."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.late: list[Any] = []
        self.fails = False

    def __call__(self) -> int:
        self.may_end.wait(30)
        if self.fails:
            raise ConnectionResetError
        return 7


@pytest.fixture
def threads() -> LeavingThreads:
    return LeavingThreads("test", patience_seconds=0.1)


async def until(is_true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError


async def test_work_answers_and_fails_as_it_does(threads: LeavingThreads) -> None:
    assert await threads.run(lambda: 7, stop=nothing, late=nothing) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0, stop=nothing, late=nothing)


async def test_cancelled_work_that_hears_of_it_is_waited_for(threads: LeavingThreads) -> None:
    stopped, ended, late = threading.Event(), threading.Event(), list[Any]()

    def work() -> None:
        stopped.wait(30)
        ended.set()

    task = asyncio.ensure_future(threads.run(work, stop=stopped.set, late=late.append))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (ended.is_set(), late) == (True, [])


async def test_work_that_takes_too_long_is_stopped_with_a_timeout_or_has_its_answer(threads: LeavingThreads) -> None:
    stopped = threading.Event()

    def fails() -> None:
        stopped.wait(30)
        raise RuntimeError

    with pytest.raises(ProviderError) as refused:
        await threads.run(fails, stop=stopped.set, late=nothing, seconds=0.05)
    assert refused.value.code == "timeout"
    stopped.clear()
    assert await threads.run(lambda: stopped.wait(30), stop=stopped.set, late=nothing, seconds=0.05) is True


@pytest.mark.parametrize(("fails", "late"), [(False, [7]), (True, [None])])
async def test_work_that_hears_of_no_stop_is_left_behind_and_its_result_cleaned_up(
    threads: LeavingThreads, fails: bool, late: list[Any]
) -> None:
    work = Deaf()
    work.fails = fails
    begun = time.monotonic()
    with pytest.raises(LeftRunningError):
        await threads.run(work, stop=nothing, late=work.late.append, seconds=0.05)
    assert time.monotonic() - begun < 5
    assert work.late == []

    work.may_end.set()
    await until(lambda: bool(work.late))
    assert work.late == late


async def test_whoever_is_cancelled_waits_no_longer_for_deaf_work_than_the_patience(threads: LeavingThreads) -> None:
    work = Deaf()
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await threads.run(work, stop=nothing, late=work.late.append)
    assert time.monotonic() - begun < 5
    work.may_end.set()
    await until(lambda: work.late == [7])


async def test_no_more_is_begun_than_may_be_left_behind_until_some_of_it_has_ended(
    threads: LeavingThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving_threads, "MOST_LEFT", 2)
    work = Deaf()
    for _ in range(2):
        with pytest.raises(LeftRunningError):
            await threads.run(work, stop=nothing, late=work.late.append, seconds=0.01)
    with pytest.raises(ProviderError) as refused:
        await threads.run(lambda: 1, stop=nothing, late=nothing)
    assert (refused.value.code, refused.value.retry_after_seconds) == ("unavailable", 10.0)

    work.may_end.set()
    await until(lambda: len(work.late) == 2)
    await asyncio.sleep(0.05)
    assert await threads.run(lambda: 1, stop=nothing, late=nothing) == 1


async def test_work_after_the_end_is_unavailable(threads: LeavingThreads) -> None:
    threads.close()
    threads.close()
    with pytest.raises(ProviderError) as refused:
        await threads.run(lambda: 1, stop=nothing, late=nothing)
    assert refused.value.code == "unavailable"
