"""Events waiting for delivery: in order per tenant and key, at least once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import msgspec
import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.batch import AT_ONCE, storable
from erp.control_plane.database import Database
from erp.control_plane.revisions import Topic
from erp.control_plane.tables import outbox, retention, revisions
from erp.runtime.ports import OutboxEvent

DUE, DELIVERED, DEAD = "due", "delivered", "dead"
DEDUPE_SECONDS = 24 * 3600
PURGED_AT_ONCE = 500
MAX_FAILURE_LENGTH = 500
LONGEST_WAIT_SECONDS = 600.0
"""No lease and no pause between attempts is longer: what would wait longer was written before the clock was set back."""


# Made once: the relay asks after every delivery.
_NEXT_DUE = sa.select(sa.func.min(outbox.c.due_at)).where(outbox.c.state == DUE)
_NEXT_TENANT = sa.select(sa.func.min(outbox.c.tenant)).where(
    outbox.c.state == DUE, outbox.c.tenant > sa.bindparam("last")
)


class DueEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that this process may deliver now."""

    position: int
    attempts: int
    """How often its delivery has failed so far."""
    event: OutboxEvent


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that failed. ``retry_after_seconds`` None: give up, the event is dead."""

    position: int
    reason: str
    retry_after_seconds: float | None


class DeadEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that nobody tries to deliver any more."""

    position: int
    event: OutboxEvent
    attempts: int
    reason: str | None


