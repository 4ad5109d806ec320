from __future__ import annotations

import asyncio

import pytest

from erp.errors import ProviderError
from erp.runtime.shares import TenantShares

pytestmark = pytest.mark.anyio


def test_one_tenant_has_no_more_than_its_share_and_leaves_room_for_others() -> None:
    shares = TenantShares(4)
    assert [shares.try_enter("loud") for _ in range(3)] == [True, True, False]
    assert [shares.try_enter("quiet") for _ in range(3)] == [True, True, False]
    shares.leave("loud")
    assert shares.try_enter("third") is True
    assert shares.try_enter("loud") is False


async def test_free_places_go_round_the_tenants_that_wait() -> None:
    shares = TenantShares(2, share=2)
    assert [shares.try_enter("loud") for _ in range(2)] == [True, True]
    entered: list[str] = []

    async def one(tenant: str) -> None:
        await shares.wait_to_enter(tenant)
        entered.append(tenant)

    tasks = [asyncio.create_task(one("loud")) for _ in range(2)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(one("quiet")) for _ in range(2)]
    await asyncio.sleep(0)
    for _ in range(2):
        shares.leave("loud")
    for task in (tasks[0], tasks[2]):
        await task
    assert entered == ["loud", "quiet"]
    shares.leave("loud")
    shares.leave("quiet")
    await asyncio.gather(*tasks)
    assert entered == ["loud", "quiet", "loud", "quiet"]


async def test_a_full_queue_refuses_with_a_pause_and_other_tenants_still_queue() -> None:
    shares = TenantShares(1, share=1, max_waiting=1)
    assert shares.try_enter("loud")
    waiting = asyncio.create_task(shares.wait_to_enter("loud"))
    await asyncio.sleep(0)
    with pytest.raises(ProviderError) as refused:
        await shares.wait_to_enter("loud")
    assert (refused.value.code, refused.value.retry_after_seconds) == ("unavailable", 1.0)
    quiet = asyncio.create_task(shares.wait_to_enter("quiet"))
    await asyncio.sleep(0)
    shares.leave("loud")
    await waiting
    shares.leave("loud")
    await quiet


async def test_who_gives_up_leaves_nothing_behind() -> None:
    shares = TenantShares(1, share=1)
    assert shares.try_enter("a")
    with pytest.raises(ProviderError):
        await shares.wait_to_enter("b", 0.001)
    task = asyncio.create_task(shares.wait_to_enter("c"))
    await asyncio.sleep(0)
    shares.leave("a")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shares.try_enter("d")
    assert (shares._waiting, shares._inside, shares._free) == ({}, {"d": 1}, 0)
