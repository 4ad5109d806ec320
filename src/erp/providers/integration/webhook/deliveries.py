"""Messages and what became of them at each endpoint. All functions run inside a transaction."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import UNSET

from erp.contracts.models.integration import (
    Attempt,
    Delivery,
    GetDeliveryResult,
    ListDeliveriesRequest,
    ListDeliveriesResult,
    ReplayDeliveriesRequest,
)
from erp.providers.integration.webhook import endpoints, tables
from erp.providers.integration.webhook.endpoints import Target
from erp.runtime.spi import ErrorCode, ProviderError

MAX_AT_ONCE = 32
"""Endpoints attempted within the call of a trigger; further ones follow at once from the schedule."""

_ROWS = (
    "SELECT d.*, m.id AS message_id, m.name, m.body, m.traceparent, m.created_at, e.id AS endpoint_id, e.enabled"
    " FROM deliveries d JOIN messages m ON m.seq = d.message JOIN endpoints e ON e.seq = d.endpoint"
)

Status = Literal["pending", "delivered", "failing", "exhausted", "aborted"]


@dataclass(frozen=True, slots=True)
class NewMessage:
    """What a trigger wants delivered."""

    id: str
    name: str
    body: bytes
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt to be made now."""

    message: int
    message_id: str
    body: bytes
    traceparent: str | None
    endpoint: Target
    due_at: float | None
    """Of the delivery when the attempt begins (the end of its lease); another one later was planned meanwhile."""
    is_planned: bool = True
    """False for a resend that somebody asked for: it takes no place in the schedule."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a trigger leads to."""

    tasks: list[Task]
    """To be attempted within the call."""
    waiting: list[tuple[str, Status]]
    """Endpoints with nothing to attempt now, and how their delivery stands."""
    disabled: list[str]
    """Endpoints that want the message but were found gone or failing for days."""


def plan(connection: sqlite3.Connection, new: NewMessage, now: float, lease_until: float) -> Planned:
    """Store the message with a delivery to every endpoint that wants it; one known before is not stored again.

    Deliveries to attempt now are leased, so that nobody else attempts them before ``lease_until``.
    """
    wanted = [row for row in connection.execute("SELECT * FROM endpoints ORDER BY seq") if _wants(row, new.name)]
    known = connection.execute("SELECT seq FROM messages WHERE id = ?", (new.id,)).fetchone()
    disabled = [row["id"] for row in wanted if row["disabled_reason"] in {"gone", "failing"}]
    if known is None:
        if not wanted:
            return Planned([], [], [])
        _store(connection, new, wanted, now)
    rows = connection.execute(_ROWS + " WHERE m.id = ? ORDER BY d.endpoint", (new.id,)).fetchall()
    tasks: list[Task] = []
    waiting: list[tuple[str, Status]] = []
    for row in rows:
        is_due = row["due_at"] is not None and row["due_at"] <= now and len(tasks) < MAX_AT_ONCE
        if is_due and _took_slot(connection, row["endpoint"], now):
            tasks.append(_leased(connection, row, now, lease_until))
        else:
            waiting.append((row["endpoint_id"], row["status"]))
    return Planned(tasks, waiting, disabled)


def _wants(row: sqlite3.Row, name: str) -> bool:
    types = tables.names(row["event_types"])
    return not types or name in types


def _store(connection: sqlite3.Connection, new: NewMessage, wanted: list[sqlite3.Row], now: float) -> None:
    statement = "INSERT INTO messages (id, name, body, traceparent, created_at) VALUES (?, ?, ?, ?, ?)"
    seq = connection.execute(statement, (new.id, new.name, new.body, new.traceparent, now)).lastrowid
    connection.executemany(
        "INSERT INTO deliveries (message, endpoint, status, due_at) VALUES (?, ?, 'pending', ?)",
        [(seq, row["seq"], now) for row in wanted if row["enabled"]],
    )


