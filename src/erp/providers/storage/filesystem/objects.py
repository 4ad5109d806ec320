"""Objects in files: a head of JSON, then the content. A file is written aside and renamed, so it is whole or not there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import struct
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from threading import Lock

import msgspec

from erp.providers.storage.filesystem.names import file_name, is_object, key_of

_LENGTH = struct.Struct(">4sI")
_MAGIC = b"ERO1"
_TEMPORARY = "tmp-"
_LOCK = "objects.lock"
OLD_TEMPORARY_SECONDS = 3600.0
CHUNK_BYTES = 1024 * 1024
NO_DIGEST = "0" * 64


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
    """The objects of one tenant and connection. Used from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = Lock()

    def open(self) -> None:
        """Make the folder and remove what a killed process left half written."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.with_name(_LOCK).touch(mode=0o600)
        self.sweep()

    def sweep(self) -> None:
        """Remove files that nobody is writing any more."""
        for path in self._folder.glob(f"{_TEMPORARY}*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - OLD_TEMPORARY_SECONDS:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and other processes from changing an object meanwhile."""
        with self._writing, self._folder.with_name(_LOCK).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, also by the end of the process
            yield

    def head(self, key: str) -> Head | None:
        """Return what is known of an object."""
        return self._head(self._folder / file_name(key))

    def _head(self, path: Path) -> Head | None:
        try:
            with opened(path) as file:
                return _read_head(file.fileno())[0]
        except FileNotFoundError:
            return None

    def write(self, head: Head, content: Iterable[bytes], condition: Condition) -> Head:
        """Write an object durably and return its head, whose digest and size are those of ``content``.

        The condition is checked and the file exchanged without a gap between them. Whatever goes wrong, the object is
        as it was.
        """
        temporary = self._folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            written = _write_file(temporary, head, content)
            with self._alone():
                if condition != Condition():
                    condition.check(self.head(head.key))
                temporary.replace(self._folder / file_name(head.key))
            _sync_folder(self._folder)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return written

    def content(self, key: str) -> tuple[Head, Generator[bytes]] | None:
        """Return an object's head and its content in chunks; the object may be replaced meanwhile."""
        try:
            file = opened(self._folder / file_name(key))
        except FileNotFoundError:
            return None
        try:
            head, start = _read_head(file.fileno())
            file.seek(start)
        except BaseException:
            file.close()
            raise
        return head, _chunks(file, head.size)

    def read(self, key: str, offset: int, length: int | None) -> tuple[Head, bytes] | None:
        """Return an object's head and a part of its content."""
        try:
            with opened(self._folder / file_name(key)) as file:
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
        with self._alone():
            try:
                (self._folder / file_name(key)).unlink()
            except FileNotFoundError:
                return False
        _sync_folder(self._folder)
        return True

    def delete_if(self, head: Head) -> bool:
        """Remove an object durably if it is still the one with this head."""
        with self._alone():
            present = self.head(head.key)
            if present is None or present != head:
                return False
            (self._folder / file_name(head.key)).unlink()
        _sync_folder(self._folder)
        return True

    def entries(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield the keys of all objects with their files, in no order. Only long keys cost a look into the file."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not is_object(entry.name):
                    continue
                key = key_of(entry.name)
                if key is None:
                    head = self._head(Path(entry.path))
                    key = None if head is None else head.key
                if key is not None:
                    yield key, entry


def opened(path: Path) -> FileIO:
    """Open a file to be read, never one that a link leads to.

    Raises:
        FileNotFoundError: it is not there.
        DamagedError: a link is there, which nothing here makes.
    """
    try:
        return FileIO(path, opener=_without_links)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        message = "There is a link where a file should be."
        raise DamagedError(message) from error


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _write_file(path: Path, head: Head, content: Iterable[bytes]) -> Head:
    """Write the content behind room for the head, and the head when its digest is known."""
    size, digest = 0, hashlib.sha256()
    with path.open("xb") as file:
        room = len(msgspec.json.encode(msgspec.structs.replace(head, sha256=NO_DIGEST, size=2**53)))
        file.seek(_LENGTH.size + room)
        for chunk in content:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        written = msgspec.structs.replace(head, sha256=digest.hexdigest(), size=size)
        text = msgspec.json.encode(written).ljust(room)  # blanks behind JSON are no part of it
        file.seek(0)
        file.write(_LENGTH.pack(_MAGIC, room) + text)
        file.flush()
        os.fsync(file.fileno())
    return written


def _chunks(file: FileIO, size: int) -> Generator[bytes]:
    with file:
        while size > 0:
            chunk = file.read(min(CHUNK_BYTES, size))
            if not chunk:
                message = "The file is shorter than its head says."
                raise DamagedError(message)
            size -= len(chunk)
            yield chunk


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
