"""The life of a provider: constructed, opened, called, closed."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from erp.errors import ProviderError
from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.host import ALPHA
from erp.runtime.spi import Health

DESCRIPTORS = Path("/proc/self/fd")
STUCK_SECONDS = 5.0


@case("LIFE-01")
async def construction_does_nothing_yet(bench: Bench) -> None:
    """The constructor MUST do no input or output and start no thread: it keeps its arguments."""
    made = [_made_by_constructing(bench) for _ in range(5)]  # others of the process come and go meanwhile
    for number, what in enumerate(("started a thread", "opened a file or a socket", "made a file")):
        require(min(one[number] for one in made) <= 0, f"the constructor {what}")


def _made_by_constructing(bench: Bench) -> tuple[int, int, int]:
    """How many threads, descriptors and files there are after it that there were not before."""
    place = bench.place()
    threads, descriptors = _held()
    provider = bench.bare(place=place)
    threads_after, descriptors_after = _held()
    del provider  # it holds what it has opened until now
    return threads_after - threads, descriptors_after - descriptors, sum(1 for _ in place.data_dir.iterdir())


@case("LIFE-02")
async def close_is_safe_without_open(bench: Bench) -> None:
    """``close()`` MUST be safe without ``open()``."""
    await bench.bare().close()


@case("LIFE-03")
async def close_is_safe_twice(bench: Bench) -> None:
    """``close()`` MUST be safe when the provider is closed already."""
    provider = bench.bare()
    await provider.open()
    await provider.close()
    await provider.close()


@case("LIFE-04")
async def a_provider_that_works_says_so(bench: Bench) -> None:
    """``health()`` of an open provider whose peer works MUST answer ``ok`` with a latency that is not negative."""
    provider = bench.bare()
    await provider.open()
    try:
        health = await provider.health()
    finally:
        await provider.close()
    require(isinstance(health, Health), f"health() answered {type(health).__name__}, not Health")
    require(health.status == "ok", f"health() answered {health.status}: {health.message}")
    require(health.latency_ms >= 0, f"health() answered a latency of {health.latency_ms} ms")


@case("LIFE-05")
async def objects_of_one_provider_live_side_by_side(bench: Bench) -> None:
    """Several open objects of a provider MUST work side by side and be closable in any order."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        opened = [bench.bare() for _ in range(3)]
        for provider in opened:
            await provider.open()
        for number, position in enumerate(order):
            await opened[position].close()
            for other in order[number + 1 :]:
                health = await opened[other].health()
                require(health.status == "ok", f"closing one object broke another: {health.message}")


@case("LIFE-06", timed=True)
async def close_gives_everything_back(bench: Bench) -> None:
    """``close()`` MUST give back all threads and file descriptors."""
    await _open_and_close(bench, times=3)
    before = _held()
    await _open_and_close(bench, times=5)

    async def is_given_back() -> bool:
        return all(now <= then for now, then in zip(_held(), before, strict=True))

    await bench.eventually(is_given_back, lambda: f"(threads, descriptors) {_held()} came down to {before}")


async def _open_and_close(bench: Bench, *, times: int) -> None:
    for _ in range(times):
        provider = bench.bare()
        await provider.open()
        await _one_call(bench, provider)
        await provider.close()


def _held() -> tuple[int, int]:
    return threading.active_count(), sum(1 for _ in DESCRIPTORS.iterdir()) if DESCRIPTORS.exists() else 0


@case("LIFE-07")
async def what_was_closed_can_be_opened_again(bench: Bench) -> None:
    """After a connection was closed a new object of the same connection MUST open and work."""
    for _ in range(3):
        action, params = bench.sample()
        await bench.call(action, params)
        bench.host.pool.discard(ALPHA, bench.domain, bench.manifest.name, bench.connection)
    action, params = bench.sample()
    await bench.call(action, params)


@case("LIFE-08")
async def a_cancelled_call_leaves_a_provider_that_works(bench: Bench) -> None:
    """Cancelling a call at any moment MUST leave the provider able to serve the next one."""
    await _sampled(bench)
    for number in range(20):
        task = asyncio.ensure_future(_sampled(bench))
        await asyncio.sleep(number * 0.0002)
        task.cancel()
        with suppress(asyncio.CancelledError, ProviderError):
            await task
    async with asyncio.timeout(STUCK_SECONDS):
        await _sampled(bench)


@case("LIFE-09")
async def close_does_not_wait_for_ever(bench: Bench) -> None:
    """``close()`` while calls run MUST end, and the calls MUST end with a result or an error."""
    provider = bench.bare()
    await provider.open()
    calls = [asyncio.ensure_future(_one_call(bench, provider)) for _ in range(5)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(STUCK_SECONDS):
            await provider.close()
            await asyncio.gather(*calls, return_exceptions=True)
    except TimeoutError:
        require(False, f"close() or a call did not end within {STUCK_SECONDS:g} s")  # noqa: FBT003  (always fails)


@case("LIFE-10")
async def a_cancelled_open_can_be_closed(bench: Bench) -> None:
    """``close()`` MUST be safe after ``open()`` was cancelled, and a new object MUST open."""
    for number in range(5):
        provider = bench.bare()
        task = asyncio.ensure_future(provider.open())
        await asyncio.sleep(number * 0.0003)
        task.cancel()
        with suppress(asyncio.CancelledError, ProviderError):
            await task
        await provider.close()
    provider = bench.bare()
    await provider.open()
    await provider.close()


async def _sampled(bench: Bench) -> Any:
    action, params = bench.sample()
    return await bench.call(action, params)


async def _one_call(bench: Bench, provider: Any) -> Any:
    return await bench.bare_call(provider, *bench.sample())
