"""Where a schema says that personal data stands (``x-erp-pii``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_DEPTH = 12
"""Schemas may refer to themselves."""


def marks_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, str]:
    """Return the marked paths of a schema; ``*`` stands for any index or any name that is not declared.

    Args:
        schema: JSON Schema as contracts have it.
        definitions: ``$defs`` that it refers to.
    """
    return dict(_marks(schema, definitions, "", 0))


def _marks(schema: Any, definitions: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, str]]:
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        yield from _marks(definitions.get(reference.rpartition("/")[2]), definitions, path, depth + 1)
    if isinstance(mark := schema.get("x-erp-pii"), str):
        yield path, mark
    inner = [
        *schema.get("properties", {}).items(),
        ("*", schema.get("items")),
        ("*", schema.get("additionalProperties")),
    ]
    for name, value in inner:
        yield from _marks(value, definitions, f"{path}/{name}" if path else name, depth + 1)
    for keyword in ("allOf", "anyOf", "oneOf"):
        for value in schema.get(keyword, ()):
            yield from _marks(value, definitions, path, depth + 1)
