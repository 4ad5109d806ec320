"""What the mirrors of a shadow route answer, compared with what its callers were answered."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

MAX_POINTERS = 20
MAX_DIFFERENCES = 20


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One mirrored call that went differently. Places only: what stood there is the tenant's data."""

    time: str
    action: str
    target: str
    request_id: str
    primary: str
    """``ok`` or the error code of the answer that the caller had."""
    mirror: str
    pointers: list[str]
    """Where the results differ; empty when one of the calls failed."""


class ShadowReport(msgspec.Struct, kw_only=True):
    """What became of mirrored calls since this process started."""

    compared: int = 0
    equal: int = 0
    different: int = 0
    dropped: int = 0
    """Not mirrored, because too many were under way."""
    differences: deque[Difference] = msgspec.field(default_factory=lambda: deque(maxlen=MAX_DIFFERENCES))
    """The latest."""

    def add(self, *, action: str, target: str, request_id: str, primary: str, mirror: str, pointers: list[str]) -> None:
        """Count one comparison."""
        self.compared += 1
        if primary == mirror and not pointers:
            self.equal += 1
            return
        self.different += 1
        self.differences.append(
            Difference(
                time=datetime.datetime.now(datetime.UTC).isoformat(),
                action=action,
                target=target,
                request_id=request_id,
                primary=primary,
                mirror=mirror,
                pointers=pointers[:MAX_POINTERS],
            )
        )


def pointers_of(first: Any, second: Any, ignore: Sequence[str]) -> list[str]:
    """Return the JSON Pointers (RFC 6901) where two results differ, at most a few of them."""
    ignored = {tuple(pointer.split("/")[1:]) for pointer in ignore}
    found = []
    for place in _places(first, second, ()):
        if not any(_covers(pattern, place) for pattern in ignored):
            found.append("".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in place))
            if len(found) == MAX_POINTERS:
                break
    return found


def _places(first: Any, second: Any, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted(first.keys() | second.keys()):
            if name in first and name in second:
                yield from _places(first[name], second[name], (*place, name))
            else:
                yield (*place, name)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from _places(one, other, (*place, str(index)))
    elif first != second:
        yield place


def _covers(pattern: tuple[str, ...], place: tuple[str, ...]) -> bool:
    return len(place) >= len(pattern) and all(one in {"*", other} for one, other in zip(pattern, place, strict=False))
