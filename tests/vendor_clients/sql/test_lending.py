"""Connections are lent to one caller at a time, and no more than there may be."""

from __future__ import annotations

import asyncio

import pytest

from erp.errors import ProviderError
from erp.vendor_clients.sql.lending import Lending, Terms

pytestmark = pytest.mark.anyio


class Connection:
    def __init__(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False


class Peer:
    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.refuses = False

    async def connect(self) -> Connection:
        await asyncio.sleep(0)
        if self.refuses:
            raise ConnectionRefusedError
        self.made.append(Connection())
        return self.made[-1]

    def lending(self, **terms: float) -> Lending[Connection]:
        found: Terms = Terms(**{"size": 2, "wait_seconds": 0.05, **terms})
        return Lending(self.connect, Connection.close, lambda one: one.is_open, found)


async def test_the_connection_given_back_last_is_lent_first() -> None:
    peer = Peer()
    lending = peer.lending()
    first, second = await lending.take(), await lending.take()
    lending.give(first)
    lending.give(second)

    assert await lending.take() is second
    assert (lending.size, lending.in_use, len(peer.made)) == (2, 1, 2)
    await lending.close()


async def test_who_waits_too_long_is_told_so_and_the_next_one_is_served() -> None:
    lending = Peer().lending(size=1)
    held = await lending.take()

    with pytest.raises(ProviderError) as refused:
        await lending.take()
    assert (refused.value.code, lending.waiting) == ("unavailable", 0)

    lending.give(held)
    assert await lending.take() is held
    await lending.close()


async def test_waiting_callers_are_served_in_the_order_of_coming() -> None:
    lending = Peer().lending(size=1, wait_seconds=30)
    held = await lending.take()
    order: list[int] = []

    async def wait(number: int) -> None:
        async with lending.lent():
            order.append(number)

    tasks = [asyncio.ensure_future(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert lending.waiting == 5
    lending.give(held)
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2, 3, 4]
    await lending.close()


async def test_a_caller_that_is_cancelled_passes_its_turn_on() -> None:
    lending = Peer().lending(size=1, wait_seconds=30)
    held = await lending.take()
    first, second = asyncio.ensure_future(lending.take()), asyncio.ensure_future(lending.take())
    await asyncio.sleep(0)
    lending.give(held)
    first.cancel()

    async with asyncio.timeout(30):
        assert await second is held
    await lending.close()


async def test_what_is_broken_or_too_old_is_not_lent_again() -> None:
    peer = Peer()
    lending = peer.lending(life_seconds=0)
    first = await lending.take()
    lending.give(first)
    second = await lending.take()
    lending.give(second, is_broken=True)
    await asyncio.sleep(0)

    assert (first is second, first.is_open, second.is_open, lending.size) == (False, False, False, 0)
    await lending.close()


async def test_a_failed_opening_leaves_room_for_another() -> None:
    peer = Peer()
    lending = peer.lending(size=1)
    peer.refuses = True
    with pytest.raises(ConnectionRefusedError):
        await lending.take()
    peer.refuses = False

    assert await lending.take() is peer.made[0]
    await lending.close()


async def test_what_is_lent_is_closed_when_it_comes_back_after_the_end() -> None:
    peer = Peer()
    lending = peer.lending(size=1, wait_seconds=30)
    held = await lending.take()
    waiting = asyncio.ensure_future(lending.take())
    await asyncio.sleep(0)
    await lending.close()
    await lending.close()

    with pytest.raises(ProviderError):
        await waiting
    lending.give(held)
    await asyncio.sleep(0)
    assert (held.is_open, lending.size) == (False, 0)


async def test_a_close_that_is_cancelled_leaves_no_connection_open() -> None:
    peer = Peer()
    lending = peer.lending()
    lending.give(await lending.take())

    closing = asyncio.ensure_future(lending.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.sleep(0)

    assert [one.is_open for one in peer.made] == [False]
