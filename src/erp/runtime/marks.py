"""Keeps what the contract marks (``x-erp-pii``, ``x-erp-secret``) out of texts about a call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from erp.runtime.call import Call

MARKS = ("x-erp-pii", "x-erp-secret")
SHORTEST = 3
"""Values of fewer characters stand in too many words to be taken out of them."""
_DEEPEST = 32


def unmarked(call: Call, text: str) -> str:
    """Return ``text`` with every marked value of the call's parameters taken out."""
    values = set(_marked(call.action.contract.get("params"), _params(call), 0))
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "[redacted]")
    return text


def _params(call: Call) -> Any:
    if call.request is not None:
        return msgspec.to_builtins(call.request)
    try:
        return msgspec.json.decode(call.body).get("params")
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, RecursionError):
        return None


def _marked(schema: Any, value: Any, depth: int) -> Iterator[str]:
    if depth > _DEEPEST or not isinstance(schema, dict) or value is None:
        return
    if any(schema.get(mark) for mark in MARKS):
        yield from _texts(value)
        return
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        for name, part in value.items():
            yield from _marked(properties.get(name, rest), part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            yield from _marked(schema.get("items"), part, depth + 1)
    for other in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from _marked(other, value, depth + 1)


def _texts(value: Any) -> Iterator[str]:
    """Return every text in a marked value."""
    if isinstance(value, str):
        if len(value) >= SHORTEST:
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
