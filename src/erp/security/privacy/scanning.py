"""Finds and treats personal data in JSON: schema marks first, then names of fields, then what the texts say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from erp.security.privacy.check_digits import bare, is_card, is_iban
from erp.security.privacy.fields import kind_of
from erp.security.privacy.recognisers import NATIONAL, Hit, hits, is_address
from erp.security.privacy.redaction import replaced

Marks = Mapping[str, str]
"""Path of a property (``customer/email``; ``*`` for any index or name) -> its ``x-erp-pii``."""
Replacement = Callable[[str, str], str]
"""Kind, value -> what stands there instead."""

IN_CONTENT = frozenset({"text", "unclassified"})
"""Marks that say that personal data may be somewhere in the value."""
MAX_DEPTH = 64
_FEWEST_DIGITS = 5
_WHOLE = frozenset({"name", "address", "birth_date"})


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Personal data in a document; never its value."""

    field: str
    """Path with ``*`` for indexes."""
    kind: str


def found_in(document: Any, marks: Marks | None = None) -> list[Finding]:
    """Return what personal data a JSON value or a text holds."""
    found: list[Finding] = []
    for path, name, parent, value in _texts(document, marks or {}):
        is_number = not isinstance(value, str)
        of_value = _hits(str(value), name, parent, (marks or {}).get(path, ""), is_number=is_number)
        found += (Finding(field=path, kind=hit.kind) for hit in of_value)
    return found


def treated(document: Any, replacement: Replacement, marks: Marks | None = None) -> Any:
    """Return a copy of a JSON value in which personal data is replaced. What lies too deep to be read goes whole."""
    return _treated(document, replacement, marks or {}, ("", "", ""), 0)


def treated_where_marked(document: Any, replacement: Replacement, marks: Marks) -> Any:
    """Return ``document`` with personal data replaced where a contract marks it, and everything else as it is."""
    return changed_where_marked(document, marks, lambda value, mark: treated(value, replacement, {"": mark}))


def changed_where_marked(document: Any, marks: Marks, change: Callable[[Any, str], Any]) -> Any:
    """Return ``document`` with every marked value replaced by ``change(value, mark)``.

    Typed values (``msgspec.Struct``) stay what they are; bytes are no text and never changed.
    """
    return _where_marked(document, marks, change, "")


def _where_marked(value: Any, marks: Marks, change: Callable[[Any, str], Any], path: str) -> Any:
    if path in marks:
        return value if value is msgspec.UNSET or isinstance(value, bytes) else change(value, marks[path])
    if path and not _leads(path, marks):
        return value
    match value:
        case msgspec.Struct():
            return msgspec.structs.replace(
                value,
                **{
                    field.name: _where_marked(
                        getattr(value, field.name), marks, change, _joined(path, field.encode_name, marks)
                    )
                    for field in msgspec.structs.fields(value)
                },
            )
        case dict():
            return {key: _where_marked(item, marks, change, _joined(path, key, marks)) for key, item in value.items()}
        case list() | tuple():
            inner = _joined(path, "*", marks)
            return [_where_marked(item, marks, change, inner) for item in value]
        case _:
            return value


def _treated(value: Any, replacement: Replacement, marks: Marks, place: tuple[str, str, str], depth: int) -> Any:
    path, name, parent = place
    if depth > MAX_DEPTH:
        return "[too deep]"
    match value:
        case str() | int() | float() if not isinstance(value, bool):
            text = value if isinstance(value, str) else str(value)
            found = _hits(text, name, parent, marks.get(path, ""), is_number=not isinstance(value, str))
            return replaced(text, found, replacement) if found else value
        case dict():
            return {
                _key(key, replacement): _treated(
                    item, replacement, marks, (_joined(path, key, marks), key, name), depth + 1
                )
                for key, item in value.items()
            }
        case list() | tuple():
            inner = (_joined(path, "*", marks), name, parent)
            return [_treated(item, replacement, marks, inner, depth + 1) for item in value]
        case _:
            return value


def _key(key: str, replacement: Replacement) -> str:
    """Names of fields are data where somebody keeps things by address."""
    return replaced(key, hits(key), replacement) if "@" in key else key


def _texts(document: Any, marks: Marks) -> Iterator[tuple[str, str, str, Any]]:
    stack = [("", "", "", document)]
    while stack:
        path, name, parent, value = stack.pop()
        match value:
            case bool() | None:
                continue
            case str() | int() | float():
                yield path, name, parent, value
            case dict():
                named = [(_shown(key), key, item) for key, item in value.items()]
                stack += reversed([(_joined(path, shown, marks), key, name, item) for shown, key, item in named])
            case list() | tuple():
                stack += reversed([(_joined(path, "*", marks), name, parent, item) for item in value])


def _shown(key: str) -> str:
    """Name a field; not by an address that somebody keeps things under."""
    return _key(key, lambda kind, _: f"[{kind}]")


def _joined(path: str, name: str, marks: Marks) -> str:
    made = f"{path}/{name}" if path else str(name)
    if marks and not _leads(made, marks):
        star = f"{path}/*" if path else "*"
        return star if _leads(star, marks) else made
    return made


def _leads(path: str, marks: Marks) -> bool:
    """Whether something at or under ``path`` is marked."""
    return path in marks or any(mark.startswith(f"{path}/") for mark in marks)


def _hits(text: str, name: str, parent: str, mark: str, *, is_number: bool = False) -> list[Hit]:
    if not text:
        return []
    kind = mark if mark and mark not in IN_CONTENT else kind_of(name, parent)
    if kind and (mark == kind or _is_of(kind, text)):
        return [Hit(0, len(text), kind)]
    return [] if is_number else hits(text)


def _is_of(kind: str, text: str) -> bool:
    """Whether the value of a field named for ``kind`` is of it; ``"phone": "none"`` is not."""
    if kind in _WHOLE:
        return any(character.isalnum() for character in text)
    if kind == "phone":
        return _FEWEST_DIGITS <= sum(map(str.isdecimal, text)) <= 20  # noqa: PLR2004  (the longest with extension)
    if kind in NATIONAL:
        return NATIONAL[kind](text)
    checks: dict[str, Callable[[str], bool]] = {"iban": is_iban, "card": is_card, "ip": is_address}
    if kind in checks:
        return checks[kind](text)
    return kind == "email" and "@" in text and bare(text) != ""
