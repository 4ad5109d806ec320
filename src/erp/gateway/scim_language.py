"""Filters and patches of SCIM (RFC 7644, sections 3.4.2.2 and 3.5.2), as far as provisioning needs them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.directory import Condition
from erp.errors import FieldError, ProviderError

MOST_CONDITIONS = 10
MOST_OPERATIONS = 100
MOST_FILTER = 1024
_CONDITION = re.compile(r'\s*([A-Za-z]+)\s+[eE][qQ]\s+("(?:[^"\\]|\\.)*"|[tT]rue|[fF]alse)\s*')
_AND = re.compile(r"[aA][nN][dD]\s")
_PATH = re.compile(
    r"(?:urn:[A-Za-z0-9:.]{1,200}:)?(?P<name>[A-Za-z$]\w{0,63})"
    r'(?:\[(?P<key>\w{1,64}) [eE][qQ] (?P<value>"(?:[^"\\]|\\.)*")\])?(?:\.(?P<sub>\w{1,64}))?'
)
_NAMES = {name.lower(): name for name in ("userName", "externalId", "displayName", "active", "members")}
_READ_ONLY = frozenset({"id", "meta", "schemas", "groups"})


def refused(message: str, kind: str, pointer: str = "") -> ProviderError:
    """Return a refusal; ``kind`` is the ``scimType`` (RFC 7644, table 9)."""
    return ProviderError(ErrorCode.INVALID_ARGUMENT, message, detail=kind, errors=[FieldError(pointer, message)])


def conditions(text: str | None, attributes: frozenset[str]) -> list[Condition]:
    """Return what a filter asks for: comparisons with ``eq``, joined by ``and``. Values reach the database as parameters.

    Raises:
        ProviderError: ``invalid_argument`` for anything else.
    """
    found: list[Condition] = []
    at = 0
    while text is not None and (at < len(text) or not found):
        match = _CONDITION.match(text, at) if len(text) <= MOST_FILTER and len(found) < MOST_CONDITIONS else None
        name = None if match is None else _NAMES.get(match[1].lower())
        if match is None or name not in attributes:
            allowed = ", ".join(sorted(attributes))
            raise refused(f"Use ATTRIBUTE eq VALUE, joined by and, with {allowed}.", "invalidFilter", "/query/filter")
        value = _literal(match[2])
        if isinstance(value, bool) != (name == "active"):
            raise refused(f"{name} cannot have such a value.", "invalidFilter", "/query/filter")
        found.append((name, value))
        at = match.end()
        if at < len(text):
            joined = _AND.match(text, at)
            if joined is None or joined.end() == len(text):
                raise refused("Join comparisons by and.", "invalidFilter", "/query/filter")
            at = joined.end()
    return found


def _literal(text: str) -> str | bool:
    try:
        found: str | bool = msgspec.json.decode(text if text.startswith('"') else text.lower())
    except msgspec.DecodeError:
        raise refused("A text is malformed.", "invalidFilter", "/query/filter") from None
    if isinstance(found, str) and not found.isprintable():
        raise refused("A text has characters that no name has.", "invalidFilter", "/query/filter")
    return found


def patched(facts: dict[str, Any], operations: Any) -> dict[str, Any]:
    """Return ``facts`` after all ``operations``.

    Raises:
        ProviderError: ``invalid_argument``; then nothing is changed.
    """
    if not isinstance(operations, list) or not 1 <= len(operations) <= MOST_OPERATIONS:
        raise refused(f"Send 1 to {MOST_OPERATIONS} Operations.", "invalidSyntax", "/Operations")
    for number, operation in enumerate(operations):
        where = f"/Operations/{number}"
        if not isinstance(operation, dict) or not isinstance(operation.get("op"), str):
            raise refused("An operation needs op.", "invalidSyntax", where)
        op, path, value = operation["op"].lower(), operation.get("path"), operation.get("value")
        if op not in {"add", "replace", "remove"} or (op != "remove" and "value" not in operation):
            raise refused("Use add or replace with a value, or remove.", "invalidSyntax", where)
        if path is None:
            if op == "remove" or not isinstance(value, dict):
                raise refused("Without a path, add or replace an object.", "noTarget", where)
            for name, one in value.items():
                _apply(facts, op, name, one, where)
        else:
            _apply(facts, op, path, value, where)
    return facts


def _apply(facts: dict[str, Any], op: str, path: Any, value: Any, where: str) -> None:
    match = _PATH.fullmatch(path) if isinstance(path, str) else None
    if match is None:
        raise refused("The path is not supported.", "invalidPath", f"{where}/path")
    name = _NAMES.get(match["name"].lower(), match["name"])
    if name in _READ_ONLY:
        raise refused(f"{name} cannot be changed.", "mutability", f"{where}/path")
    if match["key"] is not None:
        _apply_to_items(facts, op, name, (match["key"], _literal(match["value"]), match["sub"]), value, where)
    elif match["sub"] is not None:
        inner = facts.setdefault(name, {})
        if not isinstance(inner, dict):
            raise refused("The path leads nowhere.", "invalidPath", f"{where}/path")
        _set(inner, op, match["sub"], value)
    else:
        _set(facts, op, name, value)


def _set(facts: dict[str, Any], op: str, name: str, value: Any) -> None:
    present = facts.get(name)
    if op == "remove" and isinstance(present, list) and isinstance(value, list):
        facts[name] = [one for one in present if not any(_is_same(one, other) for other in value)]
    elif op == "remove":
        facts.pop(name, None)
    elif op == "add" and isinstance(present, list):
        added = value if isinstance(value, list) else [value]
        facts[name] = [*present, *(one for one in added if not any(_is_same(one, other) for other in present))]
    else:
        facts[name] = value


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict) and "value" in one:
        return bool(one["value"] == other.get("value"))
    return bool(one == other)


def _apply_to_items(
    facts: dict[str, Any], op: str, name: str, chosen: tuple[str, Any, str | None], value: Any, where: str
) -> None:
    key, wanted, sub = chosen
    items = facts.get(name, [])
    found = (
        [one for one in items if isinstance(one, dict) and one.get(key) == wanted] if isinstance(items, list) else []
    )
    if not found and op != "remove":
        raise refused("No value is meant by this path.", "noTarget", f"{where}/path")
    if op == "remove" and sub is None:
        facts[name] = [one for one in items if one not in found]
        return
    for one in found:
        if sub is not None:
            _set(one, op, sub, value)
        elif isinstance(value, dict):
            one.update(value)
        else:
            raise refused("Give an object.", "invalidValue", f"{where}/value")
