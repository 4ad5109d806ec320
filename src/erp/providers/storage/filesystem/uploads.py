"""Uploads in parts: each a folder with what the object shall be, and a file for every part that has arrived."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from erp.providers.storage.filesystem.objects import CHUNK_BYTES, Head, opened

KEPT_SECONDS = 7 * 24 * 3600.0
"""How long an upload may take, and how long its end is remembered."""
_ABOUT, _DONE = "about.json", "done.json"
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")
_PART = re.compile(r"part-(\d{5})-([0-9a-f]{64})\Z")


class NoUploadError(Exception):
    """There is no such upload for this key."""


class PartMissingError(Exception):
    """A part has not arrived, or is another one."""


class Done(msgspec.Struct, frozen=True):
    """What a completed upload became."""

    etag: str
    size: int


class Uploads:
    """The unfinished uploads of one tenant and connection."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Make the folder."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(self, head: Head) -> str:
        """Begin an upload of what ``head`` describes; return its name."""
        upload = secrets.token_hex(16)
        folder = self._folder / f"new-{upload}"
        folder.mkdir(mode=0o700)
        _write(folder / _ABOUT, msgspec.json.encode(head))
        folder.rename(self._folder / upload)
        return upload

    def about(self, upload: str, key: str) -> Head:
        """Return what the object shall be.

        Raises:
            NoUploadError: the upload does not exist, has ended, or is of another key.
        """
        head = self._about(upload, key)
        if (self._folder / upload / _DONE).exists():
            raise NoUploadError
        return head

    def _about(self, upload: str, key: str) -> Head:
        try:
            text = (self._folder / upload / _ABOUT).read_bytes() if _UPLOAD.match(upload) else b""
        except FileNotFoundError:
            text = b""
        head = msgspec.json.decode(text, type=Head) if text else None
        if head is None or head.key != key:
            raise NoUploadError
        return head

    def add(self, upload: str, key: str, number: int, content: bytes) -> str:
        """Keep a part durably, instead of one with the same number; return its etag."""
        self.about(upload, key)
        folder, etag = self._folder / upload, hashlib.sha256(content).hexdigest()
        path = folder / f"part-{number:05}-{etag}"
        _write(folder / f"new-{secrets.token_hex(8)}", content, path)
        for other in folder.glob(f"part-{number:05}-*"):
            if other != path:
                other.unlink(missing_ok=True)
        return etag

    def parts(self, upload: str, key: str) -> list[tuple[int, str, int]]:
        """Return number, etag and size of the parts that have arrived, in their order."""
        self.about(upload, key)
        with os.scandir(self._folder / upload) as entries:
            found = [(match, entry) for entry in entries if (match := _PART.match(entry.name))]
            return sorted((int(match[1]), match[2], entry.stat().st_size) for match, entry in found)

    def content(self, upload: str, key: str, wanted: Sequence[tuple[int, str]]) -> Iterator[bytes]:
        """Return the content of the wanted parts in the order of their numbers, in chunks.

        Raises:
            PartMissingError: before anything is read.
        """
        arrived = {number: etag for number, etag, _ in self.parts(upload, key)}
        for number, etag in wanted:
            if arrived.get(number) != etag:
                message = f"The part {number} has not arrived, or not with this etag. list_parts says which have."
                raise PartMissingError(message)
        paths = [self._folder / upload / f"part-{number:05}-{etag}" for number, etag in sorted(wanted)]
        return (chunk for path in paths for chunk in _chunks(path))

    def done(self, upload: str, key: str) -> Done | None:
        """Return what an upload became, when it was completed."""
        self._about(upload, key)
        try:
            return msgspec.json.decode((self._folder / upload / _DONE).read_bytes(), type=Done)
        except FileNotFoundError:
            return None

    def complete(self, upload: str, done: Done) -> None:
        """Remember what the upload became, and let its parts go."""
        folder = self._folder / upload
        _write(folder / f"new-{secrets.token_hex(8)}", msgspec.json.encode(done), folder / _DONE)
        for part in folder.glob("part-*"):
            part.unlink(missing_ok=True)

    def abort(self, upload: str, key: str) -> bool:
        """Remove an upload that has not ended; False when there is none."""
        try:
            self.about(upload, key)
        except NoUploadError:
            return False
        shutil.rmtree(self._folder / upload, ignore_errors=True)
        return True

    def sweep(self, older_than_seconds: float = KEPT_SECONDS) -> float | None:
        """Remove uploads that nobody finishes any more; return when the next one may go, if there is one."""
        oldest: float | None = None
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    begun = entry.stat().st_mtime
                    if begun < time.time() - older_than_seconds:
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        oldest = begun if oldest is None else min(oldest, begun)
        return None if oldest is None else oldest + older_than_seconds


def _chunks(path: Path) -> Iterator[bytes]:
    with opened(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _write(path: Path, content: bytes, target: Path | None = None) -> None:
    """Write a file durably, aside when it has a target: whole, or not there."""
    try:
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target is not None:
            path.replace(target)
    except BaseException:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise
