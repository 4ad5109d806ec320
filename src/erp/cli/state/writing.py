"""Writes a state file: the same text for the same state, which every YAML reader takes to mean the same."""

from __future__ import annotations

import re
from typing import Any

import yaml

WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Never writes anchors, and quotes texts that some reader takes for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out."""
        del data
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Quote what nobody can see, so that it can be escaped."""
        style = None if data.replace("\n", "").isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists below their name."""
        del indentless
        super().increase_indent(flow, False)


_Dumper.add_representer(str, _Dumper.represent_str)
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9]*)?([eE][-+]?[0-9]+)?\Z"), list("-+0123456789")
)


def written(state: dict[str, Any]) -> str:
    """Return ``state`` as YAML, in the order it is in."""
    text: str = yaml.dump(state, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
    return "".join(one if one == "\n" or one.isprintable() else _escaped(one) for one in text)


def _escaped(one: str) -> str:
    """Return the escape of a character that YAML would show as it is, and that moves cursors or turns lines around."""
    return f"\\U{ord(one):08X}"
