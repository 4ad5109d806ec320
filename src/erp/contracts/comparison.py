"""Classifies the difference between two versions of a contract: major, minor or patch.

Requests may be widened and results narrowed without breaking a caller; the opposite breaks one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from erp.contracts.schemas import inlined

if TYPE_CHECKING:
    from erp.contracts.authored import Contract

LEVELS = ("patch", "minor", "major")
_WORDING = frozenset({"description", "title", "summary", "examples", "x-erp-unit"})
_LOWER = ("minLength", "minItems", "minimum", "exclusiveMinimum", "minProperties")
_UPPER = ("maxLength", "maxItems", "maximum", "exclusiveMaximum", "maxProperties")


@dataclass(frozen=True)
class Change:
    """One difference."""

    level: str
    where: str
    what: str


def changes(old: Contract, new: Contract) -> list[Change]:
    """Return every difference, the gravest first."""
    found = list(_changes(old, new))
    return sorted(found, key=lambda change: (-LEVELS.index(change.level), change.where))


def needed(found: list[Change]) -> str | None:
    """Return the level the version must rise by; None when nothing changed."""
    return max((change.level for change in found), key=LEVELS.index, default=None)


def raised(old: str, new: str) -> str | None:
    """Return by which level a version rose; None when it did not."""
    before, after = ([int(part) for part in version.split(".")] for version in (old, new))
    for level, left, right in zip(reversed(LEVELS), before, after, strict=True):
        if right != left:
            return level if right > left else None
    return None


def is_enough(old: Contract, new: Contract, found: list[Change]) -> bool:
    """Return whether the new version says what changed."""
    need, rise = needed(found), raised(old.document["version"], new.document["version"])
    return need is None or (rise is not None and LEVELS.index(rise) >= LEVELS.index(need))


def _changes(old: Contract, new: Contract) -> Iterator[Change]:
    yield from _names("capabilities", old.document.get("capabilities") or {}, new.document.get("capabilities") or {})
    yield from _names("actions", old.actions, new.actions)
    yield from _names("events", old.events, new.events)
    for name in old.actions.keys() & new.actions.keys():
        yield from _action(f"actions/{name}", old, new, old.actions[name], new.actions[name])
    for name in old.events.keys() & new.events.keys():
        before = inlined(old.events[name]["payload"], old.definitions)
        yield from _schema(
            f"events/{name}", before, inlined(new.events[name]["payload"], new.definitions), is_input=False
        )


def _names(where: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    yield from (Change("major", f"{where}/{name}", "removed") for name in old.keys() - new.keys())
    yield from (Change("minor", f"{where}/{name}", "added") for name in new.keys() - old.keys())
    for name in old.keys() & new.keys():
        if isinstance(old[name], str) and old[name] != new[name]:
            yield Change("patch", f"{where}/{name}", "wording")


def _action(
    where: str, old: Contract, new: Contract, before: dict[str, Any], after: dict[str, Any]
) -> Iterator[Change]:
    yield from _promises(where, before, after)
    for key in ("summary", "description", "examples"):
        if before.get(key) != after.get(key):
            yield Change("patch", f"{where}/{key}", "wording")
    for part, is_input in (("params", True), ("result", False)):
        left, right = inlined(before[part], old.definitions), inlined(after[part], new.definitions)
        yield from _schema(f"{where}/{part}", left, right, is_input=is_input)


def _promises(where: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    for key in ("effect", "capability", "streaming", "internal"):
        if before.get(key) != after.get(key):
            yield Change("major", f"{where}/{key}", f"{before.get(key)!r} became {after.get(key)!r}")
    if before["idempotent"] != after["idempotent"]:
        level = "minor" if after["idempotent"] else "major"
        yield Change(level, f"{where}/idempotent", f"became {after['idempotent']}")
    for code in set(after.get("errors", [])) - set(before.get("errors", [])):
        yield Change("minor", f"{where}/errors/{code}", "may be answered now")
    if "deprecated" in after and "deprecated" not in before:
        yield Change("minor", where, "deprecated")


def _schema(where: str, old: Any, new: Any, *, is_input: bool) -> Iterator[Change]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield Change("major", where, f"{old!r} became {new!r}")
        return
    for key in sorted((old.keys() | new.keys()) - {"properties", "required", "items", "additionalProperties"}):
        if old.get(key) != new.get(key):
            yield Change(_level(key, old.get(key), new.get(key), is_input=is_input), where, _what(key, old, new))
    yield from _properties(where, old, new, is_input=is_input)
    for key in ("items", "additionalProperties"):
        if key in old or key in new:
            yield from _schema(f"{where}/{key}", old.get(key, {}), new.get(key, {}), is_input=is_input)


def _what(key: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    return "wording" if key in _WORDING else f"{key}: {old.get(key)!r} became {new.get(key)!r}"


def _level(key: str, old: Any, new: Any, *, is_input: bool) -> str:
    if key in _WORDING:
        return "patch"
    if key == "x-erp-pii" and old is None:
        return "minor"  # what is sent and answered stays the same: it is treated in more places
    wider = _is_wider(key, old, new)
    if wider is None:
        return "major"
    return "minor" if wider == is_input else "major"


def _is_wider(key: str, old: Any, new: Any) -> bool | None:
    """True: more values are allowed than before; False: fewer; None: neither can be said."""
    if key == "enum" and old is not None and new is not None:
        return True if set(old) < set(new) else False if set(new) < set(old) else None
    if key in _LOWER:
        return new is None or (old is not None and new < old)
    if key in _UPPER:
        return new is None or (old is not None and new > old)
    if key == "type" and old is not None and new is not None:
        left, right = ({*value} if isinstance(value, list) else {value} for value in (old, new))
        return True if left < right else False if right < left else None
    return None


def _properties(where: str, old: dict[str, Any], new: dict[str, Any], *, is_input: bool) -> Iterator[Change]:
    before, after = old.get("properties", {}), new.get("properties", {})
    were, are = set(old.get("required", [])), set(new.get("required", []))
    yield from (Change("major", f"{where}/{name}", "removed") for name in before.keys() - after.keys())
    for name in after.keys() - before.keys():
        is_breaking = is_input and name in are
        yield Change("major" if is_breaking else "minor", f"{where}/{name}", "added" + " as required" * (name in are))
    for name in before.keys() & after.keys():
        if (name in were) != (name in are):
            became = "required" if name in are else "optional"
            yield Change(
                "minor" if (became == "optional") == is_input else "major", f"{where}/{name}", f"became {became}"
            )
        yield from _schema(f"{where}/{name}", before[name], after[name], is_input=is_input)
