"""Hooks of pytest: which tests count as slow, what need not be read, and how garbage is collected meanwhile."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest

SLOW_FOLDERS = {
    "tests/cli/migrate": "moves data between servers that it starts",
    "tests/docs": "runs what the pages show",
    "tests/durability": "starts servers and kills them",
    "tests/fuzz": "asks every endpoint many times",
    "tests/hostile": "tries every action and endpoint as another tenant",
    "tests/system": "starts servers of its own",
}
"""Folders whose tests count as slow, each with what takes the time: ``scripts/test --fast`` leaves them out."""
ROOT = Path(__file__).parents[2]
_MARKED = re.compile(r"^pytestmark = (\[[^\]]*\]|.*)$", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even read what ``-m "not slow and ..."`` leaves out as a whole: a third of collecting is such files."""
    left_out = set(re.findall(r"not (\w+)", config.option.markexpr))
    if not left_out or " or " in config.option.markexpr or "(" in config.option.markexpr:
        return None
    if "slow" in left_out and collection_path in {ROOT / folder for folder in SLOW_FOLDERS}:
        return True
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    marks = "".join(_MARKED.findall(collection_path.read_text(encoding="utf-8")))
    return True if left_out & set(re.findall(r"pytest\.mark\.(\w+)", marks)) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow folders."""
    slow = tuple(ROOT / folder for folder in SLOW_FOLDERS)
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in slow):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Take what is there before the first test, hundreds of megabytes, out of each later garbage collection."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let it be collected in the end: libraries in C complain of what is left."""
    gc.unfreeze()
