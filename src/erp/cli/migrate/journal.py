"""What a migration has done so far, in a SQLite file beside whoever runs it: a killed one goes on from there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from erp.cli.migrate.passes import WIDTH

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS seen (name TEXT PRIMARY KEY, pass INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS published (
    number INTEGER PRIMARY KEY, topic TEXT NOT NULL, id TEXT NOT NULL, position TEXT NOT NULL, sha256 TEXT NOT NULL,
    read_back INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, id)
);
"""


class JournalError(Exception):
    """The file cannot be used. The message says what to do."""


class Journal:
    """Facts by name, and what a copier has seen. Everything said within ``step`` is kept, or none of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = sqlite3.connect(path, isolation_level=None, timeout=0)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._file.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            message = f"{path} cannot be used: {error}. Another run may hold it; else name another file with --journal."
            raise JournalError(message) from None
        except sqlite3.DatabaseError:
            raise JournalError(f"{path} is no journal of a migration: name another file with --journal.") from None

    def begin(self, plan: dict[str, Any]) -> bool:
        """Take the migration up; return whether it had begun before.

        Raises:
            JournalError: the file is about another migration.
        """
        known = self.fact("plan")
        if known is not None and known != plan:
            message = (
                f"{self.path} is about another migration: {known}. Name another file with --journal, or remove it."
            )
            raise JournalError(message)
        self.note("plan", plan)
        return known is not None

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Keep all that the block notes at once."""
        self._file.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    def fact(self, name: str, default: Any = None) -> Any:
        """Return what was noted under ``name``."""
        row = self._file.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def note(self, name: str, value: Any) -> None:
        """Note a fact, whatever it was before."""
        self._file.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def forget(self, name: str) -> None:
        """Forget a fact."""
        self._file.execute("DELETE FROM facts WHERE name = ?", (name,))

    def see(self, name: str, number: int) -> None:
        """Note that a name was there in a pass."""
        self._file.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (name, number))

    def was_seen(self, name: str, number: int) -> bool:
        """Whether a name was there in a pass."""
        return (
            self._file.execute("SELECT 1 FROM seen WHERE name = ? AND pass = ?", (name, number)).fetchone() is not None
        )

    # -- events ----------------------------------------------------------------------------------

    def publish(self, topic: str, id_: str, position: str, sha256: str) -> None:
        """Note that an event is at the target, and where; they are noted in the order of the topic."""
        statement = "INSERT OR IGNORE INTO published (topic, id, position, sha256) VALUES (?, ?, ?, ?)"
        self._file.execute(statement, (topic, id_, position, sha256))

    def position(self, topic: str, id_: str) -> str | None:
        """Return where an event is at the target; None when it is not there yet."""
        return self._one("SELECT position FROM published WHERE topic = ? AND id = ?", topic, id_)

    def checksum(self, topic: str, id_: str) -> str | None:
        """Return the checksum of an event that was published; None for one that was not."""
        return self._one("SELECT sha256 FROM published WHERE topic = ? AND id = ?", topic, id_)

    def last_position(self, topic: str) -> str | None:
        """Return where the newest event is at the target."""
        return self._one("SELECT position FROM published WHERE topic = ? ORDER BY number DESC LIMIT 1", topic)

    def position_before(self, topic: str, id_: str) -> str | None:
        """Return where the event before this one is at the target; None when this is the first, or is not known."""
        own = "SELECT number FROM published WHERE topic = ? AND id = ?"
        query = f"SELECT position FROM published WHERE topic = ? AND number < ({own}) ORDER BY number DESC LIMIT 1"  # noqa: S608  (constant)
        return self._one(query, topic, topic, id_)

    def topic(self, topic: str) -> tuple[int, int]:
        """Return how many events of a topic were published, and the sum of their checksums."""
        rows = self._file.execute("SELECT sha256 FROM published WHERE topic = ?", (topic,)).fetchall()
        return len(rows), sum(int(text, 16) for (text,) in rows) % WIDTH

    def read_back(self, topic: str, id_: str) -> None:
        """Note that an event was received from the target."""
        self._file.execute("UPDATE published SET read_back = 1 WHERE topic = ? AND id = ?", (topic, id_))

    def not_read_back(self, topic: str) -> int:
        """Return how many events were not received from the target."""
        query = "SELECT count(*) FROM published WHERE topic = ? AND read_back = 0"
        return int(self._file.execute(query, (topic,)).fetchone()[0])

    def _one(self, query: str, *values: str) -> str | None:
        row = self._file.execute(query, values).fetchone()
        return row[0] if row else None
