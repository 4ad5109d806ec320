"""Every script says how it is used and refuses what it does not understand."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix in {"", ".sh"})
PROGRAMS = [path for path in SCRIPTS if path.suffix == ""]


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci/run"], ids=lambda path: path.name)
def test_a_script_has_a_usage_line(script: Path) -> None:
    head = script.read_text().splitlines()[:2]
    assert [line for line in head if re.match(r"# Usage: \S+", line)], head


@pytest.mark.parametrize("script", [*PROGRAMS, ROOT / ".ci/run"], ids=lambda path: path.name)
def test_a_script_is_an_executable_program(script: Path) -> None:
    assert script.read_text().startswith("#!/usr/bin/env ")
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci/run"], ids=lambda path: path.name)
def test_a_shell_script_parses(script: Path) -> None:
    ended = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False, timeout=10)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("name", ["bootstrap", "check", "lock", "services", "test"])
def test_a_script_prints_its_usage_when_asked(name: str) -> None:
    ended = subprocess.run(
        [str(ROOT / "scripts" / name), "--help"], capture_output=True, text=True, check=False, timeout=10
    )
    assert ended.returncode == 0
    assert ended.stdout.startswith(f"Usage: scripts/{name}")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["bootstrap", "production"], "'production' is not 'runtime' or 'dev'"),
        (["check", "this"], "takes no arguments"),
        (["lock", "yesterday"], "is not a day such as 2026-01-31"),
        (
            ["services", "up", "/tmp/none", "oracle"],
            "there is no service 'oracle'; there are: aws_moto memcached nats postgres redis softhsm vault_double",
        ),
        (["services", "restart"], "Usage: scripts/services up DIRECTORY [NAME...] | down DIRECTORY"),
    ],
)
def test_a_script_refuses_what_it_does_not_understand(command: list[str], message: str) -> None:
    program, *arguments = command
    ended = subprocess.run(
        [str(ROOT / "scripts" / program), *arguments], capture_output=True, text=True, check=False, timeout=10
    )
    assert ended.returncode == 2
    assert message in ended.stderr
