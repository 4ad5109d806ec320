"""Documents of an issuer: fetched once for many, at most once per interval, and old ones serve while it is down."""

from __future__ import annotations

import asyncio

import pytest

from erp.vendor_clients.oidc.failures import IssuerUnavailableError
from erp.vendor_clients.oidc.refreshed import (
    FAILED_SECONDS,
    FRESH_SECONDS,
    INTERVAL_SECONDS,
    STALE_SECONDS,
    Refreshed,
)

pytestmark = pytest.mark.anyio


class Source:
    """A document that counts how often it was fetched."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fetched = 0
        self.is_down = False
        self.document = Refreshed(self.fetch, clock=lambda: self.now)

    async def fetch(self) -> int:
        self.fetched += 1
        await asyncio.sleep(0)
        if self.is_down:
            raise IssuerUnavailableError("down")
        return self.fetched


async def test_many_who_ask_at_once_share_one_fetch() -> None:
    source = Source()

    assert set(await asyncio.gather(*(source.document.get() for _ in range(20)))) == {1}

    source.now += INTERVAL_SECONDS
    assert set(await asyncio.gather(*(source.document.again() for _ in range(20)))) == {2}
    assert source.fetched == 2


async def test_a_flood_of_wishes_for_a_newer_one_causes_one_fetch_per_interval() -> None:
    source = Source()
    await source.document.get()
    for _ in range(100):
        assert await source.document.again() == 1
    source.now += INTERVAL_SECONDS
    for _ in range(100):
        assert await source.document.again() == 2
    assert source.fetched == 2


async def test_an_old_one_is_fetched_anew_and_serves_while_the_issuer_is_down() -> None:
    source = Source()
    await source.document.get()
    source.now += FRESH_SECONDS
    source.is_down = True
    for _ in range(50):
        assert await source.document.get() == 1
    assert source.fetched == 2, "a failed fetch was repeated at once"

    source.now += FAILED_SECONDS
    source.is_down = False
    assert await source.document.get() == 3

    source.is_down = True
    source.now += STALE_SECONDS
    with pytest.raises(IssuerUnavailableError):
        await source.document.get()


async def test_a_caller_who_goes_away_does_not_take_the_fetch_of_the_others_along() -> None:
    source = Source()
    first = asyncio.create_task(source.document.get())
    second = asyncio.create_task(source.document.get())
    await asyncio.sleep(0)
    first.cancel()

    assert await second == 1
    assert source.fetched == 1
