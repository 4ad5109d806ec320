"""What consumers do with what they were given: confirm, give back, move, requeue."""

from __future__ import annotations

import datetime
import sqlite3
import time
from typing import Any

import msgspec

from erp.contracts.models.bus import CloudEvent, DeadLetter, LagResult, ReplayRequest
from erp.providers.bus.log.tables import Taken
from erp.runtime.spi import UNSET, ErrorCode, FieldError, ProviderError

KEYED = "k"
"""Ends the ack id of an event with a key: when it is confirmed, the next one of the key may be due."""

_CONFIRM = "DELETE FROM deliveries WHERE id = ? AND count = ?"
_decode = msgspec.json.Decoder(CloudEvent).decode


Changed = tuple[int, set[str]]
"""How many, and the topics where an event may have become due by it."""


def acknowledge(connection: sqlite3.Connection, ack_ids: list[str]) -> Changed:
    """Confirm deliveries that are still those of the caller; the next events of their keys become due."""
    keyed = [_delivery(text) for text in ack_ids if text.endswith(KEYED)]
    plain = [_delivery(text) for text in ack_ids if not text.endswith(KEYED)]
    found = [row for one in keyed for row in connection.execute(f"{_CONFIRM} RETURNING topic", one).fetchall()]
    confirmed = connection.executemany(_CONFIRM, plain).rowcount if plain else 0
    return confirmed + len(found), {topic for (topic,) in found}


def give_back(connection: sqlite3.Connection, ack_ids: list[str], delay_seconds: float, reason: str | None) -> Changed:
    """Make deliveries due again after a pause."""
    statement = "UPDATE deliveries SET visible_at = ?, reason = ? WHERE id = ? AND count = ? RETURNING topic"
    due = time.time() + delay_seconds
    found = [
        row for text in ack_ids for row in connection.execute(statement, (due, reason, *_delivery(text))).fetchall()
    ]
    return len(found), {row[0] for row in found}


def ack_id(item: Taken) -> str:
    """Return what a consumer confirms an event with; good for this delivery of it alone."""
    return f"{item.id}.{item.count}{'' if item.key is None else KEYED}"


def _delivery(ack_id: str) -> tuple[int, int]:
    number, _, count = ack_id.removesuffix(KEYED).partition(".")
    if number.isascii() and number.isdigit() and count.isascii() and count.isdigit() and len(ack_id) <= 32:  # noqa: PLR2004
        return int(number), int(count)
    return -1, -1


def position(text: Any, pointer: str) -> int:
    """Return a position or cursor that this provider gave; unset is 0."""
    if text is UNSET:
        return 0
    if text.isascii() and text.isdigit() and len(text) < 19:  # noqa: PLR2004  (digits of a 64-bit number)
        return int(text)
    error = FieldError(pointer, "Use a value that this provider gave, unchanged.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A position is not valid.", errors=[error])


def dead(
    connection: sqlite3.Connection, topic: str | None, group: str | None, after: int, limit: int
) -> list[DeadLetter]:
    """Return dead letters by age."""
    rows = connection.execute(
        "SELECT id, topic, name, position, body, count, died_at, reason FROM dead"
        " WHERE id > ? AND (? IS NULL OR topic = ?) AND (? IS NULL OR name = ?) ORDER BY id LIMIT ?",
        (after, topic, topic, group, group, limit),
    )
    return [
        DeadLetter(
            id=str(row[0]),
            topic=row[1],
            group=row[2],
            position=str(row[3]),
            event=_decode(row[4]),
            deliveries=row[5],
            died_at=datetime.datetime.fromtimestamp(row[6], datetime.UTC),
            reason=UNSET if row[7] is None else row[7],
        )
        for row in rows
    ]


def requeue(connection: sqlite3.Connection, ids: list[str]) -> Changed:
    """Make dead letters due again for their group, with their deliveries counted anew."""
    topics: list[str] = []
    for number in _numbers(ids):
        made = connection.execute(
            "INSERT OR IGNORE INTO deliveries (topic, name, position, key, visible_at, count)"
            " SELECT d.topic, d.name, d.position, d.key, 0, 0 FROM dead d JOIN events e ON e.position = d.position"
            " WHERE d.id = ? RETURNING topic",
            (number,),
        ).fetchall()
        topics += [row[0] for row in made]
        connection.execute("DELETE FROM dead WHERE id = ? AND position IN (SELECT position FROM deliveries)", (number,))
    return len(topics), set(topics)


def discard(connection: sqlite3.Connection, ids: list[str]) -> int:
    """Remove dead letters."""
    return sum(connection.execute("DELETE FROM dead WHERE id = ?", (number,)).rowcount for number in _numbers(ids))


def _numbers(ids: list[str]) -> list[int]:
    return [int(text) for text in ids if text.isascii() and text.isdigit() and len(text) < 19]  # noqa: PLR2004


def move(connection: sqlite3.Connection, request: ReplayRequest) -> int:
    """Set how far a group has been given events; what it holds after that is taken back."""
    if (request.from_time is UNSET) == (request.from_position is UNSET):
        error = FieldError("/params/from_time", "Give from_time or from_position, one of them.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "Say where to replay from.", errors=[error])
    if request.from_time is UNSET:
        target = position(request.from_position, "/params/from_position")
    else:
        before = "SELECT coalesce(max(position), 0) FROM events WHERE topic = ? AND published_at < ?"
        target = connection.execute(before, (request.topic, request.from_time.timestamp())).fetchone()[0]
    connection.execute("INSERT OR REPLACE INTO groups VALUES (?, ?, ?)", (request.topic, request.group, target))
    connection.execute(
        "DELETE FROM deliveries WHERE topic = ? AND name = ? AND position > ?", (request.topic, request.group, target)
    )
    return int(target)


def lag(connection: sqlite3.Connection, topic: str, group: str) -> LagResult:
    """Count what a group has not been given and what it has not confirmed."""
    taken = connection.execute("SELECT taken FROM groups WHERE topic = ? AND name = ?", (topic, group)).fetchone()
    after = taken[0] if taken else 0
    waiting, oldest = connection.execute(
        "SELECT count(*), min(published_at) FROM events WHERE topic = ? AND position > ?", (topic, after)
    ).fetchone()
    held, held_oldest = connection.execute(
        "SELECT count(*), min(e.published_at) FROM deliveries d JOIN events e ON e.position = d.position"
        " WHERE d.topic = ? AND d.name = ?",
        (topic, group),
    ).fetchone()
    ages = [age for age in (oldest, held_oldest) if age is not None]
    seconds = max(time.time() - min(ages), 0.0) if ages else UNSET
    return LagResult(waiting=waiting, unacknowledged=held, oldest_seconds=seconds)