def _took_slot(connection: sqlite3.Connection, endpoint: int, now: float) -> bool:
    """Use the endpoint's rate for one attempt, if it allows one now."""
    found = connection.execute("SELECT max_per_second, next_slot FROM endpoints WHERE seq = ?", (endpoint,)).fetchone()
    if found["max_per_second"] is None:
        return True
    # A slot far ahead was written before the clock was set back.
    gap = 1.0 / found["max_per_second"]
    if now < found["next_slot"] <= now + gap:
        return False
    connection.execute("UPDATE endpoints SET next_slot = ? WHERE seq = ?", (tables.exact(now + gap), endpoint))
    return True


def _leased(connection: sqlite3.Connection, row: sqlite3.Row, now: float, lease_until: float) -> Task:
    due_at = tables.exact(lease_until)
    connection.execute("UPDATE deliveries SET due_at = ? WHERE seq = ?", (due_at, row["seq"]))
    return _task(connection, row, now, due_at=due_at)


def _task(
    connection: sqlite3.Connection, row: sqlite3.Row, now: float, *, due_at: float | None, is_planned: bool = True
) -> Task:
    endpoint = connection.execute("SELECT * FROM endpoints WHERE seq = ?", (row["endpoint"],)).fetchone()
    target = endpoints.target(endpoint, now)
    return Task(row["message"], row["message_id"], row["body"], row["traceparent"], target, due_at, is_planned)


def due_endpoints(connection: sqlite3.Connection, now: float, limit: int) -> list[int]:
    """Endpoints with something to attempt now, the longest waiting first."""
    rows = connection.execute(
        "SELECT d.endpoint FROM deliveries d JOIN endpoints e ON e.seq = d.endpoint WHERE d.due_at <= ?"
        " AND (e.max_per_second IS NULL OR e.next_slot <= ?) GROUP BY d.endpoint ORDER BY min(d.due_at) LIMIT ?",
        (now, now, limit),
    )
    return [row["endpoint"] for row in rows]


def claim(connection: sqlite3.Connection, endpoint: int, now: float, lease_until: float, limit: int) -> list[Task]:
    """Lease what is due at an endpoint, as many as its rate allows now."""
    statement = _ROWS + " WHERE d.endpoint = ? AND d.due_at <= ? ORDER BY d.due_at, d.seq LIMIT ?"
    tasks = []
    for row in connection.execute(statement, (endpoint, now, limit)).fetchall():
        if not _took_slot(connection, endpoint, now):
            break
        tasks.append(_leased(connection, row, now, lease_until))
    return tasks


def next_due(connection: sqlite3.Connection, now: float) -> float | None:
    """When there is something to attempt next, if nothing else happens."""
    due: float | None = connection.execute(
        "SELECT min(max(d.due, CASE WHEN e.max_per_second IS NULL THEN 0"
        " ELSE min(e.next_slot, ? + 1.0 / e.max_per_second) END))"
        " FROM (SELECT endpoint, min(due_at) AS due FROM deliveries WHERE due_at IS NOT NULL GROUP BY endpoint) d"
        " JOIN endpoints e ON e.seq = d.endpoint",
        (now,),
    ).fetchone()[0]
    return due


def row_of(connection: sqlite3.Connection, id_: str, endpoint: str) -> sqlite3.Row:
    """Find the delivery of a message to an endpoint.

    Raises:
        ProviderError: ``not_found``.
    """
    found: sqlite3.Row | None = connection.execute(_ROWS + " WHERE m.id = ? AND e.id = ?", (id_, endpoint)).fetchone()
    if found is None:
        message = f"There is no delivery {id_[:100]!r} to endpoint {endpoint[:100]!r}; list_deliveries lists them."
        raise ProviderError(ErrorCode.NOT_FOUND, message)
    return found


def shown(row: sqlite3.Row) -> Delivery:
    """The delivery as answers show it."""
    return Delivery(
        id=row["message_id"],
        endpoint=row["endpoint_id"],
        name=row["name"],
        status=row["status"],
        attempts=row["attempts"],
        created_at=tables.instant(row["created_at"]),
        next_attempt_at=tables.moment(row["due_at"]),
    )


def attempt_shown(row: sqlite3.Row) -> Attempt:
    """The attempt as answers show it."""
    return Attempt(
        number=row["number"],
        at=tables.instant(row["at"]),
        status=row["status"],
        http_status=tables.known(row["http_status"]),
        code=tables.known(row["code"]),
        message=tables.known(row["text"]),
        duration_ms=tables.known(row["duration_ms"]),
        response_excerpt=tables.known(row["excerpt"]),
    )


