"""``erp conformance``: what it prints, what it writes, and what it refuses before a long run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from erp.cli import app
from erp.runtime.conformance.scaffold import write_provider

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CASES = ("--case", "CACHE-01", "--case", "CACHE-20")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def conformance(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["conformance", *arguments])


def test_a_run_ends_with_one_line_and_writes_the_reports_it_was_asked_for() -> None:
    result = conformance("cache/memory", *CASES, "--junit", "found.xml", "--report", "found.md")

    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("cache/memory: 2 passed in ")
    suite = Path("found.xml").read_text(encoding="utf-8")
    assert re.findall(r'<testcase classname="cache.memory" name="(CACHE-\d\d)', suite) == ["CACHE-01", "CACHE-20"]
    assert '<testsuite name="cache/memory" tests="2" failures="0"' in suite
    report = Path("found.md").read_text(encoding="utf-8")
    assert report.startswith("# Conformance of cache/memory 1.")
    assert "| CACHE-20 |" in report


def test_a_case_may_be_named_in_small_letters() -> None:
    assert conformance("cache/memory", "--case", "cache-01").stdout.startswith("cache/memory: 1 passed")


def test_what_failed_is_told_on_one_line_with_its_rule_and_the_status_is_one(tmp_path: Path) -> None:
    source = write_provider("cache/forgetful", tmp_path) / "provider.py"
    source.write_text(source.read_text().replace("self._entries[wanted.key] = ", "_ = "))

    result = conformance("cache/forgetful", "--folder", ".", "--case", "CACHE-01", "--junit", "found.xml")

    assert (result.exit_code, result.stdout[:25]) == (1, "cache/forgetful: 1 failed")
    rule, reason = result.stderr.strip().splitlines()
    assert rule.startswith("failed CACHE-01 ``get`` MUST answer exactly the value last written by ``set``, of any JSON")
    assert reason.startswith("    get ")
    assert "<failure message=" in Path("found.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('{"nonsense": 1}', "cache/memory does not take this configuration:\n  /nonsense is not a known field"),
        ('{"max_bytes": "many"}', 'this configuration:\n  /max_bytes the value is not of type "integer"'),
        ("[1]", "settings.json must hold one object, the configuration."),
        ("{{{", "settings.json is neither JSON nor YAML: "),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_by_its_fields_before_any_case(settings: str, told: str) -> None:
    Path("settings.json").write_text(settings, encoding="utf-8")

    result = conformance("cache/memory", "--config", "settings.json", "--junit", "found.xml")

    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert not Path("found.xml").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["cache/memry"], "Did you mean memory?"),
        (["cache"], "There is no provider of domain cache named ''"),
        (["cash/memory"], "There is no domain named 'cash'"),
        (["cache/memory", "--config", "absent.json"], "absent.json cannot be read: No such file"),
        (["cache/memory", "--case", "CACHE-99"], "CACHE-99 does not apply to cache/memory. Its cases: CACHE-01, "),
        (["cache/memory", "--junit", "absent/found.xml"], "--junit absent/found.xml cannot be written. How to fix: "),
        (["cache/memory", "--report", "."], "--report . is a folder. How to fix: "),
        (["cache/memory", "--folder", "absent"], "absent' does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once_and_says_what_would_do(arguments: list[str], told: str) -> None:
    result = conformance(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert told in " ".join(result.stderr.split())
