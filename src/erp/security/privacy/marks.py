"""Where a schema says that personal data stands (``x-erp-pii``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erp.runtime.ports import OutboxEvent

MAX_DEPTH = 12
"""Schemas may refer to themselves."""


def marks_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, str]:
    """Return the marked paths of a schema; ``*`` stands for any index or any name that is not declared.

    What is encoded (base64) is no text: it is left out.

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
    if isinstance(mark := schema.get("x-erp-pii"), str) and "contentEncoding" not in schema:
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


class EventMarks:
    """The marks of the events that contracts describe."""

    def __init__(self, domains: Mapping[str, Any], services: Mapping[str, Any]) -> None:
        self._contracts = {"providers": domains, "services": services}
        self._known: dict[tuple[str, str], dict[str, str]] = {}

    def of(self, event: OutboxEvent) -> dict[str, str]:
        """Return the marked paths of the data of ``event``; of one that no contract describes, none."""
        _, area, group, *_ = [*event.source.split("/"), "", ""]
        found = self._known.get((area, event.type))
        if found is None:
            contract = self._contracts.get(area, {}).get(group)
            if contract is None:
                return {}
            event_contract = contract.get("events", {}).get(event.type.removeprefix(f"erp.{group}."))
            if event_contract is None:
                return {}
            marks = marks_of(event_contract["payload"], contract.get("$defs", {}))
            found = self._known[area, event.type] = marks
        return found
