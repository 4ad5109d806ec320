"""The chain of a tenant's audit records and how it is checked. Standard library only, like ``merkle``."""

from __future__ import annotations

import json
from hashlib import sha256

from erp.control_plane.merkle import CompactRange, leaf_hash

GENESIS = bytes(32)
"""``prev_hash`` of a tenant's first audit record."""

DELETION = "audit.delete"
"""Action of the records that say which others were lawfully deleted."""
_SIGN_OF_DELETION = b'"audit.delete"'


def chained(previous: bytes, record: bytes) -> bytes:
    """Return the hash of an audit record: SHA-256 of the hash before it and its own bytes."""
    return sha256(previous + record).digest()


class BrokenChainError(ValueError):
    """A record is not what was written there."""

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(reason)
        self.seq = seq
        self.reason = reason


class ChainCheck:
    """Takes records in their order and finds the first that does not fit. Its memory is one bit for each record."""

    def __init__(self) -> None:
        self.seq = 0
        self.hash = GENESIS
        self.tree = CompactRange()
        self.deleted = 0
        self._emptied = _Numbers()
        self._covered = _Numbers()

    def take(self, seq: int, record: bytes, prev_hash: bytes, digest: bytes) -> list[tuple[int, int, bytes]]:
        """Check the next record; return the subtrees that it has filled, as ``CompactRange.append`` does.

        Raises:
            BrokenChainError: it is not the next one, or not what was written.
        """
        wanted = self.seq + 1
        if seq != wanted:
            raise BrokenChainError(wanted, f"record {wanted} is missing")
        if prev_hash != self.hash:
            raise BrokenChainError(wanted, "the record does not follow from the one before it")
        if not record:
            self.deleted += 1
            self._emptied.add(seq, seq)
        elif digest != chained(prev_hash, record):
            raise BrokenChainError(wanted, "the record was changed")
        elif _SIGN_OF_DELETION in record:
            self._note_deletion(seq, record)
        self.seq, self.hash = seq, digest
        return self.tree.append(leaf_hash(digest))

    def _note_deletion(self, seq: int, record: bytes) -> None:
        entry = json.loads(record)
        if entry.get("action") == DELETION:
            for first, last in entry["detail"]["ranges"]:
                self._covered.add(first, min(last, seq - 1))

    def check_deletions(self) -> None:
        """Pass when a record says of every empty one that it was lawfully deleted.

        Raises:
            BrokenChainError: one was emptied without saying so.
        """
        seq = self._emptied.first_without(self._covered)
        if seq is not None:
            raise BrokenChainError(seq, "the record was emptied, and no record says that it was lawfully deleted")


class _Numbers:
    """A set of numbers from 1 on, as bits."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, first: int, last: int) -> None:
        if len(self._bits) <= last >> 3:
            self._bits.extend(bytes((last >> 3) + 1 - len(self._bits)))
        for number in range(first, last + 1):
            self._bits[number >> 3] |= 1 << (number & 7)

    def first_without(self, others: _Numbers) -> int | None:
        """Return the least number that is not among ``others``."""
        for place, bits in enumerate(self._bits):
            left = bits & ~(others._bits[place] if place < len(others._bits) else 0)
            if left:
                return (place << 3) + (left & -left).bit_length() - 1
        return None
