from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from erp.control_plane import ControlPlane
from erp.control_plane.rates import LEASE_SECONDS, SharedRates
from erp.runtime.call_policy import Rate

pytestmark = pytest.mark.anyio

OWNER = ("acme", "integration/http_api#erp")


async def taken(rates: SharedRates, settings: Rate, ends: float) -> list[float]:
    """When tokens were had until ``ends``."""
    found = []
    while time.monotonic() < ends:
        wait = await rates.take(OWNER, settings)
        if wait:
            await asyncio.sleep(min(wait, 0.01))
        else:
            found.append(time.monotonic())
    return found


def most_within(moments: list[float], seconds: float) -> int:
    """The most that happened in any ``seconds``."""
    moments = sorted(moments)
    return max(
        sum(begin <= moment < begin + seconds for moment in moments[number:]) for number, begin in enumerate(moments)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("requests", "burst"), [(40, None), (40, 20), (200, 80)])
async def test_processes_together_never_exceed_a_rate_in_any_second(
    open_control_plane: Any, requests: int, burst: int | None
) -> None:
    planes = [await open_control_plane() for _ in range(3)]
    await planes[0].tenants.create("acme")
    settings = Rate(requests=requests, burst=burst)
    ends = time.monotonic() + 2.5
    found = await asyncio.gather(*(taken(plane.connection_rates, settings, ends) for plane in planes))
    moments = [moment for each in found for moment in each]
    for seconds in (0.2, 1.0):
        assert most_within(moments, seconds) <= (burst or requests) + requests * seconds
    assert len(moments) > requests * 0.8 * 2


async def test_limits_of_connections_are_counted_apart(control: ControlPlane) -> None:
    once = Rate(requests=1, period_seconds=3600)
    assert await control.connection_rates.take(OWNER, once) == 0.0
    assert 3500 < await control.connection_rates.take(OWNER, once) <= 3600
    assert await control.connection_rates.take(("acme", "integration/http_api#other"), once) == 0.0
    assert await control.connection_rates.take(("globex", OWNER[1]), once) == 0.0


async def test_tokens_that_were_not_used_in_time_are_let_go(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Rate(requests=100)
    assert await control.connection_rates.take(OWNER, settings) == 0.0
    with monkeypatch.context() as silenced:
        silenced.setattr(control.database, "count", None)
        assert await control.connection_rates.take(OWNER, settings) == 0.0
        await asyncio.sleep(LEASE_SECONDS + 0.05)
        with pytest.raises(TypeError):
            await control.connection_rates.take(OWNER, settings)
