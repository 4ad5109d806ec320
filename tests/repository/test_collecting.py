"""``scripts/test --fast`` leaves files unread, and no test with them that it would have run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def collected(root: Path, expression: str) -> set[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", expression]
    told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=50)
    return {line for line in told.stdout.splitlines() if "::" in line}


def test_what_is_not_read_has_no_test_that_would_run(root: Path) -> None:
    reading_all = collected(root, "(not live) and (not slow) and (not model)")

    assert collected(root, "not live and not slow and not model") == reading_all
    assert len(reading_all) > 5000
