"""The mapping of controls names only what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security" / "controls.md"
ROW = re.compile(r"^\| (?!Control|-)(?P<control>[^|]+) \|.*\| (?P<where>`[^|]+) \| (?P<shown>`[^|]+) \|$", re.MULTILINE)


def named() -> list[tuple[str, str]]:
    rows = list(ROW.finditer(PAGE.read_text()))
    return [(row["control"], one) for row in rows for one in re.findall(r"`([^`]+)`", row["where"] + row["shown"])]


def test_every_row_of_the_page_is_read() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(list(ROW.finditer(PAGE.read_text()))) > 10


@pytest.mark.parametrize(("control", "name"), named())
def test_what_shows_a_control_exists(control: str, name: str) -> None:
    path, _, test = name.partition("::")
    assert (ROOT / path).is_file(), f"{control}: {path} is not there"
    if test:
        assert f"def {test}(" in (ROOT / path).read_text(), f"{control}: {path} has no {test}"
