"""Reads a state file: YAML of JSON's types, with the line of every value, nothing said twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

Place = tuple[str, ...]
"""Where a value is: the names that lead to it; items of lists by their number."""

MAX_BYTES = 32 * 1024 * 1024
_CORE = "tag:yaml.org,2002:"
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")
_RESOLVERS = [
    ("null", re.compile(r"(?:null|~|)\Z"), ["n", "~", ""]),
    ("bool", re.compile(r"(?:true|false)\Z"), ["t", "f"]),
    ("int", re.compile(r"-?(0|[1-9][0-9]*)\Z"), list("-0123456789")),
    ("float", _FLOAT, list("-0123456789")),
]


_MADE: dict[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": lambda text: text == "true",
    "int": int,
    "float": float,
}


@dataclass(frozen=True)
class Finding:
    """Something wrong with a state file."""

    place: Place
    message: str
    line: int | None = None

    def __str__(self) -> str:
        text = f"{'.'.join(self.place)}: {self.message}" if self.place else self.message
        return printable(text)


def printable(text: str) -> str:
    """Return ``text`` without what could move a terminal's cursor: names are chosen by tenants."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class StateError(Exception):
    """The state file cannot be applied; nothing was. ``findings`` has everything that is wrong with it."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("; ".join(str(item) for item in findings))
        self.findings = findings


@dataclass(frozen=True)
class Document:
    """A state file as read."""

    value: Any
    lines: dict[Place, int] = field(default_factory=dict)

    def located(self, finding: Finding) -> Finding:
        """Return ``finding`` with the line of its place, or of what is around it."""
        place = finding.place
        while place and place not in self.lines:
            place = place[:-1]
        return Finding(finding.place, finding.message, self.lines.get(place))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Knows JSON's types alone: ``no`` is a text, ``12:30`` as well."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own way)


for _name, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_CORE + _name, _pattern, _first)


def parse(text: str) -> Document:
    """Return what a state file says.

    Raises:
        StateError: it is not YAML, has names twice, or says things that JSON has no types for.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise StateError([Finding((), f"This is not YAML: {error.problem}.", line)]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise StateError([Finding((), f"This is not YAML: {error}.")]) from None
    if node is None:
        raise StateError([Finding((), "The file is empty. `erp export` shows what one looks like.")])
    reader = _Reader()
    value = reader.read(node, ())
    if reader.findings:
        raise StateError(reader.findings)
    return Document(value, reader.lines)


class _Reader:
    """Makes values of nodes, and keeps where they are."""

    def __init__(self) -> None:
        self.lines: dict[Place, int] = {}
        self.findings: list[Finding] = []
        self._seen: set[int] = set()

    def read(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        if id(node) in self._seen:
            self.findings.append(Finding(place, "Anchors and aliases are not known here; write it out.", line))
            return None
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*place, str(number))) for number, item in enumerate(node.value)]
        return self._scalar(node, place, line)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_CORE}str":
                self.findings.append(Finding(place, "Names are texts. Put it in quotes.", line))
                continue
            here = (*place, key.value)
            if key.value in found:
                self.findings.append(Finding(here, f"is here a second time; first in line {self.lines[here]}", line))
                continue
            self.lines[here] = line
            found[key.value] = self.read(value, here)
        return found

    def _scalar(self, node: yaml.Node, place: Place, line: int) -> Any:
        kind, text = node.tag.removeprefix(_CORE), node.value
        if kind == "str":
            return text
        if kind in _MADE:
            try:
                return _MADE[kind](text)
            except ValueError:  # an explicit tag that does not fit, a number of thousands of digits
                self.findings.append(Finding(place, f"This is no {kind}.", line))
                return None
        self.findings.append(Finding(place, f"The tag {node.tag} is not known here; leave it out.", line))
        return None
