"""The tables of the log and the statements on them. All run in one thread, each batch in one transaction.

``events`` holds what was published. ``groups`` holds how far each group has been given the events of a
topic. ``deliveries`` holds what was taken for a group and not yet confirmed; it becomes due again at
``visible_at``. ``dead`` holds what was delivered too often. Times are seconds since the epoch.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

MAX_ROUNDS = 20
SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, event_id TEXT NOT NULL,
    key TEXT, body BLOB NOT NULL, published_at REAL NOT NULL, UNIQUE (topic, event_id)
);
CREATE INDEX IF NOT EXISTS events_of_topic ON events (topic, position);
CREATE INDEX IF NOT EXISTS events_by_age ON events (published_at);
CREATE TABLE IF NOT EXISTS groups (
    topic TEXT NOT NULL, name TEXT NOT NULL, taken INTEGER NOT NULL, PRIMARY KEY (topic, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL,
    key TEXT, visible_at REAL NOT NULL, count INTEGER NOT NULL, reason TEXT, UNIQUE (topic, name, position)
);
CREATE INDEX IF NOT EXISTS deliveries_by_key ON deliveries (topic, name, key, position);
CREATE TABLE IF NOT EXISTS dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL,
    key TEXT, body BLOB NOT NULL, count INTEGER NOT NULL, died_at REAL NOT NULL, reason TEXT
);
"""
_TAKE = """
INSERT OR IGNORE INTO deliveries (topic, name, position, key, visible_at, count)
SELECT topic, ?, position, key, 0, 0 FROM events WHERE topic = ? AND position > ? ORDER BY position LIMIT ?
"""
_CHUNK_END = """
SELECT max(position) FROM (SELECT position FROM events WHERE topic = ? AND position > ? ORDER BY position LIMIT ?)
"""
_DUE = """
SELECT d.id, d.position, d.key, d.count, e.body FROM deliveries d JOIN events e ON e.position = d.position
WHERE d.topic = ? AND d.name = ? AND d.visible_at <= ?
  AND (d.key IS NULL OR NOT EXISTS (
    SELECT 1 FROM deliveries b WHERE b.topic = d.topic AND b.name = d.name AND b.key = d.key
      AND b.position < d.position AND b.visible_at > ?))
ORDER BY d.position LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be appended."""

    topic: str
    event_id: str
    key: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many events are given, for how long, and how often at most."""

    limit: int
    visible_seconds: float
    max_deliveries: int


@dataclass(frozen=True, slots=True)
class Taken:
    """An event given to a group."""

    id: int
    position: int
    key: str | None
    count: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Died:
    """An event set aside during a pull."""

    body: bytes
    count: int


def connect(path: str) -> sqlite3.Connection:
    """Open the file, durable and with its tables."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.executescript(SCHEMA)
    return connection


def append(connection: sqlite3.Connection, events: list[NewEvent]) -> list[tuple[int, bool]]:
    """Append ``events``; return position and whether it was there before, for each."""
    now = time.time()
    found = []
    for event in events:
        cursor = connection.execute(
            "INSERT INTO events (topic, event_id, key, body, published_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (topic, event_id) DO NOTHING",
            (event.topic, event.event_id, event.key, event.body, now),
        )
        if cursor.rowcount:
            found.append((int(cursor.lastrowid or 0), False))
            continue
        where = (event.topic, event.event_id)
        row = connection.execute("SELECT position FROM events WHERE topic = ? AND event_id = ?", where).fetchone()
        found.append((row[0], True))
    return found


def take(connection: sqlite3.Connection, topic: str, group: str, bounds: Bounds) -> tuple[list[Taken], list[Died]]:
    """Give up to ``bounds.limit`` events to ``group``; set aside those that were given too often.

    Goes on while all it finds waits for an earlier event of its key or is set aside, but not without end.
    """
    given: list[Taken] = []
    died: list[Died] = []
    for _ in range(MAX_ROUNDS):
        extended = _extend(connection, topic, group, bounds.limit)
        given, buried = _give(connection, topic, group, bounds)
        died += buried
        if given or not (extended or buried):
            break
    return given, died


