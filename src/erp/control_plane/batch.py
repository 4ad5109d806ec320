"""One transaction of the journal: claims, stored answers, events and audit records of many calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.chain import GENESIS, chained
from erp.control_plane.claims import ClaimTable
from erp.control_plane.merkle import CompactRange, leaf_hash
from erp.control_plane.statements import Lookup, Statement, insert_new
from erp.control_plane.tables import audit, audit_heads, audit_nodes, outbox
from erp.runtime.ports import AuditEntry, Claim, ClaimOutcome, Completion, OutboxEvent

AT_ONCE = 0
"""``due_at`` of an event that waits for nothing, whatever becomes of the clock."""
_EVENT_COLUMNS = ("tenant", "id", "key", "event", "state", "attempts", "due_at")

_canonical = msgspec.json.Encoder(order="sorted", decimal_format="string").encode
_encode = msgspec.json.Encoder(decimal_format="string").encode

Searched = tuple[str, int, str, str, str, str, str, str]
"""tenant, time, actor, target, outcome, action, effect, request id."""
AuditRow = tuple[str, int, str, str, str, str, str, str, bytes]
"""As ``Searched``, and the record."""
EventRow = tuple[str, str, str | None, bytes, str, int, int]
"""tenant, id, key, event, state, attempts, due_at."""


@dataclass(slots=True)
class Head:
    """Where a tenant's chain ends, and the tree over it."""

    seq: int
    hash: bytes
    tree: CompactRange


@dataclass(slots=True)
class Batch:
    """What one transaction makes durable."""

    claims: list[Claim] = field(default_factory=list)
    disowned: list[Claim] = field(default_factory=list)
    """Claims whose call ended without its end being stored: their runner counts as dead."""
    overdue: list[Claim] = field(default_factory=list)
    """Claims whose call took no effect and whose release could not be stored before."""
    released: list[Claim] = field(default_factory=list)
    failed: list[Claim] = field(default_factory=list)
    """Claims whose call ends without an answer that is stored: they are among the released or disowned."""
    answers: list[Completion] = field(default_factory=list)
    """Completions that store an answer for their claim."""
    events: list[EventRow] = field(default_factory=list)
    events_of: dict[str, list[EventRow]] = field(default_factory=dict)
    """Those of ``events`` that belong to a claimed call, by the token of its claim."""
    audit: list[AuditRow] = field(default_factory=list)
    is_heartbeat: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch has come to."""

    outcomes: list[ClaimOutcome]
    """Of its claims, in their order."""
    superseded: set[str]
    """Tokens of claims that another process took over before the answer came: it is not stored, nor are its events."""


class BatchWriter:
    """Writes batches. Tables are touched in one order by everybody, so that processes cannot deadlock."""

    def __init__(self, dialect: sa.Dialect, owner: str, lease_seconds: float) -> None:
        self._claims = ClaimTable(dialect, owner, lease_seconds)
        self._insert_event = Statement(
            dialect,
            _insert_event(dialect),
            *_EVENT_COLUMNS,
        )
        self._chain = ChainWriter(dialect)

    def write(self, batch: Batch, connection: sa.Connection) -> Written:
        """Write ``batch``."""
        if batch.is_heartbeat:
            self._claims.beat(connection)
        superseded = self._claims.lost(connection, batch.failed)
        self._claims.disown(connection, batch.disowned)
        self._claims.release(connection, batch.overdue)
        outcomes = self._claims.claim(connection, batch.claims)
        superseded |= self._claims.answer(connection, batch.answers)
        self._claims.release(connection, batch.released)
        # Whoever holds a tenant's head gives its events their positions: they become visible in that order, and who reads
        # on behind a position misses none. (Every event comes with an audit record of its tenant.)
        heads = self._chain.locked(connection, {entry[0] for entry in batch.audit}) if batch.audit else {}
        self._insert_event.run(connection, _told(batch, superseded) if superseded else batch.events)
        if batch.audit:
            self._chain.extend(connection, batch.audit, heads)
        return Written(outcomes, superseded)

    def retire(self, connection: sa.Connection) -> None:
        """Say that this process runs no claimed call any more."""
        self._claims.retire(connection)

    def purge(self, connection: sa.Connection) -> None:
        """Forget a bounded number of answers whose window has passed."""
        self._claims.purge(connection)


class ChainWriter:
    """Appends records to tenants' chains and to the trees over them."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._insert_audit = Statement(dialect, sa.insert(audit), *audit.c.keys())
        self._insert_node = Statement(dialect, sa.insert(audit_nodes), "tenant", "level", "index", "hash")
        self._insert_head = Statement(dialect, insert_new(dialect, audit_heads), "tenant", "seq", "hash", "subtrees")
        self._update_head = Statement(dialect, _update_head(), "seq", "hash", "subtrees", "of_tenant")
        self._heads = Lookup(dialect, _select_heads)

    def locked(self, connection: sa.Connection, tenants: set[str]) -> dict[str, Head]:
        """Return where the chains of ``tenants`` end; nobody else appends to them before the transaction ends."""
        names = sorted(tenants)
        heads = self._read_heads(connection, names)
        missing = [tenant for tenant in names if tenant not in heads]
        if missing:
            self._insert_head.run(connection, [(tenant, 0, GENESIS, b"") for tenant in missing])
            heads |= self._read_heads(connection, missing)
        return heads

    def extend(self, connection: sa.Connection, entries: list[AuditRow], heads: dict[str, Head]) -> None:
        """Append ``entries`` to the chains whose ends are ``locked``."""
        rows, nodes = [], []
        for tenant, time, actor, target, outcome, action, effect, request_id, record in entries:
            head = heads[tenant]
            previous = head.hash
            head.seq += 1
            head.hash = chained(previous, record)
            filled = head.tree.append(leaf_hash(head.hash))
            if filled:
                nodes += [(tenant, *node) for node in filled]
            rows.append(
                (
                    tenant,
                    head.seq,
                    time,
                    actor,
                    target,
                    outcome,
                    record,
                    previous,
                    head.hash,
                    action,
                    effect,
                    request_id,
                )
            )
        self._insert_audit.run(connection, rows)
        self._insert_node.run(connection, nodes)
        ends = [(head.seq, head.hash, head.tree.packed(), tenant) for tenant, head in heads.items()]
        self._update_head.run(connection, ends)

    def _read_heads(self, connection: sa.Connection, tenants: list[str]) -> dict[str, Head]:
        return {
            tenant: Head(seq, bytes(digest), CompactRange(seq, bytes(subtrees)))
            for tenant, seq, digest, subtrees in self._heads.rows(connection, tenants)
        }


