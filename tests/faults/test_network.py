"""Networks that refuse, fall silent, break off, crawl: what callers are told, and that no effect is lost or doubled."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.conformance.live import LIVE
from tests.faults.conftest import FAULTED, OPEN_SECONDS, PATIENCE_SECONDS, POLICY, Line, not_faulted, until
from tests.support.faulty_proxy import Fault

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

pytestmark = [pytest.mark.anyio, pytest.mark.live]

GONE = {ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT}
FAULTS: tuple[Fault, ...] = ("lose_answers", "silent", "lose_answers")
AT_A_TIME = 20
MOST_ANSWERS = 6
DOUBTFUL = {*GONE, ErrorCode.OUTCOME_UNKNOWN}


def repeats(line: Line) -> bool:
    """Whether the layer may run the write of a line again."""
    return line.host.catalog.action("providers", line.domain, line.effect.ACTION).idempotent


@pytest.mark.parametrize("name", LIVE)
def test_the_server_is_there(name: str) -> None:
    if name not in FAULTED:
        pytest.skip(not_faulted(name))


async def settled(line: Line, name: str) -> None:
    """Require that the write of ``name`` took effect once, whatever its callers were told, or that nobody was told it did."""
    code = await failed_with(line, name)
    if code is None:
        count = await line.effect.count(name)
        assert count == 1 or (line.doubles and count > 1)
        return
    assert code is ErrorCode.OUTCOME_UNKNOWN, f"a repeat with the same key was answered {code}"
    assert not repeats(line), "a write that may be repeated must be settled by its repeat"
    assert await line.effect.count(name) <= 1


async def failed_with(line: Line, name: str) -> ErrorCode | None:
    """Write; return how it failed."""
    try:
        await line.effect.write(name, seconds=5.0)
    except ProviderError as error:
        return error.code
    return None


async def test_a_server_that_refuses_is_unavailable_and_used_again_when_it_is_back(line: Line) -> None:
    await line.proxy.vanish()

    read = await line.failure(line.effect.read())
    write = await line.failure(line.effect.write("refused"))
    await line.proxy.listen()

    assert (read.code, read.retryable) == (ErrorCode.UNAVAILABLE, True)
    assert write.code in DOUBTFUL
    await line.recovered()
    await settled(line, "refused")


async def test_a_silent_server_costs_a_call_its_time_and_no_more(line: Line) -> None:
    line.proxy.fault = "silent"
    begun = time.monotonic()

    read = await line.failure(line.effect.read(seconds=1.0))
    passed = time.monotonic() - begun
    line.proxy.heal()
    line.proxy.break_all()

    assert read.code in GONE
    assert read.retryable
    assert passed < PATIENCE_SECONDS / 3
    await line.recovered()


async def test_a_write_that_a_silent_server_swallowed_is_settled_by_its_repeat(line: Line) -> None:
    line.proxy.fault = "silent"

    write = await line.failure(line.effect.write("swallowed", seconds=1.0))
    line.proxy.heal()
    line.proxy.break_all()

    assert write.code in DOUBTFUL
    await line.recovered()
    await settled(line, "swallowed")


async def test_a_write_whose_answer_was_lost_is_settled_by_its_repeat(line: Line) -> None:
    """Each of its answers in turn: a write may cost a server several."""
    had_happened = []
    for turn in range(MOST_ANSWERS):
        number = turn // 2  # twice each: the first time a connection may cost more answers than the second
        name = f"unanswered-{turn}"
        line.proxy.fault, line.proxy.answers_first = "lose_answers", number
        code = await failed_with(line, name)
        line.proxy.heal()
        if code is None:
            continue
        await line.recovered()
        before = await line.effect.count(name)
        had_happened.append(before)
        assert code in DOUBTFUL
        assert repeats(line) or code is ErrorCode.OUTCOME_UNKNOWN or before == 0, (
            "it was told that it could not have happened"
        )
        await settled(line, name)
    assert any(had_happened), "no answer was lost of a write that had taken effect"


async def test_an_answer_that_breaks_off_is_no_answer(line: Line) -> None:
    line.proxy.bytes_down = 0
    line.proxy.cut_answer_after = 3

    read = await line.failure(line.effect.read())
    line.proxy.heal()

    assert (read.code, read.retryable) == (ErrorCode.UNAVAILABLE, True)
    await line.recovered()


async def test_one_broken_connection_costs_a_reader_nothing(line: Line) -> None:
    await line.configure({**POLICY, "retry": {"max_attempts": 3}})
    await line.effect.read()
    line.proxy.break_all()

    await line.effect.read()


async def test_a_slow_network_slows_calls_and_fails_none(line: Line) -> None:
    line.proxy.delay_seconds, line.proxy.bytes_per_second = 0.05, 20_000

    await asyncio.gather(*(line.effect.write(f"slow-{number}") for number in range(4)))
    line.proxy.heal()

    assert [await line.effect.count(f"slow-{number}") for number in range(4)] == [1, 1, 1, 1]


async def test_the_breaker_opens_and_closes_and_meanwhile_calls_cost_the_server_nothing(line: Line) -> None:
    await line.proxy.vanish()

    async def is_open() -> bool:
        await line.failure(line.effect.read())
        return await line.breaker() == "open"

    await until(is_open, "the breaker never opened")
    await line.proxy.listen()
    accepted, begun = line.proxy.accepted, time.monotonic()
    refused = await line.failure(line.effect.read())
    is_still_open = time.monotonic() - begun < OPEN_SECONDS / 2
    assert refused.code is ErrorCode.UNAVAILABLE
    assert line.proxy.accepted == accepted or not is_still_open

    await line.recovered()
    assert await line.breaker() == "closed"


async def test_no_connection_is_left_behind(line: Line) -> None:
    for fault in FAULTS:
        await asyncio.gather(*(line.effect.read() for _ in range(AT_A_TIME)))
        line.proxy.fault = fault
        await asyncio.gather(*(line.effect.read(seconds=0.5) for _ in range(4)), return_exceptions=True)
        line.proxy.heal()
        line.proxy.break_all()
        await line.recovered()
    await asyncio.gather(*(line.effect.read() for _ in range(AT_A_TIME)))
    assert line.proxy.open_connections <= AT_A_TIME + 2, "connections that broke are kept beside the new ones"

    await line.close()

    async def is_alone() -> bool:
        return line.proxy.open_connections == 0

    await until(is_alone, f"{line.proxy.open_connections} connections stay open after the provider was closed")


async def test_other_tenants_do_not_notice(line: Line, neighbour: Line) -> None:
    line.proxy.fault = "silent"
    waiting = [asyncio.ensure_future(line.effect.read(seconds=3.0)) for _ in range(30)]
    await asyncio.sleep(0)

    begun = time.monotonic()
    for number in range(10):
        await neighbour.effect.write(f"beside-{number}")
        await neighbour.effect.read()
    passed = time.monotonic() - begun
    ended = [one for one in waiting if one.done()]
    line.proxy.heal()
    line.proxy.break_all()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert len(ended) < len(waiting) or passed > 3.0, "the neighbour waited for the silent server"
    assert [await neighbour.effect.count(f"beside-{number}") for number in range(10)] == [1] * 10