def _extend(connection: sqlite3.Connection, topic: str, group: str, limit: int) -> bool:
    """Take the next events of the topic for the group; return whether there were any."""
    taken_to = connection.execute("SELECT taken FROM groups WHERE topic = ? AND name = ?", (topic, group)).fetchone()[0]
    reached = connection.execute(_CHUNK_END, (topic, taken_to, limit)).fetchone()[0]
    if reached is None:
        return False
    connection.execute(_TAKE, (group, topic, taken_to, limit))
    connection.execute("UPDATE groups SET taken = ? WHERE topic = ? AND name = ?", (reached, topic, group))
    return True


def _give(connection: sqlite3.Connection, topic: str, group: str, bounds: Bounds) -> tuple[list[Taken], list[Died]]:
    now = time.time()
    given, died = [], []
    for row in connection.execute(_DUE, (topic, group, now, now, bounds.limit)).fetchall():
        if row[3] >= bounds.max_deliveries:
            _bury(connection, row[0], now)
            died.append(Died(row[4], row[3]))
            continue
        visible = (now + bounds.visible_seconds, row[0])
        connection.execute("UPDATE deliveries SET visible_at = ?, count = count + 1 WHERE id = ?", visible)
        given.append(Taken(row[0], row[1], row[2], row[3] + 1, row[4]))
    return given, died


def put_back(connection: sqlite3.Connection, unseen: list[Taken]) -> None:
    """Make events due again that were taken and never handed on; this does not count as a delivery."""
    statement = "UPDATE deliveries SET visible_at = 0, count = count - 1 WHERE id = ? AND count = ?"
    connection.executemany(statement, [(item.id, item.count) for item in unseen])


def _bury(connection: sqlite3.Connection, delivery: int, now: float) -> None:
    connection.execute(
        "INSERT INTO dead (topic, name, position, key, body, count, died_at, reason)"
        " SELECT d.topic, d.name, d.position, d.key, e.body, d.count, ?, d.reason"
        " FROM deliveries d JOIN events e ON e.position = d.position WHERE d.id = ?",
        (now, delivery),
    )
    connection.execute("DELETE FROM deliveries WHERE id = ?", (delivery,))


def ensure_group(connection: sqlite3.Connection, topic: str, group: str, *, from_earliest: bool) -> None:
    """Create the group where it does not exist, at the beginning or the end of the topic."""
    known = connection.execute("SELECT 1 FROM groups WHERE topic = ? AND name = ?", (topic, group)).fetchone()
    if known is None:
        end = "SELECT coalesce(max(position), 0) FROM events WHERE topic = ?"
        start = 0 if from_earliest else connection.execute(end, (topic,)).fetchone()[0]
        connection.execute("INSERT INTO groups VALUES (?, ?, ?)", (topic, group, start))


def next_due(connection: sqlite3.Connection, topic: str, group: str) -> float | None:
    """Return when it is worth looking again, if nothing else happens: 0 is at once, None is never."""
    more = (
        "SELECT 1 FROM events e JOIN groups g ON g.topic = e.topic AND e.position > g.taken"
        " WHERE g.topic = ? AND g.name = ? LIMIT 1"
    )
    if connection.execute(more, (topic, group)).fetchone():
        return 0.0
    # What is due already and was not given waits for an earlier event of its key, which is not due.
    statement = "SELECT min(visible_at) FROM deliveries WHERE topic = ? AND name = ? AND visible_at > ?"
    due: float | None = connection.execute(statement, (topic, group, time.time())).fetchone()[0]
    return due


def forget(connection: sqlite3.Connection, older_than_seconds: float) -> None:
    """Remove events older than that, and their deliveries."""
    before = time.time() - older_than_seconds
    old = "SELECT position FROM events WHERE published_at < ?"
    connection.execute(f"DELETE FROM deliveries WHERE position IN ({old})", (before,))  # noqa: S608  (a constant)
    connection.execute("DELETE FROM events WHERE published_at < ?", (before,))
    connection.execute("DELETE FROM dead WHERE died_at < ?", (before,))


def oldest(connection: sqlite3.Connection) -> float | None:
    """Return when the oldest thing that is kept was published or set aside; None when nothing is kept."""
    published = connection.execute("SELECT min(published_at) FROM events").fetchone()[0]
    died = connection.execute("SELECT min(died_at) FROM dead").fetchone()[0]
    return min((time_ for time_ in (published, died) if time_ is not None), default=None)
