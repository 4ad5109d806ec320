"""Secrets that are rotated by themselves: what is planned, when next, and what went wrong.

Whoever takes a rotation on leases its row; when that process dies, the lease lapses and another one takes it on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors, moments
from erp.control_plane.database import Database
from erp.control_plane.expected import expect
from erp.control_plane.rotation_tables import secret_schedules
from erp.control_plane.tenants import require
from erp.errors import ProviderError

DAY = 86_400 * moments.MICROSECONDS
MOST = 1_000
"""Of one tenant."""
NEVER = 2**62
LONGEST_REASON = 500


class SchedulePlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is planned."""

    path: str
    every_days: int
    value: dict[str, Any]
    """Where the new value comes from (``SecretSource`` of the contract)."""
    provider: str = "secrets/local"
    connection: str = "default"
    overlap_seconds: int | None = None
    enabled: bool = True


class SecretSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """A plan and what has become of it. Moments."""

    tenant: str
    name: str
    plan: SchedulePlan
    revision: str
    created_by: str
    due_at: int
    runs_at: int
    leased_until: int
    failures: int
    failure: str | None
    failed_at: int | None
    rotated_at: int | None
    reference: str | None


class SecretSchedules:
    """The plans of all tenants."""

    def __init__(self, database: Database, *, clock: Callable[[], int] = moments.now) -> None:
        self._database = database
        self._clock = clock
        self.on_change: Callable[[], None] = lambda: None
        """Called after something was planned in this process."""

    async def put(
        self, tenant: str, name: str, plan: SchedulePlan, *, by: str, revision: str | None = None
    ) -> SecretSchedule:
        """Plan a rotation, or change the plan: then it counts from the last rotation.

        Raises:
            ProviderError: ``not_found`` when the tenant does not exist, ``conflict`` when the plan's revision is not
                ``revision`` (empty: there is none), ``failed_precondition`` when there are too many.
        """
        made = await self._database.transact(partial(_put, (tenant, name), plan, by, revision, self._clock()))
        self.on_change()
        return made

    async def get(self, tenant: str, name: str) -> SecretSchedule:
        """Return one.

        Raises:
            ProviderError: ``not_found``.
        """
        return await self._database.run(partial(_found, tenant, name))

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[SecretSchedule], str | None]:
        """Return up to ``limit`` of a tenant by name and the cursor of the next page, if any."""
        table, after = secret_schedules.c, cursors.read(cursor, str) or ""
        mine = sa.select(secret_schedules).where(table.tenant == tenant, table.name > after)
        statement = mine.order_by(table.name).limit(limit + 1)
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        items = [_schedule(row) for row in rows[:limit]]
        return items, cursors.written(items[-1].name) if len(rows) > limit else None

    async def run_now(self, tenant: str, name: str) -> SecretSchedule:
        """Have one rotated at once.

        Raises:
            ProviderError: ``not_found``, ``failed_precondition`` when it is not enabled.
        """
        found = await self._database.transact(partial(_run_now, tenant, name, self._clock()))
        self.on_change()
        return found

    async def delete(self, tenant: str, name: str, *, revision: str | None = None) -> None:
        """Forget a plan.

        Raises:
            ProviderError: ``not_found``, ``conflict``.
        """

        def delete(connection: sa.Connection) -> None:
            found = _found(tenant, name, connection, lock=True)
            expect("schedule", revision, found.revision)
            connection.execute(sa.delete(secret_schedules).where(_is(tenant, name)))

        await self._database.transact(delete)

    async def claim(self, *, limit: int, lease_seconds: float) -> Sequence[SecretSchedule]:
        """Take on at most ``limit`` that are due; nobody else gets them before the lease ends."""
        now = self._clock()
        due = sa.select(secret_schedules).where(secret_schedules.c.runs_at <= now)
        due = due.order_by(secret_schedules.c.runs_at).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(due).mappings().all())
        if not rows:
            return []
        until = now + int(lease_seconds * moments.MICROSECONDS)
        return await self._database.transact(partial(_claim, [_schedule(row) for row in rows], until))

    async def succeeded(self, schedule: SecretSchedule, reference: str) -> bool:
        """Keep that a rotation went well; False when it is another's by now, or its plan was changed."""
        now = self._clock()
        due = now + schedule.plan.every_days * DAY
        well = {"failures": 0, "failure": None, "failed_at": None, "rotated_at": now, "reference": reference}
        return await self._settle(schedule, {**well, "due_at": due, "runs_at": due})

    async def failed(self, schedule: SecretSchedule, reason: str, *, again_seconds: float) -> bool:
        """Keep why a rotation failed, and try again later; False as of ``succeeded``."""
        now = self._clock()
        again = now + int(again_seconds * moments.MICROSECONDS)
        badly = {"failures": schedule.failures + 1, "failure": reason[:LONGEST_REASON], "failed_at": now}
        return await self._settle(schedule, {**badly, "runs_at": again})

    async def _settle(self, schedule: SecretSchedule, values: Mapping[str, Any]) -> bool:
        statement = sa.update(secret_schedules).where(_is_as(schedule)).values({**values, "leased_until": 0})
        return await self._database.transact(lambda connection: connection.execute(statement).rowcount > 0)


