"""The suite under pytest, run as an author of a provider runs it: in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from erp.runtime.conformance.scaffold import write_provider

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_provider("cache/plugged", tmp_path)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder.parents[1], capture_output=True, text=True, timeout=300, check=False)


SUITE = ("--pyargs", "erp.runtime.conformance.suite", "--erp-provider", "cache/plugged", "--erp-folder", ".")


def test_every_case_is_a_test_and_the_configuration_is_used(folder: Path) -> None:
    (folder.parents[1] / "settings.yaml").write_text("max_entries: 7\n")

    ended = run(folder, *SUITE, "--erp-config", "settings.yaml", "-rf")

    assert ended.returncode == 1, ended.stdout
    failed = {line.split("[")[1][:8] for line in ended.stdout.splitlines() if line.startswith("FAILED")}
    assert "CACHE-03" in failed  # it needs twelve entries
    assert "CACHE-02" not in failed


def test_a_correct_provider_passes(folder: Path) -> None:
    ended = run(folder, *SUITE)

    assert ended.returncode == 0, ended.stdout
    assert " passed" in ended.stdout
    assert "failed" not in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--erp-provider", "cache/memry"), "Did you mean memory"),
        (("--erp-provider", "memory"), "There is no domain"),
        (("--erp-provider", "cache/memory", "--erp-config", "nowhere.yaml"), "nowhere.yaml cannot be read"),
    ],
)
def test_a_wrong_option_is_explained_and_nothing_runs(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    ended = run(folder, "--pyargs", "erp.runtime.conformance.suite", *arguments)

    assert ended.returncode != 0
    assert words in ended.stdout + ended.stderr
    assert " passed" not in ended.stdout


def test_a_gap_that_has_closed_fails_and_an_open_one_is_expected(folder: Path) -> None:
    manifest = folder / "provider.yaml"
    gaps = "gaps: [{case: CACHE-02, kind: ours, reason: Not done yet.}, {case: CACHE-01, kind: never, reason: It forgets.}]"
    manifest.write_text(manifest.read_text().replace("gaps: []", gaps))
    source = folder / "provider.py"
    source.write_text(source.read_text().replace("encoded(wanted.value)", 'encoded("always the same")'))

    ended = run(folder, *SUITE, "-k", "CACHE-01 or CACHE-02", "-rxf")

    assert ended.returncode == 1
    assert "1 failed, " in ended.stdout
    assert "1 xfailed" in ended.stdout
    assert "remove the gap" in ended.stdout
