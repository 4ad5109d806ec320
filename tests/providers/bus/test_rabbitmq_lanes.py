"""Events go to a stream over one channel until one of them does not arrive; then over another."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from erp.errors import ProviderError
from erp.providers.bus.rabbitmq import lanes
from erp.providers.bus.rabbitmq.lanes import Lane, Lanes
from erp.providers.bus.rabbitmq.wire import Wire, unavailable

pytestmark = pytest.mark.anyio


class Channel:
    """A channel that can be closed."""

    is_closed = False

    async def close(self) -> None:
        self.is_closed = True


class Connection:
    """A connection that gives out channels and counts what it was asked."""

    connections = 1

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.proofs = 0
        self.refuses = False

    async def channel(self) -> Channel:
        self.channels.append(Channel())
        return self.channels[-1]

    def carries(self, channel: Channel, connection: int) -> bool:
        return connection == self.connections and not channel.is_closed

    async def prove(self, stream: str = "") -> None:
        del stream
        self.proofs += 1
        await asyncio.sleep(0)
        if self.refuses:
            raise unavailable("no")


@pytest.fixture
def wire() -> Connection:
    return Connection()


@pytest.fixture
def lane(wire: Connection) -> Lane:
    return Lane(cast("Wire", wire), wire.prove)


async def send(lane: Lane, until: asyncio.Event | None = None, failure: BaseException | None = None) -> Any:
    """Send a message that is confirmed, or fails, when ``until`` is set; return its channel."""
    async with lane.channel() as channel:
        if until is not None:
            await until.wait()
        if failure is not None:
            raise failure
    return channel


async def begun(*sending: Any) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.ensure_future(one) for one in sending]
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


async def test_messages_share_a_channel_on_which_the_stream_was_proven_once(lane: Lane, wire: Connection) -> None:
    used = await asyncio.gather(*(send(lane) for _ in range(3)))

    assert [channel is wire.channels[0] for channel in used] == [True] * 3
    assert (wire.proofs, len(wire.channels), wire.channels[0].is_closed) == (1, 1, False)


async def test_what_is_confirmed_after_a_refusal_is_in_doubt_and_its_channel_is_closed_when_nothing_is_under_way(
    lane: Lane, wire: Connection
) -> None:
    confirmation = asyncio.Event()
    (waiting,) = await begun(send(lane, until=confirmation))
    with pytest.raises(ProviderError, match="no"):
        await send(lane, failure=unavailable("no"))
    after = await send(lane)
    assert (after is wire.channels[1], wire.channels[0].is_closed, wire.proofs) == (True, False, 2)

    confirmation.set()
    with pytest.raises(ProviderError) as caught:
        await waiting
    await begun()

    assert caught.value.code == "outcome_unknown"
    assert [channel.is_closed for channel in wire.channels] == [True, False]


async def test_a_message_that_nobody_waits_for_any_more_ends_the_channel_and_puts_no_other_in_doubt(
    lane: Lane, wire: Connection
) -> None:
    confirmation = asyncio.Event()
    waiting, left = await begun(send(lane, until=confirmation), send(lane, until=asyncio.Event()))
    left.cancel()
    await begun()
    after = await send(lane)
    confirmation.set()

    assert await waiting is wire.channels[0]
    assert after is wire.channels[1]
    await begun()
    assert [channel.is_closed for channel in wire.channels] == [True, False]


async def test_all_who_wait_for_a_stream_are_told_that_it_takes_nothing_by_one_attempt(
    lane: Lane, wire: Connection
) -> None:
    wire.refuses = True
    told = await asyncio.gather(*(send(lane) for _ in range(4)), return_exceptions=True)
    assert [one.code for one in told if isinstance(one, ProviderError)] == ["unavailable"] * 4
    assert (wire.proofs, wire.channels) == (1, [])

    wire.refuses = False
    assert await send(lane) is wire.channels[0]


async def test_a_connection_made_anew_gets_a_channel_anew(lane: Lane, wire: Connection) -> None:
    await send(lane)
    wire.connections = 2
    assert await send(lane) is wire.channels[1]


async def test_the_lane_that_was_idle_longest_ends_when_there_are_too_many(
    wire: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST", 2)
    made = Lanes(cast("Wire", wire), wire.prove)
    confirmation = asyncio.Event()
    busy = await begun(send(made.of("a"), until=confirmation))
    for stream in ("b", "c"):
        await send(made.of(stream))
    await begun()

    assert [channel.is_closed for channel in wire.channels] == [False, True, False]
    confirmation.set()
    await asyncio.gather(*busy)
    assert await send(made.of("b")) is wire.channels[3]
    await made.close()
