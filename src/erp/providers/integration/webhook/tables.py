"""The tables of one connection. Times are seconds since the epoch, secrets are in the vault and only their versions here."""

from __future__ import annotations

import datetime
import json
import sqlite3
from typing import Any

from msgspec import UNSET, UnsetType

from erp.runtime.spi import ErrorCode, FieldError, ProviderError

FILE = "webhooks.sqlite3"
SCHEMA = """
CREATE TABLE IF NOT EXISTS endpoints (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, url TEXT NOT NULL, title TEXT,
    event_types TEXT NOT NULL, max_per_second REAL, enabled INTEGER NOT NULL, disabled_reason TEXT,
    failing_since REAL, secret_version INTEGER, previous_version INTEGER, previous_until REAL,
    next_slot REAL NOT NULL DEFAULT 0, created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, body BLOB NOT NULL,
    traceparent TEXT, created_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_by_age ON messages (created_at);
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    message INTEGER NOT NULL REFERENCES messages (seq), endpoint INTEGER NOT NULL REFERENCES endpoints (seq),
    status TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0, due_at REAL,
    http_status INTEGER, UNIQUE (message, endpoint)
);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (endpoint, due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS attempts (
    message INTEGER NOT NULL, endpoint INTEGER NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL,
    status TEXT NOT NULL, http_status INTEGER, code TEXT, text TEXT, duration_ms REAL, excerpt TEXT,
    PRIMARY KEY (message, endpoint, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receivers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, scheme TEXT NOT NULL,
    path TEXT NOT NULL, generation INTEGER NOT NULL, enabled INTEGER NOT NULL,
    secret_version INTEGER, previous_version INTEGER, previous_until REAL, created_at REAL NOT NULL,
    last_received_at REAL
);
CREATE TABLE IF NOT EXISTS received (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, receiver INTEGER NOT NULL, id TEXT NOT NULL, name TEXT,
    status TEXT NOT NULL, reason TEXT, received_at REAL NOT NULL, payload BLOB
);
CREATE UNIQUE INDEX IF NOT EXISTS received_once ON received (receiver, id) WHERE status = 'published';
CREATE INDEX IF NOT EXISTS received_by_age ON received (receiver, received_at);
"""
"""``deliveries.tries`` counts attempts of the schedule, ``attempts`` all of them; ``due_at`` is null when none is planned.
While an attempt is under way ``due_at`` is the end of its lease."""

MAX_UNPUBLISHED = 1000
"""Refused and repeated requests remembered per receiver."""


def forget(connection: sqlite3.Connection, before: float) -> None:
    """Remove messages older than that which nobody waits for, and what was received before."""
    old = "SELECT m.seq FROM messages m WHERE m.created_at < ? AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.message = m.seq AND d.due_at IS NOT NULL)"
    connection.execute(f"DELETE FROM attempts WHERE message IN ({old})", (before,))  # noqa: S608  (a constant)
    doomed = [row[0] for row in connection.execute(old, (before,))]
    for table, column in (("deliveries", "message"), ("messages", "seq")):
        connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(seq,) for seq in doomed])  # noqa: S608
    connection.execute("DELETE FROM received WHERE received_at < ?", (before,))
    connection.execute(
        "DELETE FROM received WHERE seq IN (SELECT seq FROM (SELECT seq, row_number() OVER (PARTITION BY receiver"
        " ORDER BY seq DESC) AS place FROM received WHERE status <> 'published') WHERE place > ?)",
        (MAX_UNPUBLISHED,),
    )


def exact(seconds: float) -> float:
    """A time in whole microseconds, so that what an answer shows and a request names is the time that is stored."""
    return round(seconds, 6)


def moment(seconds: float | None) -> datetime.datetime | UnsetType:
    """A stored time as an answer has it; unset when there is none."""
    return UNSET if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def instant(seconds: float) -> datetime.datetime:
    """A stored time that is always there."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def known(value: Any) -> Any:
    """A stored value, unset when it is null."""
    return UNSET if value is None else value


def stored(value: Any) -> Any:
    """A value of a request, null when it is unset."""
    return None if value is UNSET else value


def names(text: str) -> list[str]:
    """Event types as they are stored."""
    found: list[str] = json.loads(text)
    return found


def after(cursor: str | UnsetType) -> int:
    """The place a cursor stands for; 0 is the beginning."""
    if isinstance(cursor, UnsetType):
        return 0
    if cursor.isascii() and cursor.isdigit() and len(cursor) < 19:  # noqa: PLR2004  (digits of a 64-bit number)
        return int(cursor)
    problem = FieldError("/params/cursor", "Use next_cursor of the page before, unchanged.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The cursor is not one this provider gave.", errors=[problem])


def invalid(pointer: str, message: str) -> ProviderError:
    """The refusal of one field of a request."""
    return ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError(pointer, message)])