def _told(batch: Batch, superseded: set[str]) -> list[EventRow]:
    """Return the events without those of superseded calls: whoever took a call over announces its own."""
    dropped = {event[:2] for token in superseded for event in batch.events_of.get(token, ())}
    return [event for event in batch.events if event[:2] not in dropped]


def audit_row(entry: AuditEntry) -> AuditRow:
    """Return ``entry`` in its canonical form (JSON with sorted names) beside the columns to search by."""
    return (*searched(entry), _canonical(entry))


def searched(entry: AuditEntry) -> Searched:
    """Return the columns by which the record of ``entry`` is found."""
    return (
        entry.tenant,
        moments.parsed(entry.time),
        storable(entry.actor),
        storable(entry.target),
        storable(entry.outcome),
        storable(entry.action),
        entry.effect,
        storable(entry.request_id),
    )


def event_row(event: OutboxEvent) -> EventRow:
    """Return ``event`` as a row that is due at once."""
    key = None if event.key is None else storable(event.key)
    return event.tenant, storable(event.id), key, _encode(event), "due", 0, AT_ONCE


def storable(text: str) -> str:
    """Return ``text`` without U+0000, which PostgreSQL cannot store and which would fail a whole batch."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _insert_event(dialect: sa.Dialect) -> sa.ClauseElement:
    return insert_new(dialect, outbox).values({name: sa.bindparam(name) for name in _EVENT_COLUMNS})


def _update_head() -> sa.ClauseElement:
    values: dict[str, sa.ColumnElement[Any]] = {name: sa.bindparam(name) for name in ("seq", "hash", "subtrees")}
    return sa.update(audit_heads).where(audit_heads.c.tenant == sa.bindparam("of_tenant")).values(values)


def _select_heads(tenants: list[str]) -> sa.Select[str, int, bytes, bytes]:
    heads = audit_heads.c
    statement = sa.select(heads.tenant, heads.seq, heads.hash, heads.subtrees).where(heads.tenant.in_(tenants))
    return statement.order_by(heads.tenant).with_for_update()
