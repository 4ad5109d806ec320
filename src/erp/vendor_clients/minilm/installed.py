"""Whether the model is there, and whether it is still what was installed."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import msgspec

from erp.vendor_clients.minilm import release

INSTALL_COMMAND = "erp models install minilm"
EXTRA_COMMAND = "pip install 'erp-provider-layer[ai-local]'"

_LIBRARIES = ("numpy", "onnxruntime", "tokenizers")


class ModelDamagedError(Exception):
    """The installed files are not the ones that were installed; installing again mends it."""


class Receipt(msgspec.Struct, kw_only=True):
    """What was installed, written last: a folder without it is not an installed model."""

    model: str
    package: str
    format: int
    opset: int
    files: dict[str, str]
    """File name -> SHA-256 of what is in the folder."""
    sources: dict[str, str]
    """File name -> SHA-256 of what it was made of."""


def folder_in(models_dir: Path) -> Path:
    """Where the model is, or would be, below ``models_dir``."""
    return models_dir / release.FOLDER


def read_receipt(models_dir: Path) -> Receipt | None:
    """Return what is installed; None when nothing is, or something this version cannot use."""
    try:
        written = (folder_in(models_dir) / release.RECEIPT).read_bytes()
        receipt = msgspec.json.decode(written, type=Receipt)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None
    usable = receipt.format == release.FORMAT and receipt.sources == dict(release.SOURCE_SHA256)
    return receipt if usable else None


def missing_libraries() -> list[str]:
    """Return the names of the libraries the encoder needs and this environment lacks."""
    return [name for name in _LIBRARIES if find_spec(name) is None]


def obstacle(models_dir: Path) -> str | None:
    """Say what keeps the model from being used and which command changes that; None when nothing does."""
    if read_receipt(models_dir) is None:
        return f"{release.MODEL_NAME} is not installed; run: {INSTALL_COMMAND}"
    if missing := missing_libraries():
        return f"{release.MODEL_NAME} needs {', '.join(missing)}; run: {EXTRA_COMMAND}"
    return None


def verify(models_dir: Path) -> Path:
    """Return the folder after comparing every file with the receipt (0.2 s).

    Raises:
        ModelDamagedError: A file is missing or has changed.
    """
    folder = folder_in(models_dir)
    receipt = read_receipt(models_dir)
    if receipt is None:
        raise ModelDamagedError(f"There is no complete model in {folder.name}; run: {INSTALL_COMMAND}")
    for name, expected in receipt.files.items():
        try:
            actual = sha256_of(folder / name)
        except OSError as error:
            raise ModelDamagedError(f"{name} of {release.MODEL_NAME} cannot be read; run: {INSTALL_COMMAND}") from error
        if actual != expected:
            raise ModelDamagedError(f"{name} of {release.MODEL_NAME} has changed; run: {INSTALL_COMMAND}")
    return folder


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
