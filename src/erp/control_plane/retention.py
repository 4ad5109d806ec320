"""How long audit records are kept, by class, and their lawful deletion.

A deleted record leaves its place, time and hash; a record with reason and ranges says so. Chain, tree and checkpoints hold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.audit import DELETED
from erp.control_plane.batch import ChainWriter, audit_row
from erp.control_plane.chain import DELETION
from erp.control_plane.database import Database
from erp.control_plane.retention_policies import unsaid
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import audit, audit_retention, retention
from erp.control_plane.tenants import require
from erp.errors import FieldError, ProviderError
from erp.runtime.ports import AuditEntry

RecordClass = Literal["security", "refusals", "configuration", "calls"]
CLASSES: tuple[RecordClass, ...] = ("security", "refusals", "configuration", "calls")
SHORTEST_DAYS: dict[RecordClass, int] = {"security": 90, "refusals": 30, "configuration": 30, "calls": 1}

_SECURITY = ("keys", "tenants", "policies", "consents", "break_glass", "audit", "secrets", "auth", "privacy")
_CONFIGURATION = ("connections", "routes", "quotas", "catalog", "operations", "outbox")
DAY = 86_400 * moments.MICROSECONDS
PER_TRANSACTION = 5_000
"""Records deleted while nobody else can append to the tenant's chain."""


class RetentionRule(msgspec.Struct, frozen=True, kw_only=True):
    """How many days the records of a class are kept; None: for ever."""

    name: RecordClass
    days: int | None = None
    shortest_days: int


@dataclass(frozen=True, slots=True)
class Grounds:
    """Why records may be deleted, and on whose behalf."""

    actor: str
    reason: str
    request_id: str


GoOn = Callable[[], Awaitable[bool]]
"""Whether to begin another transaction."""


async def _always() -> bool:
    return True


class AuditRetention:
    """The rules of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._chain = ChainWriter(database.dialect)

    async def rules(self, tenant: str) -> list[RetentionRule]:
        """Return how long ``tenant`` keeps each class."""
        table = audit_retention
        statement = sa.select(table.c["class"], table.c.days).where(table.c.tenant == tenant)
        found = dict(await self._database.run(lambda connection: connection.execute(statement).all()))
        return [RetentionRule(name=name, days=found.get(name), shortest_days=SHORTEST_DAYS[name]) for name in CLASSES]

    async def set(self, tenant: str, name: RecordClass, days: int | None) -> None:
        """Keep records of a class for ``days``; None: for ever.

        Raises:
            ProviderError: ``invalid_argument`` below the shortest time that the class allows.
        """
        if days is not None and days < SHORTEST_DAYS[name]:
            error = FieldError("/days", f"Keep records of the class {name} for {SHORTEST_DAYS[name]} days or longer.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The time is too short.", errors=[error])

        def write(connection: sa.Connection) -> None:
            require(connection, tenant)
            table = audit_retention
            connection.execute(sa.delete(table).where(table.c.tenant == tenant, table.c["class"] == name))
            if days is not None:
                row = {"tenant": tenant, "class": name, "days": days}
                connection.execute(insert_new(self._database.dialect, table).values(row))
                connection.execute(insert_new(self._database.dialect, retention).values(unsaid(tenant)))

        await self._database.transact(write)

    async def count(self, tenant: str) -> dict[str, int]:
        """Return how many records of each class ``apply`` would delete now."""
        found: dict[str, int] = {}
        for rule in await self.rules(tenant):
            if rule.days is not None:
                which = sa.and_(*_deletable(tenant), _old(rule))
                statement = sa.select(sa.func.count()).select_from(audit).where(which)
                found[rule.name] = await self._database.run(partial(_scalar, statement))
        return found

    async def apply(self, tenant: str, grounds: Grounds, go_on: GoOn = _always) -> dict[str, int]:
        """Delete what ``tenant`` has kept long enough, asking ``go_on`` between transactions; return how many of each class."""
        deleted: dict[str, int] = {}
        for rule in await self.rules(tenant):
            if rule.days is not None:
                deleted[rule.name] = await self._delete(tenant, _old(rule), grounds, {"class": rule.name}, go_on)
        return deleted

    async def erase(self, tenant: str, first: int, last: int, grounds: Grounds) -> int:
        """Delete records ``first`` to ``last`` whatever their age (a court's order, a person's right); return how many."""
        return await self._delete(tenant, audit.c.seq.between(first, last), grounds, {})

    async def _delete(
        self,
        tenant: str,
        which: sa.ColumnElement[bool],
        grounds: Grounds,
        detail: dict[str, Any],
        go_on: GoOn = _always,
    ) -> int:
        done = 0
        while True:
            count = await self._database.transact(partial(self._delete_some, tenant, which, grounds, detail))
            done += count
            if count < PER_TRANSACTION or not await go_on():
                return done

    def _delete_some(
        self,
        tenant: str,
        which: sa.ColumnElement[bool],
        grounds: Grounds,
        detail: dict[str, Any],
        connection: sa.Connection,
    ) -> int:
        heads = self._chain.locked(connection, {tenant})
        table = audit.c
        found = sa.select(table.seq).where(*_deletable(tenant), which).order_by(table.seq).limit(PER_TRANSACTION)
        ranges = _ranges(list(connection.execute(found).scalars()))
        if not ranges:
            return 0
        nothing = {"actor": "", "target": "", "outcome": DELETED, "record": b"", "action": None}
        emptied = sa.update(audit).values(nothing | {"effect": None, "request_id": None})
        for first, last in ranges:
            connection.execute(emptied.where(table.tenant == tenant, table.seq.between(first, last)))
        self._chain.extend(connection, [audit_row(_deletion(tenant, grounds, detail | {"ranges": ranges}))], heads)
        return sum(last - first + 1 for first, last in ranges)


def _deletable(tenant: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (audit.c.tenant == tenant, audit.c.outcome != DELETED, audit.c.action != DELETION)


def _old(rule: RetentionRule) -> sa.ColumnElement[bool]:
    return sa.and_(audit.c.time < moments.now() - (rule.days or 0) * DAY, _class() == rule.name)


def _scalar(statement: sa.Select[int], connection: sa.Connection) -> int:
    return connection.execute(statement).scalar_one()


def _class() -> sa.ColumnElement[str]:
    """Return the class of a record, as SQL."""
    return sa.case(
        (_is_about(_SECURITY), "security"),
        (audit.c.outcome == ErrorCode.PERMISSION_DENIED.value, "refusals"),
        (_is_about(_CONFIGURATION), "configuration"),
        else_="calls",
    )


def _is_about(areas: tuple[str, ...]) -> sa.ColumnElement[bool]:
    return sa.or_(*(audit.c.action.startswith(f"{area}.", autoescape=True) for area in areas))


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _deletion(tenant: str, grounds: Grounds, detail: dict[str, Any]) -> AuditEntry:
    return AuditEntry(
        tenant=tenant,
        actor=grounds.actor,
        action=DELETION,
        target="audit",
        outcome="ok",
        reason=grounds.reason,
        request_id=grounds.request_id,
        time=moments.text(moments.now()),
        effect="destructive",
        detail=detail,
    )
