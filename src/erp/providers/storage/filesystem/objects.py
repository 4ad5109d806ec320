"""Objects in files: a head of JSON, then the content. A file is written aside and renamed, so it is whole or not there."""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import msgspec

from erp.providers.storage.filesystem.names import file_name, is_object

_LENGTH = struct.Struct(">4sI")
_MAGIC = b"ERO1"
_TEMPORARY = "tmp-"
OLD_TEMPORARY_SECONDS = 3600.0


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an object beside its content."""

    key: str
    content_type: str
    metadata: dict[str, str]
    sha256: str
    size: int
    modified_at: float

    @property
    def etag(self) -> str:
        """Changes with the content, the type and the metadata."""
        facts = msgspec.json.encode([self.sha256, self.content_type, self.metadata], order="sorted")
        return hashlib.sha256(facts).hexdigest()[:32]


class ConditionFailedError(Exception):
    """The object is not what the caller expected."""


class DamagedError(Exception):
    """A file does not hold what its head says."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What has to hold for a write."""

    etag: str | None = None
    is_absent: bool = False

    def check(self, present: Head | None) -> None:
        """Raise ConditionFailedError when it does not hold."""
        if self.is_absent and present is not None:
            message = "There is an object under this key already."
            raise ConditionFailedError(message)
        if self.etag is not None and (present is None or present.etag != self.etag):
            message = "The object is not the one with this etag any more."
            raise ConditionFailedError(message)


class ObjectFolder:
    """The objects of one tenant and connection. Used from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = Lock()

    def open(self) -> None:
        """Make the folder and remove what a killed process left half written."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.glob(f"{_TEMPORARY}*"):
            if path.stat().st_mtime < time.time() - OLD_TEMPORARY_SECONDS:
                path.unlink(missing_ok=True)

    def head(self, key: str) -> Head | None:
        """Return what is known of an object."""
        return self._head(self._folder / file_name(key))

    def _head(self, path: Path) -> Head | None:
        try:
            with path.open("rb") as file:
                return _read_head(file.fileno())[0]
        except FileNotFoundError:
            return None

    def write(self, head: Head, content: bytes, condition: Condition) -> None:
        """Write an object durably; the condition is checked and the file exchanged without a gap between them."""
        temporary = self._folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            _write_file(temporary, head, content)
            with self._writing:
                if condition != Condition():
                    condition.check(self.head(head.key))
                temporary.replace(self._folder / file_name(head.key))
            _sync_folder(self._folder)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def read(self, key: str, offset: int, length: int | None) -> tuple[Head, bytes] | None:
        """Return an object's head and a part of its content."""
        try:
            with (self._folder / file_name(key)).open("rb") as file:
                head, start = _read_head(file.fileno())
                wanted = max(head.size - offset, 0) if length is None else min(length, max(head.size - offset, 0))
                content = os.pread(file.fileno(), wanted, start + offset)
        except FileNotFoundError:
            return None
        if len(content) != wanted:
            message = "The file is shorter than its head says."
            raise DamagedError(message)
        return head, content

    def delete(self, key: str) -> bool:
        """Remove an object durably."""
        with self._writing:
            try:
                (self._folder / file_name(key)).unlink()
            except FileNotFoundError:
                return False
        _sync_folder(self._folder)
        return True

    def heads(self) -> Iterator[Head]:
        """Return all objects, in no order."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                head = self._head(Path(entry.path)) if is_object(entry.name) else None
                if head is not None:
                    yield head


def _write_file(path: Path, head: Head, content: bytes) -> None:
    text = msgspec.json.encode(head)
    with path.open("xb") as file:
        file.write(_LENGTH.pack(_MAGIC, len(text)))
        file.write(text)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read_head(descriptor: int) -> tuple[Head, int]:
    start = os.pread(descriptor, _LENGTH.size, 0)
    if len(start) != _LENGTH.size or start[:4] != _MAGIC:
        message = "The file does not begin with a head."
        raise DamagedError(message)
    length = _LENGTH.unpack(start)[1]
    try:
        head = msgspec.json.decode(os.pread(descriptor, length, _LENGTH.size), type=Head)
    except msgspec.MsgspecError as error:
        message = "The head of the file cannot be read."
        raise DamagedError(message) from error
    return head, _LENGTH.size + length


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
