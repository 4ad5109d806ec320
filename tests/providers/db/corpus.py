"""Attempts to make a database do what it must not, read from a YAML file beside the tests.

``query`` and ``execute`` each have kinds of attempts. An attempt is a text, or ``[text, times, ...]``: every text with
the number after it is repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml


def text(entry: Any) -> str:
    """Return an attempt as text."""
    if isinstance(entry, str):
        return entry
    return "".join(part * times for part, times in zip(entry[::2], entry[1::2], strict=True))


class Corpus:
    """The attempts on one engine."""

    def __init__(self, engine: str) -> None:
        self.kinds: dict[str, dict[str, list[Any]]] = yaml.safe_load(
            Path(__file__).with_name(f"bypass_{engine}.yaml").read_text()
        )

    def texts(self, action: str) -> list[str]:
        return [text(entry) for entries in self.kinds.get(action, {}).values() for entry in entries]

    def params(self, action: str) -> list[Any]:
        """Return kind and text of each attempt, for ``parametrize``."""
        return [
            pytest.param(kind, text(entry), id=f"{action}-{kind}-{number}")
            for kind, entries in self.kinds.get(action, {}).items()
            for number, entry in enumerate(entries)
        ]

    def require(self, at_least: int) -> None:
        """Require so many attempts, none of them twice."""
        for action in self.kinds:
            texts = self.texts(action)
            assert len(set(texts)) == len(texts)
        assert sum(len(self.texts(action)) for action in self.kinds) >= at_least
