"""The tables of the log and the statements on them. All run in one thread, each batch in one transaction.

``events`` holds what was published. ``groups`` holds how far each group has been given the events of a
topic. ``deliveries`` holds what was taken for a group and not yet confirmed; it becomes due again at
``visible_at``. ``dead`` holds what was delivered too often. Times are seconds since the epoch.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

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
CREATE INDEX IF NOT EXISTS deliveries_by_key ON deliveries (topic, name, key, position) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS deliveries_by_time ON deliveries (topic, name, visible_at);
CREATE TABLE IF NOT EXISTS dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL,
    key TEXT, body BLOB NOT NULL, count INTEGER NOT NULL, died_at REAL NOT NULL, reason TEXT
);
"""
_APPEND = """
INSERT INTO events (topic, event_id, key, body, published_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (topic, event_id) DO NOTHING
"""
_END = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'"
_KNOWN = "SELECT position FROM events WHERE topic = ? AND event_id = ?"
_NEXT = "SELECT position, key, body FROM events WHERE topic = ? AND position > ? ORDER BY position LIMIT ?"
_HOLD = """
INSERT OR IGNORE INTO deliveries (topic, name, position, key, visible_at, count) VALUES (?, ?, ?, ?, ?, ?)
"""
_HOLD_ALL = """
INSERT OR IGNORE INTO deliveries (topic, name, position, key, visible_at, count)
SELECT topic, ?, position, key, ?, 1 FROM events WHERE topic = ? AND position > ? AND position <= ? ORDER BY position
RETURNING id, position
"""
_EARLIER = "SELECT 1 FROM deliveries WHERE topic = ? AND name = ? AND key = ? LIMIT 1"
_DUE = """
SELECT d.id, d.position, d.key, d.count, e.body FROM deliveries d JOIN events e ON e.position = d.position
WHERE d.topic = ? AND d.name = ? AND d.visible_at <= ?
  AND (d.key IS NULL OR NOT EXISTS (
    SELECT 1 FROM deliveries b WHERE b.topic = d.topic AND b.name = d.name AND b.key = d.key
      AND b.position < d.position AND b.visible_at > ?))
ORDER BY d.position LIMIT ?
"""


class NewEvent(NamedTuple):
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


class Taken(msgspec.Struct, frozen=True):
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


def append(connection: sqlite3.Connection, events: Sequence[NewEvent]) -> list[tuple[int, bool]]:
    """Append ``events``; return position and whether it was there before, for each."""
    now = time.time()
    before: int = connection.execute(_END).fetchone()[0]
    added = connection.executemany(_APPEND, [(*event, now) for event in events]).rowcount
    if added == len(events):
        # One connection inside one transaction: AUTOINCREMENT has counted on by one for each.
        end: int = connection.execute("SELECT last_insert_rowid()").fetchone()[0]
        return [(position, False) for position in range(end - added + 1, end + 1)]
    return _looked_up(connection, events, before)


def _looked_up(connection: sqlite3.Connection, events: Sequence[NewEvent], before: int) -> list[tuple[int, bool]]:
    """Return where events are, of which some were known; ``before`` is where the log ended."""
    found = []
    seen: set[int] = set()
    for event in events:
        position: int = connection.execute(_KNOWN, event[:2]).fetchone()[0]
        found.append((position, position <= before or position in seen))
        seen.add(position)
    return found


def take(
    connection: sqlite3.Connection, topic: str, group: str, bounds: Bounds, *, from_earliest: bool
) -> tuple[list[Taken], list[Died]]:
    """Give up to ``bounds.limit`` events to ``group``; set aside those that were given too often.

    A group that does not exist begins at the beginning or the end of the topic. Goes on while all it finds waits for
    an earlier event of its key or is set aside, but not without end.
    """
    taken_to = _ensured(connection, topic, group, from_earliest=from_earliest)
    died: list[Died] = []
    for _ in range(MAX_ROUNDS):
        given, buried = _give(connection, topic, group, bounds)
        died += buried
        before = taken_to
        if len(given) < bounds.limit:
            taken_to, new = _extend(connection, topic, group, taken_to, bounds, bounds.limit - len(given))
            given += new
        if given or (taken_to == before and not buried):
            return given, died
    return [], died


def _give(connection: sqlite3.Connection, topic: str, group: str, bounds: Bounds) -> tuple[list[Taken], list[Died]]:
    """Give what became due again."""
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


def _extend(
    connection: sqlite3.Connection, topic: str, group: str, taken_to: int, bounds: Bounds, limit: int
) -> tuple[int, list[Taken]]:
    """Take the next events of the topic for the group; return how far it has come, and those that need not wait.

    Of one key, several are given together when nothing earlier of it is with a consumer: they stay in order.
    """
    rows = connection.execute(_NEXT, (topic, taken_to, limit)).fetchall()
    if not rows:
        return taken_to, []
    reached: int = rows[-1][0]
    visible_at = time.time() + bounds.visible_seconds
    if any(key is not None for _, key, _ in rows):
        given = _held_in_order(connection, topic, group, rows, visible_at)
    else:
        found = connection.execute(_HOLD_ALL, (group, visible_at, topic, taken_to, reached)).fetchall()
        bodies = {position: body for position, _, body in rows}
        given = [Taken(number, at, None, 1, bodies[at]) for number, at in sorted(found)]
    connection.execute("UPDATE groups SET taken = ? WHERE topic = ? AND name = ?", (reached, topic, group))
    return reached, given


def _held_in_order(
    connection: sqlite3.Connection, topic: str, group: str, rows: list[tuple[int, str | None, bytes]], visible_at: float
) -> list[Taken]:
    given: list[Taken] = []
    in_order: set[str | None] = {None}
    for position, key, body in rows:
        if key not in in_order and not _is_behind(connection, topic, group, key):
            in_order.add(key)
        state = (visible_at, 1) if key in in_order else (0, 0)
        cursor = connection.execute(_HOLD, (topic, group, position, key, *state))
        if key in in_order and cursor.rowcount:
            given.append(Taken(int(cursor.lastrowid or 0), position, key, 1, body))
    return given


def _is_behind(connection: sqlite3.Connection, topic: str, group: str, key: str | None) -> bool:
    """Whether the group has not confirmed an earlier event of the key."""
    return connection.execute(_EARLIER, (topic, group, key)).fetchone() is not None


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


def _ensured(connection: sqlite3.Connection, topic: str, group: str, *, from_earliest: bool) -> int:
    """Create the group where it does not exist; return how far it has come."""
    known = connection.execute("SELECT taken FROM groups WHERE topic = ? AND name = ?", (topic, group)).fetchone()
    if known is not None:
        return int(known[0])
    end = "SELECT coalesce(max(position), 0) FROM events WHERE topic = ?"
    start = 0 if from_earliest else int(connection.execute(end, (topic,)).fetchone()[0])
    connection.execute("INSERT INTO groups VALUES (?, ?, ?)", (topic, group, start))
    return start


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
