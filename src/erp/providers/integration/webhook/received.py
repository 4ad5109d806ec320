"""What peers sent: recorded once per message, listed, published again. All functions run inside a transaction."""

from __future__ import annotations

import base64
import sqlite3
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET

from erp.contracts.models.integration import (
    ListReceivedRequest,
    ListReceivedResult,
    Received,
    ReceivedMessage,
    ReceiveRequest,
    ReplayReceivedRequest,
)
from erp.providers.integration.webhook import receivers, tables
from erp.providers.integration.webhook.receivers import Place
from erp.providers.integration.webhook.schemes import Facts

REPEATS_ANNOUNCED_SECONDS = 12 * 3600.0
"""A repetition so soon may mean that the process died before the first was announced: it is announced again, under
the same event id, which the outbox remembers longer."""
MAX_REPLAYED = 10_000


def payload_of(request: ReceiveRequest) -> Any:
    """The body as JSON: as it is, else as text, else as base64; of a request without a body the query."""
    if not request.body:
        return dict(parse_qsl(request.query, max_num_fields=1000)) if request.query else None
    try:
        return msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return request.body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(request.body).decode()}


def record(
    connection: sqlite3.Connection, place: Place, facts: Facts, payload: Any, now: float
) -> tuple[bool, ReceivedMessage | None]:
    """Record a verified message; return whether it is new, and what is to be announced."""
    connection.execute("UPDATE receivers SET last_received_at = ? WHERE seq = ?", (now, place.seq))
    statement = "SELECT * FROM received WHERE receiver = ? AND id = ? AND status = 'published'"
    first = connection.execute(statement, (place.seq, facts.id)).fetchone()
    status = "published" if first is None else "repeated"
    body = msgspec.json.encode(payload) if first is None else None
    connection.execute(
        "INSERT INTO received (receiver, id, name, status, received_at, payload) VALUES (?, ?, ?, ?, ?, ?)",
        (place.seq, facts.id, facts.name, status, now, body),
    )
    if first is None:
        return True, ReceivedMessage(id=facts.id, name=facts.name, payload=payload)
    is_recent = abs(now - first["received_at"]) < REPEATS_ANNOUNCED_SECONDS
    return False, message_of(first) if is_recent else None


def refuse(connection: sqlite3.Connection, receiver: int, reason: str, id_: str, now: float) -> None:
    """Record a request that was refused, without its content, which nobody vouches for."""
    connection.execute(
        "INSERT INTO received (receiver, id, status, reason, received_at) VALUES (?, ?, 'refused', ?, ?)",
        (receiver, id_, reason, now),
    )


def message_of(row: sqlite3.Row) -> ReceivedMessage:
    """The message of a recorded request."""
    return ReceivedMessage(id=row["id"], name=row["name"], payload=msgspec.json.decode(row["payload"]))


def page(connection: sqlite3.Connection, request: ListReceivedRequest) -> ListReceivedResult:
    """List requests, newest first."""
    values = {
        "after": tables.after(request.cursor) or 2**62,
        "receiver": tables.stored(request.receiver),
        "status": tables.stored(request.status),
        "from": None if request.received_from is UNSET else request.received_from.timestamp(),
        "until": None if request.received_until is UNSET else request.received_until.timestamp(),
        "limit": request.limit + 1,
    }
    found = connection.execute(
        "SELECT r.*, o.id AS receiver_id FROM received r JOIN receivers o ON o.seq = r.receiver WHERE r.seq < :after"
        " AND (:receiver IS NULL OR o.id = :receiver) AND (:status IS NULL OR r.status = :status)"
        " AND (:from IS NULL OR r.received_at >= :from) AND (:until IS NULL OR r.received_at < :until)"
        " ORDER BY r.seq DESC LIMIT :limit",
        values,
    ).fetchall()
    result = ListReceivedResult(received=[_shown(row) for row in found[: request.limit]])
    if len(found) > request.limit:
        result.next_cursor = str(found[request.limit - 1]["seq"])
    return result


def _shown(row: sqlite3.Row) -> Received:
    return Received(
        id=row["id"],
        receiver=row["receiver_id"],
        name=tables.known(row["name"]),
        status=row["status"],
        reason=tables.known(row["reason"]),
        received_at=tables.instant(row["received_at"]),
    )


def of_period(connection: sqlite3.Connection, request: ReplayReceivedRequest, now: float) -> list[ReceivedMessage]:
    """The messages of a receiver in a period, in the order they came.

    Raises:
        ProviderError: ``not_found``; ``invalid_argument`` when there are too many for one call.
    """
    receiver = receivers.row_of(connection, request.receiver)
    until = now if request.received_until is UNSET else request.received_until.timestamp()
    found = connection.execute(
        "SELECT * FROM received WHERE receiver = ? AND status = 'published' AND received_at >= ? AND received_at < ?"
        " ORDER BY seq LIMIT ?",
        (receiver["seq"], request.received_from.timestamp(), until, MAX_REPLAYED + 1),
    ).fetchall()
    if len(found) > MAX_REPLAYED:
        message = f"More than {MAX_REPLAYED} messages were received in this time. Choose a shorter one."
        raise tables.invalid("/params/received_until", message)
    return [message_of(row) for row in found]
