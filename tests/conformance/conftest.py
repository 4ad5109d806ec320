"""Runs the saboteurs in a process of their own, begun before the first test and awaited by the last ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

Caught = dict[str, dict[str, str]]
"""Saboteur -> the cases that caught it, each with what it said."""

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
MODULE = "test_saboteurs.py"

_started: list[subprocess.Popen[str]] = []


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests that await the saboteurs to the end."""
    items.sort(key=lambda item: item.path.name == MODULE)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the saboteurs when a test of this session will ask for them."""
    wanted = [item for item in session.items if item.path.name == MODULE]
    if wanted and not session.config.option.collectonly:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if MEMORY.is_dir():
            environment["TMPDIR"] = str(MEMORY)
        command = [sys.executable, "-m", "tests.conformance.sabotage"]
        _started.append(subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE))


def pytest_sessionfinish() -> None:
    """Leave no process behind, also when the session was interrupted."""
    for process in _started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def caught() -> Caught:
    """What became of every saboteur."""
    process = _started[0]
    output, _ = process.communicate()
    assert process.returncode == 0, "tests.conformance.sabotage failed; see its error above"
    found: Caught = json.loads(output)
    return found
