"""Checks a document against the schema: which elements, how many, in which order, holding what."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Iterator

from erp.runtime.spi import FieldError
from erp.services.order.ubl.document import ORDER, Element, problem
from erp.services.order.ubl.schema import ROOT, TYPES, Sequence, kind

_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})(Z|[+-]\d{2}:\d{2})?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}")
_INDICATORS = {"true", "false", "1", "0"}


def problems(root: Element) -> Iterator[FieldError]:
    """Return everything that the schema does not allow, each at its XPath."""
    if root.name != ROOT:
        yield problem(f"/{root.name[:200]}", f"is not a UBL order. Send an <Order> of the namespace {ORDER}.")
        return
    root.path = f"/{ROOT}"
    yield from _aggregate(root, TYPES[ROOT])


def _aggregate(element: Element, sequence: Sequence) -> Iterator[FieldError]:
    if element.text:
        yield problem(element.path, "has text between its elements. Remove it.")
    _place(element, sequence)
    yield from _misplaced(element, sequence)
    present = {child.name for child in element.children}
    for particle in sequence.values():
        if particle.is_required and particle.name not in present:
            yield problem(f"{element.path}/{particle.name}", "is missing. Add it.")
    for child in element.children:
        if child.name in TYPES:
            yield from _aggregate(child, TYPES[child.name])
        elif child.name.startswith("cbc:"):
            yield from _basic(child)


def _place(element: Element, sequence: Sequence) -> None:
    seen: Counter[str] = Counter()
    for child in element.children:
        seen[child.name] += 1
        particle = sequence.get(child.name)
        number = f"[{seen[child.name]}]" if particle is not None and particle.is_repeatable else ""
        child.path = f"{element.path}/{child.name}{number}"


def _misplaced(element: Element, sequence: Sequence) -> Iterator[FieldError]:
    last = None
    for child in element.children:
        particle = sequence.get(child.name)
        if particle is None:
            yield problem(child.path[:400], "is not part of UBL 2.1 at this place. Remove it, or mend its namespace.")
            continue
        if last is not None and particle.position < last.position:
            yield problem(child.path, f"stands after {last.name}; in UBL 2.1 it stands before. Move it.")
        elif last is particle and not particle.is_repeatable:
            yield problem(child.path, "is there more than once. Keep one.")
        else:
            last = particle


def _basic(element: Element) -> Iterator[FieldError]:
    if element.children:
        yield problem(element.path, "holds elements, but must hold text. Remove them.")
    else:
        yield from _CHECKS[kind(element.name)](element)


def _text(element: Element) -> Iterator[FieldError]:
    if not element.text:
        yield problem(element.path, "is empty. Fill it in, or leave the element out.")


def _decimal(element: Element) -> Iterator[FieldError]:
    if not _DECIMAL.fullmatch(element.text):
        yield problem(element.path, f"is {element.text[:40]!r}, which is no decimal number. Write it like 19.90.")


def _amount(element: Element) -> Iterator[FieldError]:
    yield from _decimal(element)
    if not _CURRENCY.fullmatch(element.attributes.get("currencyID", "")):
        yield problem(f"{element.path}/@currencyID", "is missing or no currency of ISO 4217. Write it like EUR.")


def _date(element: Element) -> Iterator[FieldError]:
    if date(element.text) is None:
        yield problem(element.path, f"is {element.text[:40]!r}, which is no date. Write it like 2026-11-23.")


def _indicator(element: Element) -> Iterator[FieldError]:
    if element.text not in _INDICATORS:
        yield problem(element.path, f"is {element.text[:40]!r}. Write true or false.")


def date(text: str) -> datetime.date | None:
    """Return a date of XML Schema, whose time zone does not matter here; None when it is none."""
    found = _DATE.fullmatch(text)
    try:
        return datetime.date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


_CHECKS: dict[str, Callable[[Element], Iterator[FieldError]]] = {
    "text": _text,
    "decimal": _decimal,
    "amount": _amount,
    "date": _date,
    "indicator": _indicator,
}
