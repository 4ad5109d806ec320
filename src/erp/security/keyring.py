"""The platform's own keys: the pepper of API keys and the key-encryption keys of the secret store."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

KEY_BYTES = 32
KEYS_DIRECTORY = "keys"


class Keyring:
    """Keys in memory. Never logged: the repr names none."""

    def __init__(self, pepper: bytes, keks: tuple[bytes, ...], *, kek_file: Path | None = None) -> None:
        """``keks``: the present key-encryption key first, then older ones that can still open secrets.

        ``kek_file``: where they came from. It is read again when it has changed: another process may rotate them.
        """
        self.pepper = pepper
        self._current = kek_id(keks[0])
        self._keks = {kek_id(kek): kek for kek in keks}
        self._kek_file = kek_file
        self._seen = _stamp(kek_file)

    @property
    def current_kek_id(self) -> str:
        """The public name of the key that encrypts now."""
        self._refresh()
        return self._current

    def _refresh(self) -> None:
        stamp = _stamp(self._kek_file)
        if self._kek_file is None or stamp == self._seen:
            return
        keks = _keys(None, str(self._kek_file), self._kek_file)
        self._current, self._seen = kek_id(keks[0]), stamp
        # A key that has gone from the file is kept: what is being opened just now may need it.
        self._keks |= {kek_id(kek): kek for kek in keks}

    def __repr__(self) -> str:
        return f"Keyring(current_kek_id={self._current!r})"

    @classmethod
    def open(cls, data_dir: Path, environment: Mapping[str, str] = os.environ) -> Keyring:
        """Read ``ERP_PEPPER`` and ``ERP_KEK`` (base64, 32 bytes), or files under ``data_dir/keys``.

        Missing files are made at once, with mode 0600; of several processes that start together one
        makes them and all use its keys. ``ERP_KEK`` may name several keys, separated by commas: the
        first encrypts, the others only decrypt.

        Raises:
            ProviderError: ``failed_precondition`` when a key is malformed or a file is readable by others.
        """
        directory = data_dir / KEYS_DIRECTORY
        pepper = _keys(environment.get("ERP_PEPPER"), "ERP_PEPPER", directory / "pepper")
        configured, file = environment.get("ERP_KEK"), directory / "kek"
        return cls(pepper[0], _keys(configured, "ERP_KEK", file), kek_file=None if configured else file)

    def add_kek(self) -> str:
        """Make a new key-encryption key the present one, before all others in its file; return its public name.

        Raises:
            ProviderError: ``failed_precondition`` when the keys come from ``ERP_KEK``.
        """
        file = self._own_file()
        made = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        _replace(file, f"{made},{file.read_text('ascii')}")
        return self.current_kek_id

    def forget_old_keks(self) -> int:
        """Leave only the present key in the file; return how many went. Nothing may need them any more."""
        file = self._own_file()
        first, *others = file.read_text("ascii").split(",")
        _replace(file, first)
        self._keks = {self._current: self._keks[self._current]}
        self._seen = _stamp(file)
        return len(others)

    def _own_file(self) -> Path:
        if self._kek_file is None:
            message = (
                "The keys come from ERP_KEK. Put a new one first in it: ERP_KEK=NEW,OLD, and restart all processes."
            )
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return self._kek_file

    def kek(self, key_id: str) -> bytes:
        """Return a key-encryption key.

        Raises:
            ProviderError: ``failed_precondition`` when it is not among the keys of this process.
        """
        found = self._keks.get(key_id)
        if found is None:
            self._refresh()
            found = self._keks.get(key_id)
        if found is None:
            message = "A secret was encrypted with a key this process does not have. Add it to ERP_KEK."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=f"key {key_id}")
        return found


def kek_id(kek: bytes) -> str:
    """Return the public name of a key: it says which key, and nothing about it."""
    return hashlib.sha256(b"erp-kek-id\0" + kek).hexdigest()[:16]


def _keys(text: str | None, name: str, path: Path) -> tuple[bytes, ...]:
    if not text:
        name, text = str(path), _stored(path)
    return tuple(_decoded(part, name) for part in text.split(","))


def _decoded(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        message = f"{name} must be {KEY_BYTES} bytes in base64. Make one with: openssl rand -base64 {KEY_BYTES}"
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return key


def _stored(path: Path) -> str:
    if not path.exists():
        _create(path)
    if path.stat().st_mode & 0o077:
        message = f"{path} can be read by others. Run: chmod 600 {path}"
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return path.read_text("ascii")


def _create(path: Path) -> None:
    """Put a new key at ``path``, complete or not at all, unless another process was first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)))
            file.flush()
            os.fsync(file.fileno())
        # A link fails when the name exists, where a rename would replace the other process's key.
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    _sync_directory(path.parent)


def _replace(path: Path, text: str) -> None:
    """Put other keys in the place of a key file, all at once."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode("ascii"))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync_directory(path.parent)


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """What changes when a file is replaced."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns) if found else None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
