"""Accepted calls, kept through restarts. Implements ``ports.Operations``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import operations, retention
from erp.control_plane.tenants import require
from erp.errors import FieldError, ProviderError
from erp.runtime.operation import Operation, Order, Outcome, Progress

NOBODY = ""
MAX_WAITING = 1000
"""Operations of one tenant that have not ended."""
KEPT_SECONDS = 24 * 3600.0
PURGED_AT_ONCE = 500

_order = msgspec.json.Decoder(Order).decode
_outcome = msgspec.json.Decoder(Outcome).decode
_progress = msgspec.json.Decoder(Progress).decode


class StoredOperations:
    """The operations of all tenants."""

    def __init__(self, database: Database, *, clock: Callable[[], int] = moments.now) -> None:
        self._database = database
        self._clock = clock
        self.on_change: Callable[[], None] = lambda: None
        """Called after this process has accepted an operation or asked for the end of one."""

    # -- what callers do -------------------------------------------------------------------------

    async def accept(self, id: str, order: Order, fingerprint: bytes) -> Operation:  # noqa: A002
        """Keep a call to be run; return its operation, which for a repeated idempotency key is the first one.

        Raises:
            ProviderError: ``rate_limited`` when too many of the tenant wait; ``invalid_argument`` (422) when the
                key was used for another request.
        """
        made = await self._database.transact(partial(_accept, id, order, fingerprint, self._clock()))
        self.on_change()
        return made

    async def find(self, tenant: str, id: str) -> Operation | None:  # noqa: A002
        """Return an operation of ``tenant``, or None."""
        statement = sa.select(operations).where(operations.c.id == id, operations.c.tenant == tenant)
        row = await self._database.run(lambda connection: connection.execute(statement).mappings().first())
        return None if row is None else _operation(row)

    async def page(
        self, tenant: str, *, actor: str | None, state: str | None, before: tuple[int, str] | None, limit: int
    ) -> tuple[list[Operation], tuple[int, str] | None]:
        """Return operations, the newest first, and where the next page begins; of one actor and state when given."""
        table = operations.c
        statement = sa.select(operations).where(table.tenant == tenant)
        statement = statement.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
        if actor is not None:
            statement = statement.where(table.actor == actor)
        if state is not None:
            statement = statement.where(table.state == state)
        if before is not None:
            statement = statement.where(sa.tuple_(table.created_at, table.id) < sa.tuple_(*before))
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        end = (rows[limit - 1]["created_at"], rows[limit - 1]["id"]) if len(rows) > limit else None
        return [_operation(row) for row in rows[:limit]], end

    async def latest(self, subjects: Sequence[str]) -> dict[str, Operation]:
        """Return the latest operation about each of ``subjects`` that there is one about."""
        table = operations.c
        newest = sa.select(table.subject, sa.func.max(table.created_at)).where(table.subject.in_(subjects))
        pairs = sa.tuple_(table.subject, table.created_at).in_(newest.group_by(table.subject))
        statement = sa.select(operations).where(pairs)
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        return {row["subject"]: _operation(row) for row in rows}

    async def cancel(self, tenant: str, id: str) -> Operation | None:  # noqa: A002
        """Want the end of an operation: one that waits ends at once, one that runs as soon as its process hears."""
        found = await self._database.transact(partial(_cancel, tenant, id, self._clock()))
        self.on_change()
        return found

    # -- what runs them --------------------------------------------------------------------------

    async def claim(
        self, owner: str, *, limit: int, lease_seconds: float, without: Sequence[str] = ()
    ) -> list[Operation]:
        now = self._clock()
        if not await self._database.run(partial(_due, now, 1, without)):
            return []
        until = now + int(lease_seconds * moments.MICROSECONDS)
        return await self._database.transact(partial(_claim, owner, now, limit, until, without))

    async def next_due_seconds(self) -> float | None:
        """Return how long until an operation may be taken on; None when none is open."""
        earliest = sa.select(sa.func.min(operations.c.due_at)).where(operations.c.ended_at.is_(None))
        due_at = await self._database.run(lambda connection: connection.execute(earliest).scalar_one())
        return None if due_at is None else max((due_at - self._clock()) / moments.MICROSECONDS, 0.0)

    async def renew(self, owner: str, ids: Sequence[str], lease_seconds: float) -> list[str]:
        until = self._clock() + int(lease_seconds * moments.MICROSECONDS)
        return await self._database.transact(partial(_renew, owner, ids, until))

    async def report(self, owner: str, id: str, progress: Progress) -> None:  # noqa: A002
        text = msgspec.json.encode(progress).decode()
        statement = sa.update(operations).where(_is_of(owner, id)).values(progress=text)
        await self._database.transact(lambda connection: connection.execute(statement).rowcount)

    async def settle(self, owner: str, id: str, outcome: Outcome | None) -> bool:  # noqa: A002
        values = _waiting(self._clock()) if outcome is None else _ended(self._clock(), outcome)
        statement = sa.update(operations).where(_is_of(owner, id)).values(values)
        return await self._database.transact(lambda connection: connection.execute(statement).rowcount > 0)

    async def purge(self, *, older_than_seconds: float = KEPT_SECONDS) -> int:
        """Forget a bounded number of operations that ended long ago.

        Those of tenants that have said how long they keep what are not touched.
        """
        ended_before = self._clock() - int(older_than_seconds * moments.MICROSECONDS)
        others = operations.c.tenant.not_in(sa.select(retention.c.tenant))
        old = sa.select(operations.c.id).where(operations.c.ended_at < ended_before, others).limit(PURGED_AT_ONCE)
        statement = sa.delete(operations).where(operations.c.id.in_(old))
        return await self._database.transact(lambda connection: connection.execute(statement).rowcount)


def _accept(id_: str, order: Order, fingerprint: bytes, now: int, connection: sa.Connection) -> Operation:
    tenant, actor, key = order.actor.tenant, order.actor.id, order.idempotency_key
    require(connection, tenant)
    if key is not None and (known := _known(connection, tenant, actor, key)) is not None:
        return _same(known, fingerprint)
    _refuse_too_many(connection, tenant)
    _refuse_second(connection, order.subject)
    values = {
        "id": id_,
        "tenant": tenant,
        "actor": actor,
        "key": key,
        "subject": order.subject,
        "fingerprint": fingerprint,
        "request": msgspec.json.encode(order),
        "cancel_wanted": 0,
        "attempts": 0,
        "created_at": now,
        **_waiting(now),
    }
    if connection.execute(insert_new(connection.dialect, operations), values).rowcount == 0:
        return _same(_known(connection, tenant, actor, key or ""), fingerprint)  # somebody was quicker
    return _operation(connection.execute(sa.select(operations).where(operations.c.id == id_)).mappings().one())


def _known(connection: sa.Connection, tenant: str, actor: str, key: str) -> Mapping[Any, Any] | None:
    place = sa.tuple_(operations.c.tenant, operations.c.actor, operations.c.key) == sa.tuple_(tenant, actor, key)
    return connection.execute(sa.select(operations).where(place)).mappings().first()


def _same(known: Mapping[Any, Any] | None, fingerprint: bytes) -> Operation:
    if known is None or known["fingerprint"] != fingerprint:
        message = "This Idempotency-Key was used for another request. Use a new key for a new request."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, status=422)
    return _operation(known)


def _refuse_too_many(connection: sa.Connection, tenant: str) -> None:
    open_ = sa.select(operations.c.id).where(operations.c.tenant == tenant, operations.c.ended_at.is_(None))
    count = connection.execute(sa.select(sa.func.count()).select_from(open_.limit(MAX_WAITING).subquery())).scalar_one()
    if count >= MAX_WAITING:
        error = FieldError("/headers/Prefer", "Wait until some operations have ended, or cancel some.")
        message = f"{MAX_WAITING} operations of the tenant have not ended."
        raise ProviderError(ErrorCode.RATE_LIMITED, message, errors=[error], retry_after_seconds=5.0)


def _refuse_second(connection: sa.Connection, subject: str | None) -> None:
    """One operation about a thing at a time."""
    if subject is None:
        return
    open_ = sa.select(operations.c.id).where(operations.c.subject == subject, operations.c.ended_at.is_(None))
    other = connection.execute(open_.limit(1)).scalar()
    if other is not None:
        message = f"It is being changed already, by operation {other}. Wait for its end, or cancel it."
        raise ProviderError(ErrorCode.CONFLICT, message, retry_after_seconds=1.0)


def _cancel(tenant: str, id_: str, now: int, connection: sa.Connection) -> Operation | None:
    mine = sa.and_(operations.c.id == id_, operations.c.tenant == tenant)
    row = connection.execute(sa.select(operations).where(mine).with_for_update()).mappings().first()
    if row is None:
        return None
    if row["state"] == "queued":
        connection.execute(sa.update(operations).where(mine).values(_ended(now, Outcome(state="cancelled"))))
    elif row["ended_at"] is None:
        connection.execute(sa.update(operations).where(mine).values(cancel_wanted=1))
    return _operation(connection.execute(sa.select(operations).where(mine)).mappings().one())


def _due(now: int, limit: int, without: Sequence[str], connection: sa.Connection) -> list[Mapping[Any, Any]]:
    table = operations.c
    statement = (
        sa.select(operations)
        .where(table.ended_at.is_(None), table.due_at <= now, table.tenant.not_in(without))
        .order_by(table.due_at)
        .limit(limit)
    )
    return list(connection.execute(statement).mappings())


def _claim(
    owner: str, now: int, limit: int, until: int, without: Sequence[str], connection: sa.Connection
) -> list[Operation]:
    claimed = []
    for row in _due(now, limit, without, connection):
        values = {"state": "running", "owner": owner, "due_at": until, "attempts": row["attempts"] + 1}
        values["started_at"] = row["started_at"] or now
        same = sa.and_(operations.c.id == row["id"], operations.c.due_at == row["due_at"])
        if connection.execute(sa.update(operations).where(same).values(values)).rowcount:
            claimed.append(_operation({**row, **values}))
    return claimed


def _renew(owner: str, ids: Sequence[str], until: int, connection: sa.Connection) -> list[str]:
    mine = sa.and_(operations.c.owner == owner, operations.c.id.in_(ids), operations.c.ended_at.is_(None))
    connection.execute(sa.update(operations).where(mine).values(due_at=until))
    wanted = sa.select(operations.c.id).where(mine, operations.c.cancel_wanted == 1)
    return list(connection.execute(wanted).scalars())


def _is_of(owner: str, id_: str) -> sa.ColumnElement[bool]:
    return sa.and_(operations.c.id == id_, operations.c.owner == owner, operations.c.ended_at.is_(None))


def _waiting(now: int) -> dict[str, Any]:
    return {"state": "queued", "owner": NOBODY, "due_at": now}


def _ended(now: int, outcome: Outcome) -> dict[str, Any]:
    return {"state": outcome.state, "owner": NOBODY, "ended_at": now, "outcome": msgspec.json.encode(outcome)}


def _operation(row: Mapping[Any, Any]) -> Operation:
    return Operation(
        tenant=row["tenant"],
        id=row["id"],
        state=row["state"],
        order=_order(row["request"]),
        is_cancel_wanted=bool(row["cancel_wanted"]),
        created_at=moments.text(row["created_at"]),
        started_at=moments.optional_text(row["started_at"]),
        ended_at=moments.optional_text(row["ended_at"]),
        progress=None if row["progress"] is None else _progress(row["progress"]),
        outcome=None if row["outcome"] is None else _outcome(row["outcome"]),
        attempts=row["attempts"],
    )
