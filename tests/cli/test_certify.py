"""``erp provider certify``: evidence of a passed suite, signed, and nothing of a failed one."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from erp.cli.provider import app
from erp.runtime.conformance.scaffold import write_provider

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ERP_CERTIFY_KEY", raising=False)
    return CliRunner()


def test_evidence_states_what_ran_and_verifies_until_it_is_changed(runner: CliRunner, tmp_path: Path) -> None:
    folder = write_provider("cache/proven", tmp_path)

    result = runner.invoke(app, ["certify", "cache/proven", "--folder", "."])

    assert result.exit_code == 0, result.stderr
    file = folder / "evidence.json"
    document = json.loads(file.read_text())
    assert (document["ref"], document["version"], document["contract"]) == ("cache/proven", "0.1.0", "1.0.0")
    assert document["peer"] == {"embedded": True, "server": None, "level": "P4"}
    assert {case["outcome"] for case in document["cases"]} == {"passed"}
    assert len(document["cases"]) > 30
    assert document["quality"]["level"] == "bronze"
    key = document["signature"]["key"]
    verified = runner.invoke(app, ["verify-evidence", str(file), "--key", key])
    assert (verified.exit_code, "cache/proven 0.1.0" in verified.stdout) == (0, True)

    file.write_text(file.read_text().replace('"bronze"', '"gold"'))
    refused = runner.invoke(app, ["verify-evidence", str(file), "--key", key])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "was changed" in refused.stderr


def test_nothing_is_certified_when_a_case_fails(runner: CliRunner, tmp_path: Path) -> None:
    folder = write_provider("cache/forgetful", tmp_path)
    source = folder / "provider.py"
    correct = source.read_text()
    source.write_text(correct.replace("self._entries[wanted.key] = ", "_ = "))

    result = runner.invoke(app, ["certify", "cache/forgetful", "--folder", "."])

    assert result.exit_code == 1
    assert "nothing was certified" in result.stderr
    assert not (folder / "evidence.json").exists()
    assert not (tmp_path / "config").exists()


def test_an_unknown_level_is_refused_before_anything_runs(runner: CliRunner) -> None:
    result = runner.invoke(app, ["certify", "cache/memory", "--level", "P9"])

    assert (result.exit_code, result.stdout) == (2, "")
    assert "--level is one of P0" in result.stderr


@pytest.mark.slow
def test_what_is_recorded_says_with_what_and_on_which_day_and_recording_it_again_changes_nothing(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "src/erp"
    (tree / "contracts").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr("erp.contracts.authored.PACKAGE", tree)
    monkeypatch.setattr("erp.runtime.conformance.folder.folder_of", lambda _: tree / "providers/secrets/local")
    command = ["certify", "secrets/local", "--record", "--server", "Vault 2.0"]

    first, second = runner.invoke(app, command), runner.invoke(app, command)

    assert (first.exit_code, second.exit_code) == (0, 0), first.stderr + second.stderr
    assert "changed; run `erp contracts generate`" in first.stdout
    assert "says so already" in second.stdout
    found = json.loads((tree / "contracts/proof.json").read_text())["secrets/local"]
    assert found["levels"] == dict.fromkeys(("following", "overlap", "rotation", "versions"), "P4")
    assert found["server"] == "Vault 2.0"
    assert datetime.date.fromisoformat(found["date"]) <= datetime.datetime.now(datetime.UTC).date()
