"""More calls at a time than there is room for, each held by a silent server: what those without room are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.conformance.live import LIVE
from tests.faults.conftest import FAULTED, PATIENCE_SECONDS, POLICY, Line, address_of, through
from tests.faults.effects import counts
from tests.faults.test_network import DOUBTFUL, GONE
from tests.support.faulty_proxy import FaultyProxy

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.conformance.host import ALPHA, Host

pytestmark = [pytest.mark.anyio, pytest.mark.live]

ROOM = 2
BEYOND = 8
HELD_SECONDS = 3.0
_CALLS = {"max_connections": ROOM, "pool_wait_seconds": 0.2}
_DATABASE = {"readers": ROOM, "writers": ROOM, "max_transactions": 1, "wait_seconds": 0.2}
POOLED: dict[str, dict[str, Any]] = {
    "bus/redis": _CALLS,
    "cache/memcached": _CALLS,
    "cache/redis": _CALLS,
    "db/mysql": _DATABASE,
    "db/postgres": _DATABASE,
    "db/snowflake": _DATABASE,
}
"""Providers with a pool of connections of their own, and how it is made small; the others share one connection."""
CALM = {**POLICY, "breaker": {"failure_threshold": 1000}}
"""The breaker would answer for the pool."""


@pytest.fixture
async def narrow(host: Host, ref: str, proxy: FaultyProxy) -> AsyncIterator[Line]:
    """A connection with room for few calls."""
    config = {**LIVE[ref].config(through(address_of(ref), proxy)), **POOLED[ref]}
    made = await Line(host, ref, ALPHA, config, proxy).connect()
    await made.configure(CALM)
    yield made
    await made.close()


async def timed(work: Any) -> tuple[ProviderError | None, float]:
    """Return how a call failed, and after how many seconds."""
    begun = time.monotonic()
    try:
        await work
    except ProviderError as error:
        return error, time.monotonic() - begun
    return None, time.monotonic() - begun


@pytest.mark.parametrize("ref", [ref for ref in FAULTED if ref in POOLED])
async def test_a_call_that_gets_no_connection_of_the_pool_is_told_before_those_that_hold_them(narrow: Line) -> None:
    await asyncio.gather(*(narrow.effect.read() for _ in range(ROOM)))
    narrow.proxy.fault = "silent"

    calls = [timed(narrow.effect.read(seconds=HELD_SECONDS)) for _ in range(ROOM + BEYOND)]
    ended = sorted(await asyncio.gather(*calls), key=lambda one: one[1])
    narrow.proxy.heal()
    narrow.proxy.break_all()

    told = [(error.code, error.retryable, error.retry_after_seconds) for error, _ in ended[:BEYOND] if error]
    assert told == [(ErrorCode.UNAVAILABLE, True, 1.0)] * BEYOND
    assert ended[BEYOND - 1][1] < HELD_SECONDS / 2
    held = [error.code for error, _ in ended[BEYOND:] if error]
    assert (len(held), set(held) <= GONE) == (ROOM, True)
    await narrow.recovered()
    await asyncio.gather(*(narrow.effect.read() for _ in range(ROOM)))


@pytest.mark.parametrize("ref", [ref for ref in FAULTED if ref in POOLED])
async def test_a_write_that_got_no_connection_has_not_happened_and_may_be_sent_again(narrow: Line) -> None:
    names = [f"crowded-{number}" for number in range(ROOM + BEYOND)]
    narrow.proxy.fault = "silent"

    calls = [timed(narrow.effect.write(name, seconds=HELD_SECONDS)) for name in names]
    ended = dict(zip(names, await asyncio.gather(*calls), strict=True))
    narrow.proxy.heal()
    narrow.proxy.break_all()
    await narrow.recovered()

    codes = {name: error.code for name, (error, _) in ended.items() if error}
    assert len(codes) == len(names)
    refused = [name for name, code in codes.items() if code is ErrorCode.UNAVAILABLE]
    assert (len(refused) >= BEYOND, set(codes.values()) <= DOUBTFUL) == (True, True)
    assert await counts(narrow.effect, refused) == dict.fromkeys(refused, 0)
    for name in refused:
        await narrow.effect.write(name)
    assert await counts(narrow.effect, refused) == dict.fromkeys(refused, 1)


async def test_calls_beyond_the_queue_of_a_connection_are_refused_at_once_and_others_wait_their_time(
    line: Line,
) -> None:
    await line.configure({**CALM, "bulkhead": {"max_concurrency": ROOM, "max_queue": ROOM}})
    await line.effect.read()
    line.proxy.fault = "silent"

    calls = [timed(line.effect.read(seconds=2.0)) for _ in range(2 * ROOM + BEYOND)]
    ended = sorted(await asyncio.gather(*calls), key=lambda one: one[1])
    line.proxy.heal()
    line.proxy.break_all()

    refused = [(error.code, error.retryable, after) for error, after in ended[:BEYOND] if error]
    assert [one[:2] for one in refused] == [(ErrorCode.UNAVAILABLE, True)] * BEYOND
    assert max(after for *_, after in refused) < 1.0
    waited = [error.code for error, _ in ended[BEYOND:] if error]
    assert (len(waited), set(waited) <= GONE) == (2 * ROOM, True)
    assert max(after for _, after in ended) < PATIENCE_SECONDS / 3
    await line.recovered()
    await asyncio.gather(*(line.effect.read() for _ in range(2 * ROOM)))
