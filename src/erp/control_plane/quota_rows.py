"""One transaction of the quotas that all calls of a tenant meet: a unit is counted before its call is tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from erp.control_plane.budget_rows import REQUESTS, TENANT
from erp.control_plane.periods import Period, bounds
from erp.control_plane.statements import Statement, insert_new
from erp.control_plane.tables import quota_usage, quotas


class Window(NamedTuple):
    """A limit and the period that it counts in now."""

    period: Period
    limit: int
    starts_at: int
    ends_at: int

    def holds(self, moment: int) -> bool:
        """Whether ``moment`` is in it."""
        return self.starts_at <= moment < self.ends_at


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of the calls of one tenant."""

    windows: tuple[Window, ...]
    """Its limits; none: it has none."""
    refusals: Sequence[Window | None]
    """For each call in order: the limit that does not hold it, or None when its units are counted."""
    full: Window | None = None
    """A limit that has nothing left."""


class Tally:
    """Counts units, never more than a limit has: what does not fit is not counted at all."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect
        names = ("units_", "of_tenant", "of_period", "of_start", "needed_")
        self._take = Statement(dialect, _take(), *names)

    def admit(
        self, connection: sa.Connection, calls: Mapping[str, Sequence[int]], known: Mapping[str, Window], now: int
    ) -> dict[str, Admission]:
        """Return what becomes of ``calls``.

        Args:
            connection: in a transaction; it holds the rows of usage of these tenants until its end.
            calls: the units that each call needs, by tenant.
            known: the only limit of a tenant, where it has one and this process has seen it.
            now: the present moment.
        """
        # In one order everywhere, so that processes wait for each other's rows and never for each other.
        return {
            tenant: self._admit(connection, tenant, calls[tenant], known.get(tenant), now) for tenant in sorted(calls)
        }

    def _admit(
        self, connection: sa.Connection, tenant: str, units: Sequence[int], known: Window | None, now: int
    ) -> Admission:
        if known is not None and known.holds(now):
            total = sum(units)
            row = (total, tenant, known.period, known.starts_at, total)
            if self._take.run_one(connection, row):
                return Admission((known,), [None] * len(units))
        windows = _windows(connection, tenant, now)
        if not windows:
            return Admission((), [None] * len(units))
        return self._counted(connection, tenant, units, windows)

    def _counted(
        self, connection: sa.Connection, tenant: str, units: Sequence[int], windows: tuple[Window, ...]
    ) -> Admission:
        used = self._locked(connection, tenant, windows)
        refusals: list[Window | None] = []
        taken = 0
        for wanted in units:
            refusal = next((one for one in windows if used[one.period] + taken + wanted > one.limit), None)
            taken += 0 if refusal else wanted
            refusals.append(refusal)
        if taken:
            mine = sa.or_(*(_is(tenant, window) for window in windows))
            connection.execute(sa.update(quota_usage).where(mine).values(used=quota_usage.c.used + taken))
        full = next((one for one in windows if used[one.period] + taken >= one.limit), None)
        return Admission(windows, refusals, full)

    def _locked(self, connection: sa.Connection, tenant: str, windows: tuple[Window, ...]) -> dict[Period, int]:
        """Return what is used of each limit, beginning the periods that have not begun."""
        used = _used(connection, tenant, windows)
        missing = [window for window in windows if window.period not in used]
        if not missing:
            return used
        for window in missing:
            row = {**_name(tenant, window), "period_start": window.starts_at, "used": 0}
            if connection.execute(insert_new(self._dialect, quota_usage), row).rowcount > 0:
                _forget_past(connection, tenant, window)
        return _used(connection, tenant, windows)


def _windows(connection: sa.Connection, tenant: str, now: int) -> tuple[Window, ...]:
    columns = quotas.c
    mine = sa.and_(columns.tenant == tenant, columns.scope == TENANT, columns.unit == REQUESTS)
    rows = connection.execute(sa.select(columns.period, columns.units).where(mine).order_by(columns.period))
    return tuple(Window(row.period, row.units, *bounds(row.period, now)) for row in rows)


def _used(connection: sa.Connection, tenant: str, windows: Sequence[Window]) -> dict[Period, int]:
    columns = quota_usage.c
    mine = sa.or_(*(_is(tenant, window) for window in windows))
    statement = sa.select(columns.period, columns.used).where(mine).order_by(columns.period).with_for_update()
    return {row.period: row.used for row in connection.execute(statement)}


def _forget_past(connection: sa.Connection, tenant: str, window: Window) -> None:
    """Forget periods that ended two periods ago: the one before is kept for a clock that is set back."""
    columns = quota_usage.c
    past = columns.period_start < window.starts_at - (window.ends_at - window.starts_at)
    named = [columns[name] == value for name, value in _name(tenant, window).items()]
    connection.execute(sa.delete(quota_usage).where(*named, past))


def _name(tenant: str, window: Window) -> dict[str, str]:
    return {"tenant": tenant, "scope": TENANT, "unit": REQUESTS, "period": window.period}


def _is(tenant: str, window: Window) -> sa.ColumnElement[bool]:
    columns = quota_usage.c
    named = [columns[name] == value for name, value in _name(tenant, window).items()]
    return sa.and_(*named, columns.period_start == window.starts_at)


def _take() -> sa.Update:
    usage, limit = quota_usage.c, quotas.c
    scope: sa.ColumnElement[str] = sa.literal_column(f"'{TENANT}'")
    unit: sa.ColumnElement[str] = sa.literal_column(f"'{REQUESTS}'")
    most = (
        sa.select(limit.units)
        .where(limit.tenant == usage.tenant, limit.scope == scope, limit.unit == unit, limit.period == usage.period)
        .correlate(quota_usage)
        .scalar_subquery()
    )
    return (
        sa.update(quota_usage)
        .where(
            usage.tenant == sa.bindparam("of_tenant"),
            usage.scope == scope,
            usage.unit == unit,
            usage.period == sa.bindparam("of_period"),
            usage.period_start == sa.bindparam("of_start"),
            usage.used + sa.bindparam("needed_") <= most,
        )
        .values(used=usage.used + sa.bindparam("units_"))
    )
