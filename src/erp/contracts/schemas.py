"""Schemas made self-contained, and whether the generated types check all they say."""

from __future__ import annotations

from typing import Any

_INEXACT = frozenset(
    [
        "oneOf",
        "anyOf",
        "const",
        "uniqueItems",
        "multipleOf",
        "minProperties",
        "maxProperties",
        "propertyNames",
        "dependentRequired",
    ]
)
_EXACT_FORMATS = frozenset({"date-time", "date"})


def inlined(schema: Any, definitions: dict[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """Return ``schema`` with every ``$ref`` replaced; a definition inside itself becomes any value."""
    if isinstance(schema, list):
        return [inlined(item, definitions, inside) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {key: inlined(value, definitions, inside) for key, value in schema.items() if key != "$ref"}
    if "$ref" not in schema:
        return rest
    name = schema["$ref"].removeprefix("#/$defs/")
    if name in inside:
        return rest
    return {**inlined(definitions[name], definitions, (*inside, name)), **rest}


def pointed(schema: Any, prefix: str) -> Any:
    """Return ``schema`` with ``#/$defs/X`` pointing to ``prefix`` + X."""
    if isinstance(schema, list):
        return [pointed(item, prefix) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"{prefix}{value.removeprefix('#/$defs/')}" if key == "$ref" else pointed(value, prefix)
        for key, value in schema.items()
    }


def needs_full_check(schema: Any) -> bool:
    """Return whether ``schema`` (self-contained) says more than its generated type checks."""
    if isinstance(schema, list):
        return any(needs_full_check(item) for item in schema)
    if not isinstance(schema, dict):
        return False
    if _INEXACT & schema.keys():
        return True
    if schema.get("format", "date") not in _EXACT_FORMATS:
        return True
    if isinstance(schema.get("type"), list) and len([kind for kind in schema["type"] if kind != "null"]) > 1:
        return True
    return any(needs_full_check(value) for key, value in schema.items() if key not in {"default", "examples"})
