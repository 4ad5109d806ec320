"""The documentation names everything that it should, and only what exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import typer.main

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "erp"
SETTING = re.compile(r"""["'](ERP_[A-Z_]+|OTEL_[A-Z_]+)["']""")
STATUS_ROW = re.compile(r"^\|.+?\| (?P<folders>.+?) \| (?P<today>here|not yet)", re.MULTILINE)


def settings_in_the_code() -> set[str]:
    return {name for module in SOURCE.rglob("*.py") for name in SETTING.findall(module.read_text())}


def test_every_setting_that_the_code_reads_is_documented() -> None:
    documented = (ROOT / "docs/reference/settings.md").read_text()
    assert sorted(name for name in settings_in_the_code() if f"`{name}`" not in documented) == []


def test_every_documented_setting_is_read_by_the_code() -> None:
    documented = re.findall(r"^\| `(ERP_[A-Z_]+)`", (ROOT / "docs/reference/settings.md").read_text(), re.MULTILINE)
    assert documented
    assert sorted(set(documented) - settings_in_the_code()) == []


def status_rows() -> list[tuple[str, str]]:
    rows = STATUS_ROW.finditer((ROOT / "README.md").read_text())
    return [(folder, row["today"]) for row in rows for folder in re.findall(r"`([^`]+)`", row["folders"])]


@pytest.mark.parametrize(("folder", "today"), status_rows())
def test_readme_is_honest_about_what_is_in_a_folder(folder: str, today: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.stat().st_size > 0]
    assert bool([path for path in files if "__pycache__" not in path.parts]) == (today == "here")


def test_every_decision_has_context_decision_and_consequences() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text()
        number = int(path.name[:4])
        assert text.startswith(f"# {number}. "), path.name
        for part in ("**Status:**", "**Context.**", "**Decision.**", "**Consequences.**"):
            assert part in text, f"{path.name} lacks {part}"


def test_every_command_of_the_command_line_is_documented() -> None:
    documented = (ROOT / "docs/reference/cli.md").read_text()
    commands = command_names(typer.main.get_command(importlib.import_module("erp.cli").app), "erp")
    assert commands
    assert [name for name in commands if f"`{name}" not in documented] == []


def command_names(command: object, name: str) -> list[str]:
    """Return every command below ``command`` that is not hidden, as a reader types it."""
    children = getattr(command, "commands", None)
    if getattr(command, "hidden", False):
        return []
    if children is None:
        return [name]
    return [line for child, inner in children.items() for line in command_names(inner, f"{name} {child}")]
