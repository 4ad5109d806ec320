"""What became of the records of one partition since its committed offset: Kafka itself knows only that offset.

A partition belongs to one process of a group. So this process knows everything that is under way in it: which record
is with a consumer, until when, how often it was given, and which keys have to wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Entry:
    """A record that is not confirmed, or one behind an earlier one that is not."""

    record: Any
    key: bytes | None
    due_at: float = 0.0
    """Monotonic time from which it may be given."""
    deliveries: int = 0
    is_done: bool = False


@dataclass(slots=True)
class Partition:
    """The records of a partition between the committed offset and the last one read."""

    entries: dict[int, Entry] = field(default_factory=dict)
    """By offset, in order."""

    def add(self, record: Any) -> None:
        """Take a record that was read."""
        self.entries[record.offset] = Entry(record, record.key)

    def due(self) -> Iterable[Entry]:
        """Yield what may be given now: of a key nothing behind a record that is with a consumer or waits."""
        now = time.monotonic()
        held: set[bytes] = set()
        for entry in list(self.entries.values()):
            if entry.is_done or entry.key in held:
                continue
            if entry.due_at <= now:
                yield entry
            elif entry.key is not None:
                held.add(entry.key)

    @property
    def waiting(self) -> int:
        """How many records nobody has been given yet."""
        return sum(not entry.deliveries for entry in self.entries.values())

    def settle(self, offsets: Iterable[int]) -> int | None:
        """Note that records are confirmed; return the offset to commit, None when it stays."""
        for offset in offsets:
            self.entries[offset].is_done = True
        committed = None
        for offset, entry in list(self.entries.items()):
            if not entry.is_done:
                break
            del self.entries[offset]
            committed = offset + 1
        return committed
