"""Servers that freeze, are killed and come back: what callers are told, and what became of their writes."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator

import pytest
from tests.conformance.live import LIVE
from tests.faults.conftest import FAULTED, Line, restarted, server_of, until
from tests.faults.effects import Effect, Published, counts
from tests.faults.test_network import DOUBTFUL, GONE, settled
from tests.support import rabbit
from tests.support.faulty_proxy import faulty_proxy

from erp.errors import ProviderError
from erp.runtime.conformance.host import ALPHA, Host

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.live,
    pytest.mark.skipif(sys.platform != "linux", reason="servers are found and started again by way of /proc"),
]
KEEPS = {"bus/nats", "bus/rabbitmq", "db/postgres"}
"""Providers whose servers, as the tests start them, keep what they have confirmed through SIGKILL."""
WRITERS = 4
STREAM_SECONDS = 90.0
"""How long RabbitMQ 3.10 may take to give events of a stream after a kill; it takes a few seconds nearly always."""


@pytest.fixture
async def own(host: Host, ref: str) -> AsyncIterator[Line]:
    """A connection of tenant alpha to a server that the test may kill."""
    server = server_of(ref)
    async with faulty_proxy("127.0.0.1", server.port) as proxy:
        made = await Line(host, ref, ALPHA, dict(LIVE[ref].config(server.address)), proxy).connect()
        yield made
        await made.close()


async def test_a_frozen_server_fails_calls_in_their_time_and_is_used_again_when_it_thaws(own: Line) -> None:
    server = server_of(own.ref)
    server.stop()
    try:
        read = await own.failure(own.effect.read(seconds=1.0))
        write = await own.failure(own.effect.write("frozen", seconds=1.0))
    finally:
        server.go_on()

    assert (read.retryable, read.code in DOUBTFUL) == (True, True)
    assert write.code in DOUBTFUL
    await own.recovered()
    await settled(own, "frozen")


class Writers:
    """Write names of their own, one after the other, until they are told to end."""

    def __init__(self, effect: Effect, prefix: str = "w") -> None:
        self._effect = effect
        self._prefix = prefix
        self._is_over = asyncio.Event()
        self._tasks: list[asyncio.Future[None]] = []
        self.confirmed: list[str] = []
        self.failed: dict[str, ProviderError] = {}

    def begin(self) -> None:
        self._tasks = [asyncio.ensure_future(self._write(number)) for number in range(WRITERS)]

    async def confirm(self, number: int) -> None:
        """Wait until so many more writes are confirmed."""
        wanted = len(self.confirmed) + number

        async def is_done() -> bool:
            return len(self.confirmed) >= wanted

        await until(is_done, f"nothing is written any more; last failures: {list(self.failed.values())[-3:]}")

    async def end(self) -> None:
        self._is_over.set()
        await asyncio.gather(*self._tasks)

    async def _write(self, writer: int) -> None:
        for number in itertools.count():
            if self._is_over.is_set():
                return
            name = f"{self._prefix}{writer}-{number}"
            try:
                await self._effect.write(name, seconds=5.0)
                self.confirmed.append(name)
            except ProviderError as error:
                self.failed[name] = error
                await asyncio.sleep(0.1)


async def readable(line: Line, name: str, effect: Effect | None = None) -> None:
    """Wait until what was written can be read: a stream of RabbitMQ takes events some seconds before it gives any."""

    async def is_read() -> bool:
        try:
            await (effect or line.effect).count(name)
        except ProviderError as error:
            if error.code not in GONE:
                raise
            return False
        return True

    await until(is_read, f"{name} cannot be read", seconds=STREAM_SECONDS)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("ref", restarted())
async def test_a_killed_server_loses_and_doubles_no_confirmed_write(own: Line) -> None:
    server, writers = server_of(own.ref), Writers(own.effect)
    writers.begin()
    await writers.confirm(5 * WRITERS)
    await asyncio.to_thread(server.kill)
    before = len(writers.confirmed)
    await asyncio.sleep(0.3)
    await asyncio.to_thread(server.start)
    await own.recovered()
    await writers.confirm(1)
    await writers.end()

    assert [str(error) for error in writers.failed.values() if error.code not in DOUBTFUL] == []
    await readable(own, writers.confirmed[-1])
    confirmed = writers.confirmed[max(before - 20, 0) :]
    found = await counts(own.effect, [*confirmed, *list(writers.failed)[:20]])
    assert max(found.values()) <= 1 or own.doubles, "a write took effect twice"
    if own.ref in KEEPS:
        assert [name for name in confirmed if not found[name]] == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("ref", [one for one in FAULTED if one in KEEPS and one.startswith("bus/")])
async def test_a_killed_bus_still_holds_what_waits_for_a_group(own: Line) -> None:
    server = server_of(own.ref)
    assert await own.effect.count("first") == 1
    names = [f"waiting-{number}" for number in range(5)]
    for name in names:
        await own.effect.write(name)

    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await own.recovered()

    await readable(own, names[0])
    assert [await own.effect.count(name) for name in names] == [1] * 5


class Others(Published):
    """Events of another topic."""

    TOPIC = "others"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("ref", [one for one in FAULTED if one == "bus/rabbitmq"])
async def test_a_stream_whose_leader_dies_keeps_what_it_has_confirmed(own: Line) -> None:
    server, both = server_of(own.ref), [own.effect, Others(own)]
    await both[1].write("first of the others")
    writers = [Writers(effect, prefix) for effect, prefix in zip(both, "ab", strict=True)]
    for each in writers:
        each.begin()
    for _ in range(3):
        await asyncio.gather(*(each.confirm(50) for each in writers))
        await asyncio.to_thread(rabbit.kill_stream_leaders, server)
    await asyncio.gather(*(each.confirm(50) for each in writers))
    await asyncio.gather(*(each.end() for each in writers))

    for each, effect in zip(writers, both, strict=True):
        assert [str(error) for error in each.failed.values() if error.code not in DOUBTFUL] == []
        await readable(own, each.confirmed[-1], effect)
        found = await counts(effect, each.confirmed)
        assert [name for name in each.confirmed if not found[name]] == []
