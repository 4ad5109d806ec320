"""The periods that quotas are counted in: minutes, hours, days and months of UTC."""

from __future__ import annotations

import datetime
from typing import Literal

from erp.control_plane import moments

Period = Literal["minute", "hour", "day", "month"]
PERIODS: tuple[Period, ...] = ("minute", "hour", "day", "month")


def bounds(period: Period, moment: int) -> tuple[int, int]:
    """Return the moments at which the ``period`` around ``moment`` begins and ends (UTC)."""
    at = datetime.datetime.fromtimestamp(moment / moments.MICROSECONDS, datetime.UTC).replace(second=0, microsecond=0)
    if period == "minute":
        return moments.of(at), moments.of(at + datetime.timedelta(minutes=1))
    at = at.replace(minute=0)
    if period == "hour":
        return moments.of(at), moments.of(at + datetime.timedelta(hours=1))
    at = at.replace(hour=0)
    if period == "day":
        return moments.of(at), moments.of(at + datetime.timedelta(days=1))
    at = at.replace(day=1)
    return moments.of(at), moments.of((at + datetime.timedelta(days=32)).replace(day=1))