class Outbox:
    """The events of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last_tenant = ""

    async def claim(
        self, *, limit: int, per_tenant: int, lease_seconds: float, without: Collection[str] = ()
    ) -> dict[str, list[DueEvent]]:
        """Lease up to ``limit`` events that are due, by tenant, in order; tenants take turns.

        An event is left out while an earlier one with its key is leased or waits for another try.
        """
        claimed = await self._database.transact(
            partial(_claim, self._last_tenant, limit, per_tenant, moments.after(lease_seconds), frozenset(without))
        )
        self._last_tenant = next(reversed(claimed), "")
        return claimed

    async def settle(
        self, *, delivered: Sequence[int] = (), failed: Sequence[Failure] = (), untried: Sequence[int] = ()
    ) -> None:
        """Record what became of leased events, by position. ``untried`` ones are due again at once."""
        await self._database.transact(partial(_settle, delivered, failed, untried))

    async def next_due_seconds(self) -> float | None:
        """Return in how many seconds the next event is due (0 or less: now), or None when none waits."""
        moment = await self._database.run(lambda connection: connection.execute(_NEXT_DUE).scalar())
        if moment is None:
            return None
        seconds = (moment - moments.now()) / moments.MICROSECONDS
        return seconds if seconds <= LONGEST_WAIT_SECONDS else 0.0

    async def dead(self, tenant: str, *, after: int = 0, limit: int = 100) -> list[DeadEvent]:
        """Return up to ``limit`` dead events of ``tenant`` behind a position, oldest first."""
        table = outbox.c
        statement = sa.select(table.position, table.event, table.attempts, table.failure)
        statement = statement.where(table.tenant == tenant, table.state == DEAD, table.position > after)
        statement = statement.order_by(table.position).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        return [DeadEvent(position=row[0], event=_event(row[1]), attempts=row[2], reason=row[3]) for row in rows]

    async def after(self, tenant: str, position: int, limit: int) -> list[tuple[int, OutboxEvent]]:
        """Return events of ``tenant`` behind a position, whatever became of them, in order."""
        table = outbox.c
        statement = sa.select(table.position, table.event).where(table.position > position, table.tenant == tenant)
        statement = statement.order_by(table.position).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        return [(row[0], _event(row[1])) for row in rows]

    async def end(self) -> int:
        """Return the position of the latest event of all tenants; 0 when there is none."""
        statement = sa.select(sa.func.coalesce(sa.func.max(outbox.c.position), 0))
        return int(await self._database.run(lambda connection: connection.execute(statement).scalar_one()))

    async def requeue(self, tenant: str, id: str) -> bool:  # noqa: A002
        """Make a dead event due again with a fresh count of attempts; False when there is none."""
        table = outbox.c
        statement = (
            sa.update(outbox)
            .where(table.tenant == tenant, table.id == id, table.state == DEAD)
            .values(state=DUE, attempts=0, due_at=AT_ONCE, settled_at=None, failure=None)
        )
        return await self._database.transact(lambda connection: connection.execute(statement).rowcount > 0)

    async def purge(self, *, older_than_seconds: float = DEDUPE_SECONDS) -> int:
        """Forget a bounded number of delivered events; until then their ids are not accepted again.

        Those of tenants that have said how long they keep what are not touched.
        """
        table = outbox.c
        settled_before = moments.after(-older_than_seconds)
        old = sa.select(table.position).where(
            table.settled_at < settled_before,
            table.state == DELIVERED,
            table.tenant.not_in(sa.select(retention.c.tenant)),
        )
        statement = sa.delete(outbox).where(table.position.in_(old.limit(PURGED_AT_ONCE)))
        return await self._database.transact(lambda connection: connection.execute(statement).rowcount)


def _claim(
    after: str, limit: int, per_tenant: int, leased_until: int, without: frozenset[str], connection: sa.Connection
) -> dict[str, list[DueEvent]]:
    # On PostgreSQL a second claimer would not see leases that are not committed yet, and would
    # deliver a later event of a key first. SQLite has one writer anyway.
    connection.execute(sa.select(revisions).where(revisions.c.topic == Topic.OUTBOX).with_for_update())
    claimed: dict[str, list[DueEvent]] = {}
    for tenant in _tenants_in_turn(connection, after):
        if tenant in without:
            continue
        events = _due_events(connection, tenant, min(per_tenant, limit))
        if events:
            claimed[tenant] = events
            limit -= len(events)
        if limit <= 0:
            break
    positions = [event.position for events in claimed.values() for event in events]
    _set(connection, positions, {"due_at": leased_until})
    return claimed


def _tenants_in_turn(connection: sa.Connection, after: str) -> list[str]:
    """Return the tenants with waiting events, beginning behind ``after``: one index seek each."""
    tenants: list[str] = []
    last = ""
    while True:
        found = connection.execute(_NEXT_TENANT, {"last": last}).scalar()
        if found is None:
            break
        tenants.append(found)
        last = found
    return sorted(tenants, key=lambda tenant: (tenant <= after, tenant))


def _due_events(connection: sa.Connection, tenant: str, limit: int) -> list[DueEvent]:
    now, latest = moments.now(), moments.after(LONGEST_WAIT_SECONDS)
    table, earlier = outbox.c, outbox.alias("earlier")
    held_back = sa.exists().where(
        earlier.c.tenant == table.tenant,
        earlier.c.key == table.key,
        earlier.c.state == DUE,
        earlier.c.position < table.position,
        earlier.c.due_at > now,
        earlier.c.due_at <= latest,
    )
    statement = (
        sa.select(table.position, table.attempts, table.event)
        .where(table.tenant == tenant, table.state == DUE, ~held_back)
        .where(sa.or_(table.due_at <= now, table.due_at > latest))
        .order_by(table.position)
        .limit(limit)
    )
    rows = connection.execute(statement).all()
    return [DueEvent(position=row[0], attempts=row[1], event=_event(row[2])) for row in rows]


def _settle(
    delivered: Sequence[int], failed: Sequence[Failure], untried: Sequence[int], connection: sa.Connection
) -> None:
    now = moments.now()
    _set(connection, delivered, {"state": DELIVERED, "settled_at": now, "failure": None})
    _set(connection, untried, {"due_at": AT_ONCE})
    for failure in failed:
        is_dead = failure.retry_after_seconds is None
        values = {
            "state": DEAD if is_dead else DUE,
            "attempts": outbox.c.attempts + 1,
            "due_at": moments.after(failure.retry_after_seconds or 0.0),
            "settled_at": now if is_dead else None,
            "failure": storable(failure.reason[:MAX_FAILURE_LENGTH]),
        }
        _set(connection, [failure.position], values)


def _set(connection: sa.Connection, positions: Sequence[int], values: Mapping[str, object]) -> None:
    if positions:
        statement = sa.update(outbox).where(outbox.c.position.in_(positions), outbox.c.state == DUE)
        connection.execute(statement.values(values))


def _event(stored: bytes) -> OutboxEvent:
    return msgspec.json.decode(stored, type=OutboxEvent)