def page(connection: sqlite3.Connection, request: ListDeliveriesRequest) -> ListDeliveriesResult:
    """List deliveries, newest first."""
    after = tables.after(request.cursor)
    values = {
        "after": after or 2**62,
        "endpoint": tables.stored(request.endpoint),
        "name": tables.stored(request.name),
        "status": tables.stored(request.status),
        "from": None if request.created_from is UNSET else request.created_from.timestamp(),
        "until": None if request.created_until is UNSET else request.created_until.timestamp(),
        "limit": request.limit + 1,
    }
    found = connection.execute(
        _ROWS
        + " WHERE d.seq < :after AND (:endpoint IS NULL OR e.id = :endpoint) AND (:name IS NULL OR m.name = :name)"
        " AND (:status IS NULL OR d.status = :status) AND (:from IS NULL OR m.created_at >= :from)"
        " AND (:until IS NULL OR m.created_at < :until) ORDER BY d.seq DESC LIMIT :limit",
        values,
    ).fetchall()
    result = ListDeliveriesResult(deliveries=[shown(row) for row in found[: request.limit]])
    if len(found) > request.limit:
        result.next_cursor = str(found[request.limit - 1]["seq"])
    return result


def details(connection: sqlite3.Connection, id_: str, endpoint: str) -> GetDeliveryResult:
    """Read one delivery with its attempts."""
    row = row_of(connection, id_, endpoint)
    statement = "SELECT * FROM attempts WHERE message = ? AND endpoint = ? ORDER BY number"
    attempts = connection.execute(statement, (row["message"], row["endpoint"])).fetchall()
    payload = msgspec.json.decode(row["body"])
    return GetDeliveryResult(delivery=shown(row), attempts=[attempt_shown(item) for item in attempts], payload=payload)


def resend(connection: sqlite3.Connection, id_: str, endpoint: str, now: float) -> Task:
    """Prepare one more attempt of a delivery, whatever became of it.

    Raises:
        ProviderError: ``not_found``; ``failed_precondition`` when the endpoint is disabled.
    """
    row = row_of(connection, id_, endpoint)
    _require_enabled(bool(row["enabled"]))
    return _task(connection, row, now, due_at=row["due_at"], is_planned=False)


def _require_enabled(enabled: bool) -> None:  # noqa: FBT001
    if not enabled:
        message = "The endpoint is disabled. Enable it with update_endpoint first."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)


_OF_PERIOD = (
    "SELECT m.seq, m.name FROM messages m LEFT JOIN deliveries d ON d.message = m.seq AND d.endpoint = ?"
    " WHERE m.created_at >= ? AND m.created_at < ? AND "
)
_SELECTED = {
    "failed": "d.status IN ('failing', 'exhausted', 'aborted') AND d.attempts > 0",
    "missing": "(d.seq IS NULL OR d.attempts = 0)",
    "all": "1",
}


def replay(connection: sqlite3.Connection, request: ReplayDeliveriesRequest, now: float) -> int:
    """Make the selected messages of a period due now at an endpoint, with the whole schedule before them."""
    endpoint = endpoints.row_of(connection, request.endpoint)
    _require_enabled(bool(endpoint["enabled"]))
    until = now if request.created_until is UNSET else request.created_until.timestamp()
    types = tables.names(endpoint["event_types"])
    values = (endpoint["seq"], request.created_from.timestamp(), until)
    found = connection.execute(_OF_PERIOD + _SELECTED[request.select] + " ORDER BY m.seq", values).fetchall()
    wanted = [(row["seq"], endpoint["seq"], now) for row in found if not types or row["name"] in types]
    connection.executemany(
        "INSERT INTO deliveries (message, endpoint, status, due_at) VALUES (?, ?, 'pending', ?)"
        " ON CONFLICT (message, endpoint) DO UPDATE SET status = 'pending', tries = 0, due_at = excluded.due_at",
        wanted,
    )
    return len(wanted)
