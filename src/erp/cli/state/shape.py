"""What the schema of state files says: is a file right, and what do absent things mean."""

from __future__ import annotations

import copy
import difflib
from functools import cache
from typing import Any

import msgspec

from erp.cli.state.document import Finding, Place
from erp.contracts.loading import document

SCHEMA = "state.schema.json"


@cache
def schema() -> dict[str, Any]:
    """Return the schema of state files."""
    found: dict[str, Any] = msgspec.json.decode(document(SCHEMA))
    return found


def entry_schema(section: str) -> dict[str, Any]:
    """Return the schema of one entry of a tenant's section."""
    tenant = schema()["properties"]["tenants"]["additionalProperties"]
    found: dict[str, Any] = tenant["properties"][section]["additionalProperties"]
    return found


def findings(value: Any, against: dict[str, Any], place: Place = ()) -> list[Finding]:
    """Return everything that makes ``value`` (which is at ``place``) not match a schema; values are never repeated."""
    from erp.runtime.action import validator

    try:
        return [found for error in validator(against).iter_errors(value) for found in _explained(error, against, place)]
    except ValueError:
        return [Finding(place, "is nested too deeply")]


def _explained(error: Any, against: dict[str, Any], around: Place) -> list[Finding]:
    inside = tuple(str(part) for part in error.instance_path)
    place, kind = (*around, *inside), error.kind.as_dict()
    match error.kind.name:
        case "additionalProperties":
            known = _at(against, inside).get("properties", {})
            return [Finding((*place, name), _unknown(name, known)) for name in kind["unexpected"]]
        case "required":
            return [Finding((*place, kind["property"]), "is required")]
        case "propertyNames":
            wrong = kind["error"]
            what_is_here = _at(against, inside).get("description", wrong.message)
            return [Finding((*place, wrong.instance), f"is no name that can be here: {what_is_here}")]
        case _:
            return [Finding(place, error.message[:500])]


def _unknown(name: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}" if known else "there are none"
    return f"is not a known field; {hint}"


def _at(against: dict[str, Any], inside: Place) -> dict[str, Any]:
    """Return the part of a schema that says what is at a place."""
    for part in inside:
        below = against.get("properties", {}).get(part) or against.get("additionalProperties") or against.get("items")
        if not isinstance(below, dict):
            return {}
        against = below
    return against


def completed(value: Any, against: dict[str, Any]) -> Any:
    """Return ``value`` with the defaults of its schema in the place of what is absent."""
    if isinstance(value, list):
        return [completed(item, against.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    known = against.get("properties", {})
    found = {name: completed(item, known.get(name, {})) for name, item in value.items()}
    defaults = {name: copy.deepcopy(item["default"]) for name, item in known.items() if "default" in item}
    return defaults | found


def shortened(value: Any, against: dict[str, Any]) -> Any:
    """Return ``value`` without what its schema's defaults say anyway, in the schema's order; the rest by name."""
    if isinstance(value, list):
        return [shortened(item, against.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    known = against.get("properties", {})
    order = {name: number for number, name in enumerate(known)}
    names = sorted(value, key=lambda name: (order.get(name, len(order)), name))
    kept = [name for name in names if "default" not in known.get(name, {}) or value[name] != known[name]["default"]]
    return {name: shortened(value[name], known.get(name, {})) for name in kept}
