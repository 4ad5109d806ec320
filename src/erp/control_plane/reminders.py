"""When connections have work of their own to do. Implements ``ports.Reminders``.

One row per connection holds the earliest time that was asked for. Whoever takes the work on leases
the row; when that process dies, the lease lapses and the work is taken on again. A time asked for
meanwhile is kept beside the lease.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import reminders

_PLACE = ("tenant", "domain", "provider", "connection")


class Reminder(msgspec.Struct, frozen=True, kw_only=True):
    """Work of one connection that this process has taken on."""

    tenant: str
    domain: str
    provider: str
    connection: str
    leased_until: int


class StoredReminders:
    """The reminders of all connections."""

    def __init__(self, database: Database, *, clock: Callable[[], int] = moments.now) -> None:
        self._database = database
        self._clock = clock
        self.on_set: Callable[[], None] = lambda: None
        """Called after a reminder was set in this process."""

    async def set(self, tenant: str, domain: str, provider: str, connection: str, due: datetime.datetime) -> None:
        place = {"tenant": tenant, "domain": domain, "provider": provider, "connection": connection}
        await self._database.transact(partial(_set, place, moments.of(due)))
        self.on_set()

    async def next_due_seconds(self) -> float | None:
        """Return how long until the earliest reminder; None when there is none."""
        earliest = sa.select(sa.func.min(reminders.c.runs_at))
        runs_at = await self._database.run(lambda connection: connection.execute(earliest).scalar_one())
        return None if runs_at is None else max((runs_at - self._clock()) / moments.MICROSECONDS, 0.0)

    async def claim(self, *, limit: int, lease_seconds: float) -> list[Reminder]:
        """Take on at most ``limit`` reminders that are due; nobody else gets them before the lease ends."""
        now = self._clock()
        if not await self._database.run(partial(_due, now, 1)):
            return []
        until = now + int(lease_seconds * moments.MICROSECONDS)
        return await self._database.transact(partial(_claim, now, limit, until))

    async def settle(self, reminder: Reminder, due: datetime.datetime | None) -> None:
        """End the lease: remind again at ``due`` or at a time asked for meanwhile; with neither, never."""
        await self._database.transact(partial(_settle, reminder, None if due is None else moments.of(due)))


def _is(place: Mapping[str, Any]) -> sa.ColumnElement[bool]:
    return sa.and_(*(reminders.c[name] == place[name] for name in _PLACE))


def _set(place: dict[str, str], due: int, connection: sa.Connection) -> None:
    fresh = {**place, "wanted_at": due, "leased_until": 0, "runs_at": due}
    if connection.execute(insert_new(connection.dialect, reminders), fresh).rowcount > 0:
        return
    row = connection.execute(sa.select(reminders).where(_is(place)).with_for_update()).one_or_none()
    if row is None:  # settled in between
        connection.execute(sa.insert(reminders).values(fresh))
    elif row.wanted_at is None or due < row.wanted_at:
        runs_at = max(due, row.leased_until)
        connection.execute(sa.update(reminders).where(_is(place)).values(wanted_at=due, runs_at=runs_at))


def _due(now: int, limit: int, connection: sa.Connection) -> list[Mapping[str, Any]]:
    statement = sa.select(reminders).where(reminders.c.runs_at <= now).order_by(reminders.c.runs_at).limit(limit)
    return [dict(row) for row in connection.execute(statement).mappings()]


def _claim(now: int, limit: int, until: int, connection: sa.Connection) -> list[Reminder]:
    claimed = []
    for row in _due(now, limit, connection):
        leased = {"wanted_at": None, "leased_until": until, "runs_at": until}
        mine = sa.update(reminders).where(_is(row), reminders.c.runs_at == row["runs_at"]).values(leased)
        if connection.execute(mine).rowcount:
            claimed.append(Reminder(**{name: row[name] for name in _PLACE}, leased_until=until))
    return claimed


def _settle(reminder: Reminder, due: int | None, connection: sa.Connection) -> None:
    place = msgspec.structs.asdict(reminder)
    mine = sa.and_(_is(place), reminders.c.leased_until == reminder.leased_until)
    row = connection.execute(sa.select(reminders).where(mine).with_for_update()).one_or_none()
    if row is None:
        return
    times = [time for time in (row.wanted_at, due) if time is not None]
    if not times:
        connection.execute(sa.delete(reminders).where(mine))
        return
    values = {"wanted_at": min(times), "leased_until": 0, "runs_at": min(times)}
    connection.execute(sa.update(reminders).where(mine).values(values))
