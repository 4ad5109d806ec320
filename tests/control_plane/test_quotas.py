from __future__ import annotations

import asyncio
import datetime
import time
from typing import Any

import pytest

from erp.control_plane import ControlPlane, moments
from erp.control_plane.periods import bounds
from erp.control_plane.quotas import LeasedQuotas
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio


def at(text: str) -> int:
    return moments.of(datetime.datetime.fromisoformat(text))


async def reserved(quotas: LeasedQuotas, count: int) -> int:
    """How many of ``count`` reservations made at the same time succeeded."""
    results = await asyncio.gather(*(quotas.reserve("acme") for _ in range(count)), return_exceptions=True)
    refused = [result for result in results if result is not None]
    assert all(isinstance(error, ProviderError) and error.code == "quota_exhausted" for error in refused)
    return count - len(refused)


async def test_a_limit_is_met_exactly(control: ControlPlane) -> None:
    quota = await control.quotas.set("acme", "month", 10)
    assert (quota.tenant, quota.period, quota.limit, quota.used) == ("acme", "month", 10, 0)
    assert await reserved(control.quotas, 25) == 10
    assert [quota.used for quota in await control.quotas.list("acme")] == [10]
    await control.quotas.reserve("globex")


@pytest.mark.parametrize("limit", [50, 1000])
async def test_processes_together_never_exceed_a_limit(open_control_plane: Any, limit: int) -> None:
    planes = [await open_control_plane() for _ in range(3)]
    await planes[0].tenants.create("acme")
    await planes[0].quotas.set("acme", "month", limit)
    passed = await asyncio.gather(*(reserved(plane.quotas, limit // 2) for plane in planes))
    largest_block = max(1, limit // 100)
    assert limit - 2 * largest_block <= sum(passed) <= limit
    for plane in planes[1:]:
        await plane.quotas.close()
    last = await reserved(LeasedQuotas(planes[0].database, planes[0].revisions), limit)
    assert limit - largest_block <= sum(passed) + last <= limit


async def test_unused_units_are_given_back_at_close(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await here.tenants.create("acme")
    await here.quotas.set("acme", "month", 1000)
    await here.quotas.reserve("acme")
    assert [quota.used for quota in await there.quotas.list("acme")] == [10]
    assert [quota.used for quota in await here.quotas.list("acme")] == [1]
    await here.quotas.close()
    assert [quota.used for quota in await there.quotas.list("acme")] == [1]


async def test_a_refusal_says_when_the_period_ends_and_the_next_one_begins_anew(control: ControlPlane) -> None:
    now = at("2026-11-23T10:00:45Z")
    quotas = LeasedQuotas(control.database, control.revisions, clock=lambda: now)
    await control.quotas.set("acme", "minute", 2)
    assert await reserved(quotas, 3) == 2
    with pytest.raises(ProviderError) as refused:
        await quotas.reserve("acme")
    assert (refused.value.code, refused.value.retry_after_seconds) == ("quota_exhausted", 15.0)
    assert "2 units per minute" in refused.value.message
    now = at("2026-11-23T10:01:00Z")
    assert await reserved(quotas, 3) == 2


async def test_a_clock_that_is_set_back_does_not_open_the_period_before_again(control: ControlPlane) -> None:
    now = at("2026-11-23T10:00:45Z")
    quotas = LeasedQuotas(control.database, control.revisions, clock=lambda: now)
    await control.quotas.set("acme", "minute", 2)
    assert await reserved(quotas, 3) == 2
    now = at("2026-11-23T10:01:30Z")
    assert await reserved(quotas, 1) == 1
    now = at("2026-11-23T10:00:50Z")
    assert await reserved(quotas, 1) == 0
    now = at("2026-11-23T10:01:40Z")
    assert await reserved(quotas, 2) == 1


async def test_all_periods_have_to_allow_a_call_and_a_refused_one_uses_none(control: ControlPlane) -> None:
    await control.quotas.set("acme", "month", 3)
    await control.quotas.set("acme", "day", 100)
    assert await reserved(control.quotas, 5) == 3
    assert {quota.period: quota.used for quota in await control.quotas.list("acme")} == {"day": 3, "month": 3}


async def test_more_units_than_are_left_are_refused_but_fewer_pass(control: ControlPlane) -> None:
    await control.quotas.set("acme", "day", 10)
    await control.quotas.reserve("acme", 8)
    with pytest.raises(ProviderError):
        await control.quotas.reserve("acme", 3)
    await control.quotas.reserve("acme", 2)
    assert await reserved(control.quotas, 1) == 0


async def test_a_limit_of_nothing_refuses_everything(control: ControlPlane) -> None:
    await control.quotas.set("acme", "hour", 0)
    assert await reserved(control.quotas, 2) == 0


async def test_a_removed_or_raised_limit_counts_at_once(control: ControlPlane) -> None:
    await control.quotas.set("acme", "day", 1)
    assert await reserved(control.quotas, 2) == 1
    await control.quotas.set("acme", "day", 2)
    assert await reserved(control.quotas, 2) == 1
    assert await control.quotas.delete("acme", "day") is True
    assert await reserved(control.quotas, 5) == 5
    assert await control.quotas.delete("acme", "day") is False


async def test_a_limit_set_by_another_process_counts_within_a_second(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await there.tenants.create("acme")
    await here.quotas.reserve("acme")
    await there.quotas.set("acme", "day", 0)
    deadline = time.monotonic() + 30
    while await reserved(here.quotas, 1):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_limits_that_make_no_sense_are_refused(control: ControlPlane) -> None:
    for tenant, period, limit, code in (
        ("acme", "year", 1, "invalid_argument"),
        ("acme", "day", -1, "invalid_argument"),
        ("nobody", "day", 1, "not_found"),
    ):
        with pytest.raises(ProviderError) as refused:
            await control.quotas.set(tenant, period, limit)
        assert refused.value.code == code
    assert await control.quotas.list("acme") == []


async def test_without_a_limit_a_reservation_asks_no_database(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.quotas.reserve("acme")
    control.revisions.trusted_until = time.monotonic() + 60
    monkeypatch.setattr(control.database, "run", None)
    monkeypatch.setattr(control.database, "transact", None)
    await control.quotas.reserve("acme")


@pytest.mark.parametrize(
    ("period", "starts", "ends"),
    [
        ("minute", "2026-12-31T23:59:00Z", "2027-01-01T00:00:00Z"),
        ("hour", "2026-12-31T23:00:00Z", "2027-01-01T00:00:00Z"),
        ("day", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("month", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
    ],
)
def test_periods_follow_the_calendar_in_utc(period: Any, starts: str, ends: str) -> None:
    assert bounds(period, at("2026-12-31T23:59:59.999999Z")) == (at(starts), at(ends))
