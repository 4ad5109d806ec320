"""``erp provider``: what it prints, and with which status it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from erp.cli.provider import app


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def test_new_says_what_it_wrote_and_what_to_do_next(runner: CliRunner) -> None:
    result = runner.invoke(app, ["new", "cache/example"])

    assert result.exit_code == 0
    assert "cache/example/provider.py" in result.stdout
    assert "erp provider check cache/example" in result.stdout
    assert "erp conformance cache/example --folder ." in result.stdout


def test_new_never_overwrites(runner: CliRunner) -> None:
    runner.invoke(app, ["new", "cache/example"])

    result = runner.invoke(app, ["new", "cache/example"])

    assert (result.exit_code, result.stdout) == (2, "")
    assert "nothing was written" in result.stderr


def test_check_of_a_sound_provider_shows_its_level_and_what_the_next_one_asks_for(runner: CliRunner) -> None:
    runner.invoke(app, ["new", "cache/example"])

    result = runner.invoke(app, ["check", "cache/example"])

    assert (result.exit_code, result.stderr) == (0, "")
    assert "cache/example: sound, level bronze" in result.stdout
    assert "for silver: SILVER-01" in result.stdout


def test_check_ends_with_one_and_the_mend_until_the_finding_is_gone(runner: CliRunner, tmp_path: Path) -> None:
    runner.invoke(app, ["new", "cache/example"])
    source = tmp_path / "cache/example/provider.py"
    correct = source.read_text()
    source.write_text(f"{correct}\nprint('hello')\n")

    broken = runner.invoke(app, ["check", "cache/example"])
    assert broken.exit_code == 1
    assert "BRONZE-06" in broken.stderr
    assert "How to fix: raise ProviderError" in broken.stderr

    source.write_text(correct)
    assert runner.invoke(app, ["check", "cache/example"]).exit_code == 0


@pytest.mark.slow
def test_check_without_a_name_checks_every_known_provider(runner: CliRunner) -> None:
    result = runner.invoke(app, ["check"])

    assert (result.exit_code, result.stderr) == (0, "")
    assert "cache/memory: sound" in result.stdout
    assert "db/sqlite: sound" in result.stdout


def test_check_in_a_provider_s_folder_checks_that(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.invoke(app, ["new", "cache/example"])
    monkeypatch.chdir(tmp_path / "cache/example")

    assert runner.invoke(app, ["check"]).stdout.startswith("cache/example: sound")


@pytest.mark.parametrize("target", ["cache/memry", "nowhere", "a/b/c"])
def test_check_of_what_is_not_there_is_refused_with_a_hint(target: str, runner: CliRunner) -> None:
    result = runner.invoke(app, ["check", target])

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("erp: ")
