"""Search in the audit records. The journal writes them; nothing changes or removes them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from erp.control_plane import cursors, moments
from erp.control_plane.database import Database
from erp.control_plane.tables import audit, audit_heads, audit_nodes
from erp.runtime.ports import AuditEntry

DELETED = ""
"""Outcome of a record that was lawfully deleted."""


SEARCHED = ("tenant", "time", "actor", "target", "outcome", "action", "effect", "request_id")


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An audit entry with its place in the tenant's chain; hashes are hexadecimal."""

    seq: int
    tenant: str
    actor: str
    action: str
    target: str
    outcome: str
    reason: str
    request_id: str
    time: str
    effect: str
    traceparent: str | None = None
    detail: Mapping[str, Any] | None = None
    prev_hash: str
    hash: str


class ChainLink(msgspec.Struct, frozen=True, kw_only=True):
    """One record as it is stored: the exact bytes that were hashed."""

    tenant: str
    seq: int
    record: bytes
    """Empty: lawfully deleted."""
    prev_hash: bytes
    hash: bytes
    columns: tuple[Any, ...] = ()
    """What it is searched by: tenant, time, actor, target, outcome, action, effect, request id."""


class ChainHead(msgspec.Struct, frozen=True, kw_only=True):
    """How long a tenant's chain is and the hash it ends with."""

    seq: int
    hash: bytes
    subtrees: bytes = b""
    """Roots of the full subtrees of the tree over the chain."""


RecordPage = tuple[list[AuditRecord], str | None]


class AuditRecords:
    """The audit records of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def search(  # noqa: PLR0913  (one argument per filter; callers pass them by name)
        self,
        tenant: str,
        *,
        actor: str | None = None,
        target: str | None = None,
        outcome: str | None = None,
        effect: str | None = None,
        request_id: str | None = None,
        action: str | None = None,
        since: datetime.datetime | None = None,
        until: datetime.datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> RecordPage:
        """Return up to ``limit`` records that match all filters, newest first, and the next page's cursor, if any.

        ``since`` is included, ``until`` is not; both carry a time zone. ``action`` is a part of the action's name.
        What was lawfully deleted is not found.
        """
        table = audit.c
        statement = sa.select(table.seq, table.record, table.prev_hash, table.hash).where(table.tenant == tenant)
        wanted = {"actor": actor, "target": target, "outcome": outcome, "effect": effect, "request_id": request_id}
        same = [table[name] == value for name, value in wanted.items() if value is not None]
        statement = statement.where(table.outcome != DELETED, *same)
        if action is not None:
            statement = statement.where(table.action.contains(action, autoescape=True))
        if since is not None:
            statement = statement.where(table.time >= moments.of(since))
        if until is not None:
            statement = statement.where(table.time < moments.of(until))
        before = cursors.read(cursor, int)
        if before is not None:
            statement = statement.where(table.seq < before)
        statement = statement.order_by(table.seq.desc()).limit(limit + 1)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        items = [_record(row) for row in rows[:limit]]
        return items, cursors.written(items[-1].seq) if len(rows) > limit else None

    async def chain(self, tenant: str, *, after: int = 0, limit: int = 1000) -> list[ChainLink]:
        """Return up to ``limit`` records behind number ``after`` in their order, as they were hashed."""
        table = audit.c
        columns = (table.seq, table.record, table.prev_hash, table.hash, *(table[name] for name in SEARCHED))
        statement = sa.select(*columns).where(table.tenant == tenant, table.seq > after)
        statement = statement.order_by(table.seq).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        return [
            ChainLink(
                tenant=tenant,
                seq=row[0],
                record=bytes(row[1]),
                prev_hash=bytes(row[2]),
                hash=bytes(row[3]),
                columns=tuple(row[4:]),
            )
            for row in rows
        ]

    async def kept_nodes(self, tenant: str, nodes: list[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Return the kept roots of full subtrees among ``nodes`` (level and index)."""
        table = audit_nodes.c
        statement = sa.select(table.level, table.index, table.hash)
        statement = statement.where(table.tenant == tenant, sa.tuple_(table.level, table.index).in_(nodes))
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        return {(level, index): bytes(digest) for level, index, digest in rows}

    async def head(self, tenant: str) -> ChainHead | None:
        """Return where the chain of ``tenant`` ends, or None when it has no records."""
        heads = audit_heads.c
        statement = sa.select(heads.seq, heads.hash, heads.subtrees).where(heads.tenant == tenant)
        row = await self._database.run(lambda connection: connection.execute(statement).first())
        return None if row is None else ChainHead(seq=row[0], hash=bytes(row[1]), subtrees=bytes(row[2] or b""))


def _record(row: sa.Row[int, bytes, bytes, bytes]) -> AuditRecord:
    seq, record, prev_hash, digest = row
    entry = msgspec.json.decode(record, type=AuditEntry)
    return AuditRecord(
        seq=seq, prev_hash=bytes(prev_hash).hex(), hash=bytes(digest).hex(), **msgspec.structs.asdict(entry)
    )