def _put(
    key: tuple[str, str], plan: SchedulePlan, by: str, wanted: str | None, now: int, connection: sa.Connection
) -> SecretSchedule:
    tenant, name = key
    require(connection, tenant, alone=True)
    row = connection.execute(sa.select(secret_schedules).where(_is(tenant, name))).mappings().first()
    expect("schedule", wanted, row["revision"] if row else None)
    begins = now if row is None or row["rotated_at"] is None else row["rotated_at"]
    due = max(begins + plan.every_days * DAY, now)
    values = {
        "plan": msgspec.json.encode(plan).decode(),
        "revision": secrets.token_hex(8),
        "created_by": by,
        "due_at": due,
        "runs_at": max(due, row["leased_until"] if row else 0) if plan.enabled else NEVER,
        "failures": 0,
        "failure": None,
        "failed_at": None,
    }
    if row is not None:
        connection.execute(sa.update(secret_schedules).where(_is(tenant, name)).values(values))
    else:
        _refuse_too_many(connection, tenant)
        connection.execute(
            sa.insert(secret_schedules).values({"tenant": tenant, "name": name, "leased_until": 0, **values})
        )
    return _found(tenant, name, connection)


def _refuse_too_many(connection: sa.Connection, tenant: str) -> None:
    mine = sa.select(sa.func.count()).select_from(secret_schedules).where(secret_schedules.c.tenant == tenant)
    if connection.execute(mine).scalar_one() >= MOST:
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, f"A tenant has at most {MOST} schedules. Delete some.")


def _run_now(tenant: str, name: str, now: int, connection: sa.Connection) -> SecretSchedule:
    found = _found(tenant, name, connection, lock=True)
    if not found.plan.enabled:
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, f"The schedule {name} is not enabled. Enable it first.")
    values = {"due_at": min(found.due_at, now), "runs_at": max(now, found.leased_until)}
    connection.execute(sa.update(secret_schedules).where(_is(tenant, name)).values(values))
    return _found(tenant, name, connection)


def _claim(due: list[SecretSchedule], until: int, connection: sa.Connection) -> list[SecretSchedule]:
    leased = {"runs_at": until, "leased_until": until}
    return [
        msgspec.structs.replace(one, **leased)
        for one in due
        if connection.execute(sa.update(secret_schedules).where(_is_as(one)).values(leased)).rowcount
    ]


def _found(tenant: str, name: str, connection: sa.Connection, *, lock: bool = False) -> SecretSchedule:
    statement = sa.select(secret_schedules).where(_is(tenant, name))
    row = connection.execute(statement.with_for_update() if lock else statement).mappings().first()
    if row is None:
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no schedule {name[:63]!r}.")
    return _schedule(row)


def _is(tenant: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(secret_schedules.c.tenant == tenant, secret_schedules.c.name == name)


def _is_as(schedule: SecretSchedule) -> sa.ColumnElement[bool]:
    table = secret_schedules.c
    same = (table.revision == schedule.revision, table.runs_at == schedule.runs_at)
    return sa.and_(_is(schedule.tenant, schedule.name), *same)


def _schedule(row: Mapping[Any, Any]) -> SecretSchedule:
    facts = {name: row[name] for name in SecretSchedule.__struct_fields__ if name != "plan"}
    return SecretSchedule(plan=msgspec.json.decode(row["plan"], type=SchedulePlan), **facts)
