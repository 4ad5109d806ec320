"""The rules of contract files, checked before anything is generated from them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erp.contracts.authored import Contract

EFFECTS = ("read", "write", "destructive")
RESERVED = frozenset({"health", "configure", "metrics", "events"})
COMMON_ERRORS = (
    "invalid_argument", "unauthenticated", "permission_denied", "rate_limited", "quota_exhausted", "timeout",
    "unavailable", "cancelled", "internal", "conflict", "unsupported", "outcome_unknown",
)  # fmt: skip
"""What every action may answer without listing it."""
KEYWORDS = frozenset(
    [
        "type",
        "enum",
        "const",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "default",
        "description",
        "title",
        "examples",
        "format",
        "contentEncoding",
        "oneOf",
        "anyOf",
        "minProperties",
        "maxProperties",
        "propertyNames",
        "dependentRequired",
        "$ref",
        "writeOnly",
        "readOnly",
        "deprecated",
        "x-erp-pii",
        "x-erp-secret",
        "x-erp-unit",
    ]
)
_ACTION_KEYS = frozenset(
    [
        "summary",
        "description",
        "effect",
        "idempotent",
        "capability",
        "streaming",
        "internal",
        "params",
        "result",
        "errors",
        "examples",
        "deprecated",
    ]
)
_REQUIRED = ("summary", "effect", "idempotent", "params", "result")
_TOP_KEYS = frozenset(
    ["domain", "service", "version", "title", "summary", "description", "capabilities", "$defs", "actions", "events"]
)
_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_VERSION = re.compile(r"^\d+\.\d+\.\d+$")


def findings(contract: Contract, error_codes: frozenset[str]) -> list[str]:
    """Return what is wrong with a contract, one sentence each with the place and the mend."""
    return [f"{contract.path.name}: {text}" for text in _findings(contract, error_codes)]


def _findings(contract: Contract, error_codes: frozenset[str]) -> Iterator[str]:
    yield from _top(contract.document)
    for name, schema in contract.definitions.items():
        yield from _schema(f"$defs/{name}", schema, contract)
    for name, action in contract.actions.items():
        yield from _action(name, action, contract.document.get("capabilities") or {}, error_codes)
        for part in ("params", "result"):
            yield from _schema(f"actions/{name}/{part}", action.get(part, {}), contract)
    for name, event in contract.events.items():
        if not event.keys() >= {"summary", "payload"}:
            yield f"events/{name}: summary and payload are required."
        yield from _schema(f"events/{name}/payload", event.get("payload", {}), contract)


def _top(document: dict[str, Any]) -> Iterator[str]:
    for key in document.keys() - _TOP_KEYS:
        yield f"unknown key {key!r}. How to fix: remove it or correct its spelling."
    for key in ("version", "title", "summary"):
        if key not in document:
            yield f"{key} is missing. How to fix: add it."
    if not _VERSION.match(str(document.get("version"))):
        yield "version must be SemVer, for example 1.0.0."


def _action(name: str, action: dict[str, Any], capabilities: Any, error_codes: frozenset[str]) -> Iterator[str]:
    where = f"actions/{name}"
    if not _NAME.match(name) or keyword.iskeyword(name) or name in RESERVED:
        yield f"{where}: not a usable name. How to fix: a snake_case verb, no Python keyword, none of {sorted(RESERVED)}."
    yield from (f"{where}: unknown key {key!r}." for key in action.keys() - _ACTION_KEYS)
    yield from (f"{where}: {key} is missing." for key in _REQUIRED if key not in action)
    if action.get("effect") not in EFFECTS:
        yield f"{where}: effect must be one of {', '.join(EFFECTS)}."
    if "capability" in action and action["capability"] not in capabilities:
        yield f"{where}: capability {action['capability']!r} is not listed under capabilities."
    unknown = [code for code in action.get("errors", []) if code not in error_codes]
    yield from (f"{where}: {code!r} is not in errors.yaml." for code in unknown)
    parts = [part for part in ("params", "result") if action.get(part, {}).get("type") != "object"]
    yield from (f"{where}/{part}: must be an object schema." for part in parts)


def _schema(where: str, schema: Any, contract: Contract) -> Iterator[str]:
    if not isinstance(schema, dict):
        yield f"{where}: a schema must be a mapping."
        return
    yield from (f"{where}: the keyword {key!r} is not part of the dialect." for key in schema.keys() - KEYWORDS)
    reference = schema.get("$ref")
    if reference is not None and reference.removeprefix("#/$defs/") not in contract.definitions:
        yield f"{where}: {reference} does not exist. How to fix: add it to $defs."
    if _is_object(schema) and "additionalProperties" not in schema:
        yield f"{where}: say additionalProperties: false, or what they are."
    if schema.get("properties") and schema.get("additionalProperties", False) is not False:
        yield f"{where}: an object with properties is closed. How to fix: put what is free into a member of its own."
    missing = [name for name in schema.get("required", []) if name not in schema.get("properties", {})]
    yield from (f"{where}: required property {name!r} is not described." for name in missing)
    for step, inner in _inner(schema):
        yield from _schema(f"{where}/{step}", inner, contract)


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def _inner(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from schema.get("properties", {}).items()
    yield from ((key, schema[key]) for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict))
    for key in ("oneOf", "anyOf"):
        yield from ((f"{key}/{number}", inner) for number, inner in enumerate(schema.get(key, [])))
