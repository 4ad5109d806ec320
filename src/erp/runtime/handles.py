"""Handles that go through a route remember which of its targets they belong to.

A transaction, a cursor, an upload, the id of a delivery mean something to the peer that gave them and to no other. A
route with several targets marks them on the way out, ``HANDLE@MARK``, and reads the mark on the way in: nothing has
to be remembered, and any process of the layer finds the target.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError

NAMES = frozenset({"transaction", "cursor", "next_cursor", "upload", "ack_id", "ack_ids"})
"""What the contracts call handles."""
_AT = "@"


def mark_of(provider: str, connection: str) -> str:
    """Return the mark of a target."""
    return hashlib.sha256(f"{provider}#{connection}".encode()).hexdigest()[:8]


def marked(result: Any, mark: str) -> Any:
    """Return ``result`` with the mark on every handle in it, also on those of its items."""
    if isinstance(result, list):
        return [marked(item, mark) if isinstance(item, msgspec.Struct) else item for item in result]
    if not isinstance(result, msgspec.Struct):
        return result
    changed: dict[str, Any] = {}
    for name in result.__struct_fields__:
        value = getattr(result, name)
        if name in NAMES and isinstance(value, str):
            changed[name] = f"{value}{_AT}{mark}"
        elif isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
            changed[name] = marked(value, mark)
    return msgspec.structs.replace(result, **changed) if changed else result


def unmarked(request: Any) -> tuple[Any, str | None]:
    """Return ``request`` as the peer knows it, and the mark that its handles carry; None when there is no handle.

    Raises:
        ProviderError: ``invalid_argument``: a handle without a mark, or handles of several targets.
    """
    changed: dict[str, Any] = {}
    marks: set[str] = set()
    for name in NAMES.intersection(request.__struct_fields__):
        value = getattr(request, name)
        if isinstance(value, str):
            changed[name] = _split(name, value, marks)
        elif isinstance(value, list):
            changed[name] = [_split(name, item, marks) for item in value]
    if len(marks) > 1:
        raise _wrong(next(iter(changed)), "Use handles of one target in one call: these belong to several.")
    return (msgspec.structs.replace(request, **changed), marks.pop()) if marks else (request, None)


def _split(name: str, handle: str, marks: set[str]) -> str:
    bare, at, mark = handle.rpartition(_AT)
    if not at:
        raise _wrong(name, "Use a handle that this route gave, unchanged.")
    marks.add(mark)
    return bare


def _wrong(name: str, message: str) -> ProviderError:
    return ProviderError(
        ErrorCode.INVALID_ARGUMENT, "A handle is not valid.", errors=[FieldError(f"/params/{name}", message)]
    )
