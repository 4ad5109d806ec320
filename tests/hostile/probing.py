"""Requests made from schemas, with the victim's names wherever a text can stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.hostile.plants import Loot

MAX_DEPTH = 6


def requests(schema: Mapping[str, Any], loot: Loot) -> Iterator[Any]:
    """Yield values of an object schema: once with each member's own loot, then with each thing of the loot everywhere."""
    longest = max((len(loot.by_name.get(name, ())) for name in _members(schema)), default=0)
    for index in range(max(1, longest)):
        yield _value(schema, _Named(loot, index), "")
        yield _value(schema, _Named(loot, index), "", only_required=True)
    for probe in loot.values:
        yield _value(schema, _Everywhere(probe), "")


class _Named:
    """Each member gets what the victim calls by the same name."""

    def __init__(self, loot: Loot, index: int) -> None:
        self._loot = loot
        self._index = index

    def text(self, name: str) -> str:
        known = self._loot.by_name.get(name) or self._loot.by_name.get(name.removesuffix("s")) or ["victim"]
        return known[self._index % len(known)]


class _Everywhere:
    """All members get the same thing."""

    def __init__(self, probe: str) -> None:
        self._probe = probe

    def text(self, name: str) -> str:
        return self._probe


def _members(schema: Mapping[str, Any]) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        yield name
        yield name.removesuffix("s")
        if isinstance(inner, dict):
            yield from _members(inner)


def _value(schema: Any, source: _Named | _Everywhere, name: str, *, depth: int = 0, only_required: bool = False) -> Any:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return source.text(name)
    for keyword in ("const", "default"):
        if keyword in schema and keyword != "default":
            return schema[keyword]
    if "enum" in schema:
        return schema["enum"][0]
    for keyword in ("oneOf", "anyOf", "allOf"):
        if keyword in schema:
            return _value(schema[keyword][0], source, name, depth=depth + 1)
    return _typed(schema, source, name, depth, only_required=only_required)


def _typed(  # noqa: PLR0911  (one for each type)
    schema: dict[str, Any], source: _Named | _Everywhere, name: str, depth: int, *, only_required: bool
) -> Any:
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            required = set(schema.get("required", ()))
            return {
                key: _value(inner, source, key, depth=depth + 1)
                for key, inner in schema.get("properties", {}).items()
                if key in required or not only_required
            }
        case "array":
            inner = schema.get("items", {})
            return [_value(inner, source, name, depth=depth + 1) for _ in range(max(1, schema.get("minItems", 1)))]
        case "integer":
            return int(schema.get("minimum", 1))
        case "number":
            return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return _text(schema, source, name)


def _text(schema: dict[str, Any], source: _Named | _Everywhere, name: str) -> str:
    if schema.get("format") == "date-time":
        return "2026-01-01T00:00:00Z"
    text = source.text(name)[: schema.get("maxLength", 10_000)]
    pattern = schema.get("pattern")
    if pattern and not re.search(pattern, text):
        plain = re.sub(r"[^a-z0-9]", "", text.lower()) or "victim"
        return plain if re.search(pattern, plain) else text
    return text
