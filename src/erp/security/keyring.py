"""The platform's own keys: the pepper of API keys and the key-encryption keys of the secret store."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.security.data_keys import DataKeys
from erp.security.wrapping import LocalKey, Place, WrappingKey

KEY_BYTES = 32
KEYS_DIRECTORY = "keys"


class Keyring:
    """Keys in memory, and keys elsewhere that wrap for us. Never logged: the repr names none."""

    def __init__(
        self,
        pepper: bytes,
        keks: tuple[bytes, ...] = (),
        *,
        kek_file: Path | None = None,
        remote: Sequence[WrappingKey] = (),
        remote_first: bool = False,
        data_keys: DataKeys | None = None,
    ) -> None:
        """``keks``: the present key-encryption key first, then older ones that can still open secrets.

        ``kek_file``: where they came from. It is read again when it has changed: another process may rotate them.
        ``remote``: keys that are not in memory; with ``remote_first`` the first of them wraps, else it only opens.
        """
        self.pepper = pepper
        self._local = _local_keys(keks)
        self._remote = {key.id: key for key in remote}
        self._is_remote = remote_first
        self._current = remote[0].id if remote_first else kek_id(keks[0])
        self._kek_file = kek_file
        self._seen = _stamp(kek_file)
        self._data_keys = data_keys or DataKeys()

    @property
    def current(self) -> WrappingKey:
        """The key that wraps now."""
        self._refresh()
        return self._remote[self._current] if self._is_remote else self._local[self._current]

    @property
    def current_kek_id(self) -> str:
        """The public name of the key that wraps now."""
        return self.current.id

    def _refresh(self) -> None:
        stamp = _stamp(self._kek_file)
        if self._kek_file is None or stamp == self._seen:
            return
        keks = _keys(None, str(self._kek_file), self._kek_file)
        self._seen = stamp
        if not self._is_remote:
            self._current = kek_id(keks[0])
        # A key that has gone from the file is kept: what is being opened just now may need it.
        self._local |= _local_keys(keks)

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
        configured, file = environment.get("ERP_KEK"), data_dir / KEYS_DIRECTORY / "kek"
        keks = _keys(configured, "ERP_KEK", file)
        return cls(pepper_of(data_dir, environment), keks, kek_file=None if configured else file)

    def add_kek(self) -> str:
        """Make a new key-encryption key the present one, before all others in its file; return its public name.

        Raises:
            ProviderError: ``failed_precondition`` when the present key does not come from a file.
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
        self._local = {self._current: self._local[self._current]}
        self._seen = _stamp(file)
        return len(others)

    def _own_file(self) -> Path:
        if self._is_remote:
            message = (
                f"{self._current} is not made here. Name the new key first and the present one after it: "
                "ERP_KEK_URL='NEW OLD', restart all processes, and use --resume."
            )
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        if self._kek_file is None:
            message = (
                "The keys come from ERP_KEK. Put a new one first in it: ERP_KEK=NEW,OLD, and restart all processes."
            )
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return self._kek_file

    def key(self, key_id: str) -> WrappingKey:
        """Return a key that wraps.

        Raises:
            ProviderError: ``failed_precondition`` when it is not among the keys of this process.
        """
        found = self._local.get(key_id) or self._remote.get(key_id)
        if found is None:
            self._refresh()
            found = self._local.get(key_id)
        if found is None:
            message = (
                "A secret was encrypted with a key this process does not have. Add it to ERP_KEK or to ERP_KEK_URL."
            )
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=f"key {key_id}")
        return found

    async def data_key(self, key_id: str, wrapped: bytes, place: Place) -> bytes:
        """Return an unwrapped data key; those of keys elsewhere are kept for a while.

        Raises:
            ProviderError: as ``key`` and ``WrappingKey.unwrap``.
        """
        if key_id in self._local:
            return await self._local[key_id].unwrap(wrapped, place)
        where = place.encoded(key_id)
        found = self._data_keys.find(where, wrapped)
        if found is None:
            found = await self.key(key_id).unwrap(wrapped, place)
            if key_id in self._remote:
                self._data_keys.keep(where, wrapped, found)
        return found

    async def close(self) -> None:
        """Let go of keys elsewhere, and forget what they have unwrapped. Safe twice."""
        self._data_keys.forget()
        for key in self._remote.values():
            await key.close()


def pepper_of(data_dir: Path, environment: Mapping[str, str] = os.environ) -> bytes:
    """Read ``ERP_PEPPER``, or its file, which is made when it is missing.

    Raises:
        ProviderError: ``failed_precondition`` when it is malformed or readable by others.
    """
    return _keys(environment.get("ERP_PEPPER"), "ERP_PEPPER", data_dir / KEYS_DIRECTORY / "pepper")[0]


def keks_in_file(path: Path) -> tuple[bytes, ...]:
    """Read the keys of a file, which is made when it is missing.

    Raises:
        ProviderError: ``failed_precondition`` when one is malformed or the file is readable by others.
    """
    return _keys(None, str(path), path)


def keks_in_text(text: str, name: str) -> tuple[bytes, ...]:
    """Read keys in base64, separated by commas; ``name`` is what a refusal calls their place.

    Raises:
        ProviderError: ``failed_precondition`` when one is malformed.
    """
    return tuple(_decoded(part, name) for part in text.split(","))


def _local_keys(keks: tuple[bytes, ...]) -> dict[str, LocalKey]:
    return {kek_id(kek): LocalKey(kek_id(kek), kek) for kek in keks}


def kek_id(kek: bytes) -> str:
    """Return the public name of a key: it says which key, and nothing about it."""
    return hashlib.sha256(b"erp-kek-id\0" + kek).hexdigest()[:16]


def _keys(text: str | None, name: str, path: Path) -> tuple[bytes, ...]:
    if not text:
        name, text = str(path), _stored(path)
    return keks_in_text(text, name)


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
