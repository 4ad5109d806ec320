"""Merkle trees as RFC 9162, section 2.1 defines them (SHA-256): appended to, proved from, checked against.

Standard library only: who has an export checks it with this module and a public key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY = sha256(b"").digest()
"""The root of the tree without leaves (section 2.1.1)."""

TILE_LEVELS = 8
"""Every so many levels the roots of full subtrees are kept: a proof reads at most 256 hashes per so many levels."""

Subtree = tuple[int, int]
"""Level and index of a full subtree: it covers the leaves from ``index << level`` on, ``1 << level`` of them."""


class InvalidProofError(ValueError):
    """What a proof should show does not follow from it."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf (section 2.1.1)."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above two others (section 2.1.1)."""
    return sha256(b"\1" + left + right).digest()


class CompactRange:
    """All that appending needs to know of a tree: the roots of its full subtrees, the largest first."""

    __slots__ = ("roots", "size")

    def __init__(self, size: int = 0, roots: bytes = b"") -> None:
        """``roots``: what ``packed`` returned of a tree of ``size`` leaves."""
        if len(roots) != size.bit_count() * HASH_BYTES:
            message = f"A tree of {size} leaves has {size.bit_count()} full subtrees, not {len(roots) / HASH_BYTES:g}."
            raise ValueError(message)
        self.size = size
        self.roots = [roots[start : start + HASH_BYTES] for start in range(0, len(roots), HASH_BYTES)]

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add the hash of a leaf; return level, index and root of each subtree to be kept that it has filled."""
        size, level, found = self.size, 0, leaf
        filled: list[tuple[int, int, bytes]] = []
        while size >> level & 1:
            found = node_hash(self.roots.pop(), found)
            level += 1
            if level % TILE_LEVELS == 0:
                filled.append((level, size >> level, found))
        self.roots.append(found)
        self.size = size + 1
        return filled

    def root(self) -> bytes:
        """Return the root of the whole tree."""
        return joined(self.roots) if self.roots else EMPTY

    def packed(self) -> bytes:
        """Return the roots as bytes."""
        return b"".join(self.roots)


def joined(roots: Sequence[bytes]) -> bytes:
    """Return the root over full subtrees that stand side by side, the largest first."""
    found = roots[-1]
    for left in reversed(roots[:-1]):
        found = node_hash(left, found)
    return found


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root over a power of two of nodes of one level."""
    row = hashes
    while len(row) > 1:
        row = [node_hash(row[place], row[place + 1]) for place in range(0, len(row), 2)]
    return row[0]


# -- proofs --------------------------------------------------------------------------------------


def full_subtrees(begin: int, end: int) -> Iterator[Subtree]:
    """Return the full subtrees that make up the leaves from ``begin`` to ``end``, left to right."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        yield level, begin >> level
        begin += 1 << level


def proof(ranges: Sequence[tuple[int, int]], subtree: Callable[[Subtree], bytes]) -> list[bytes]:
    """Return the hash over each of ``ranges`` of leaves; ``subtree`` knows the roots of full subtrees."""
    return [joined([subtree(one) for one in full_subtrees(begin, end)]) for begin, end in ranges]


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """Return which leaves each hash covers that proves leaf ``index`` to be in a tree of ``size`` (section 2.1.3.1)."""
    begin, end = 0, size
    ranges: list[tuple[int, int]] = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return ranges[::-1]


def consistency_ranges(first: int, size: int) -> list[tuple[int, int]]:
    """Return which leaves each hash covers that proves a tree of ``first`` to begin one of ``size`` (section 2.1.4.1)."""
    begin, end = 0, size
    is_left_edge = True
    ranges: list[tuple[int, int]] = []
    while first != end:
        middle = begin + _split(end - begin)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin, is_left_edge = middle, False
    if not is_left_edge:
        ranges.append((begin, end))
    return ranges[::-1]


def _split(width: int) -> int:
    """Return the largest power of two below ``width``."""
    return 1 << (width - 1).bit_length() - 1


# -- checks --------------------------------------------------------------------------------------


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Pass when ``leaf`` is number ``index`` of the tree with ``root`` (section 2.1.3.2).

    Raises:
        InvalidProofError: it is not shown to be.
    """
    if not 0 <= index < size:
        message = f"A tree of {size} leaves has no leaf {index}."
        raise InvalidProofError(message)
    place, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            message = "The proof is too long."
            raise InvalidProofError(message)
        if place & 1 or place == last:
            found = node_hash(step, found)
            place, last = _risen(place, last)
        else:
            found = node_hash(found, step)
        place, last = place >> 1, last >> 1
    _check_end(last, fits=found == root)


def check_consistency(first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]) -> None:
    """Pass when the tree of ``first`` leaves is the beginning of that of ``second`` (section 2.1.4.2).

    Raises:
        InvalidProofError: it is not shown to be.
    """
    if not 0 < first <= second:
        message = f"A tree of {first} leaves is no beginning of one of {second} that could be proved."
        raise InvalidProofError(message)
    if first == second:
        _check_end(len(path), fits=first_root == second_root)
        return
    if not path:
        message = "The proof is empty."
        raise InvalidProofError(message)
    # A tree that is one full subtree is where the path begins; of any other, the path names its rightmost one.
    begins, *steps = list(path) if first & (first - 1) else [first_root, *path]
    level = ((first - 1) ^ first).bit_length() - 1
    old = new = begins
    place, last = first - 1 >> level, second - 1 >> level
    for step in steps:
        if last == 0:
            message = "The proof is too long."
            raise InvalidProofError(message)
        if place & 1 or place == last:
            old, new = node_hash(step, old), node_hash(step, new)
            place, last = _risen(place, last)
        else:
            new = node_hash(new, step)
        place, last = place >> 1, last >> 1
    _check_end(last, fits=old == first_root and new == second_root)


def _risen(place: int, last: int) -> tuple[int, int]:
    """Return both on the level below which nothing stands to the right of them."""
    while place and not place & 1:
        place, last = place >> 1, last >> 1
    return place, last


def _check_end(left: int, *, fits: bool) -> None:
    if left or not fits:
        message = "The proof is too short or too long." if left else "The hashes do not lead to the root."
        raise InvalidProofError(message)
