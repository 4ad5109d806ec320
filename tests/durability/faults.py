"""A small disk of one's own that can be filled and made read-only, and calls that count what came of them."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import pytest
from tests.durability import invariants
from tests.durability.driver import Client, Reply
from tests.durability.effects import KINDS, Evidence
from tests.durability.ledger import Sent
from tests.durability.processes import ServerProcess

BLOCK = 4096
SETTLE_SECONDS = 30.0
REFUSALS = {"unavailable", "outcome_unknown"}
"""What a caller may be told while the disk does not do its work."""


class Disk:
    """An ext4 file system in a file."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._image, self.path = folder / "disk.image", folder / "disk"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(megabytes * 1024 * 1024)
        _run("mkfs.ext4", "-q", "-m", "0", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Leave that many bytes."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1024 * 1024, BLOCK):
                while _is_written(ballast, size):
                    pass
        if leave:
            os.truncate(self._ballast, self._ballast.stat().st_size - leave)

    def empty(self) -> None:
        """Make room again."""
        self._ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nothing be made, renamed or removed in any directory for the length of a block."""
        directories = [str(path) for path in (self.path, *self.path.rglob("*")) if path.is_dir()]
        _run("chattr", "+i", *directories)
        try:
            yield
        finally:
            _run("chattr", "-i", *directories)

    def sync(self) -> None:
        """Bring everything that was copied here to the device, which no server has to do."""
        _run("sync", "-f", str(self.path))

    def give_up(self) -> None:
        """Do what a failing device does: the kernel takes the file system out of use for writing, for good."""
        _run("mount", "-o", "remount,abort", str(self.path))

    def mount_again(self) -> None:
        """Repair and mount it, as after a restart of the machine."""
        _run("umount", str(self.path))
        subprocess.run(["fsck.ext4", "-p", str(self._image)], capture_output=True, check=False)
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=False)


def _is_written(ballast: FileIO, size: int) -> bool:
    try:
        return ballast.write(b"\1" * size) == size
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


def _may_end(sent: Sent) -> bool:
    """Whether an unknown outcome must still become known, because the call may be run again."""
    return sent.state == "unknown" and sent.kind.idempotent


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.returncode, f"{' '.join(command)}: {done.stderr.strip()}")


@contextmanager
def small_disk(folder: Path, megabytes: int = 24) -> Iterator[Disk]:
    """Lend a small disk; skip the test by name where none can be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a small disk is mounted, filled and made read-only")
    try:
        disk = Disk(folder, megabytes)
    except OSError as error:
        pytest.skip(f"needs ext4 and a loop device: {error.strerror}")
    try:
        yield disk
    finally:
        disk.close()


class Prober:
    """Sends one call of each kind at a time and remembers what was told about each key."""

    def __init__(self, server: ServerProcess, key: str, data_dir: Path, caller: str = "c0") -> None:
        self._key = key
        self._client = Client(server.address, key)
        self._evidence = Evidence(data_dir)
        self.caller = caller
        self._number = 0
        self.data_dir = data_dir
        self.sent: list[Sent] = []

    def probe(self) -> Counter[str]:
        """Send one new call of each kind; return how often each code was the answer."""
        codes: Counter[str] = Counter()
        for kind in KINDS.values():
            self._number += 1
            sent = Sent(f"{self.caller}.0.{self._number}", kind, 0)
            self.sent.append(sent)
            codes[self.send(sent).code] += 1
        return codes

    def send(self, sent: Sent) -> Reply:
        """Send a call, once more if it was sent before."""
        params = sent.kind.params(sent.mark)
        request_id = sent.next_request_id()
        reply = self._client.call(sent.kind.path, params, idempotency_key=sent.mark, x_request_id=request_id)
        if reply.code == "ok":
            sent.heard.append(reply.body["data"])
            assert reply.body["data"] == sent.data
            sent.state = "answered"
        elif sent.state != "answered":
            sent.state = "unknown" if reply.code == "outcome_unknown" else "pending"
        return reply

    def all_settled(self) -> list[str]:
        """Send every call again with its key until each has its end, within some seconds; return those without."""
        deadline = time.monotonic() + SETTLE_SECONDS
        left = list(self.sent)
        while left and time.monotonic() < deadline:
            left = [sent for sent in left if self.send(sent).code in {"unavailable", "conflict"} or _may_end(sent)]
            time.sleep(0.05 if left else 0)
        return [f"{sent.mark}: the {sent.kind.name} is still {sent.state}" for sent in left]

    def all_delivered(self) -> bool:
        """Whether every event and every step of an order comes to its end within some seconds."""
        waiting = "SELECT count(*) FROM outbox WHERE state = 'due'"
        pending = "SELECT count(*) FROM order_steps WHERE status = 'pending'"
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            if not self._evidence.database(pending)[0][0] and not self._evidence.control(waiting)[0][0]:
                return True
            time.sleep(0.02)
        return False

    def violations(self) -> list[str]:
        """Return what is lost, doubled, half done, out of order or not audited."""
        refused = [sent for sent in self.sent if sent.state == "pending" and not sent.kind.idempotent]
        return [
            *invariants.effects(self._evidence, self.sent),
            *(f"{mark}: refused, but there" for mark in self._there(refused)),
            *invariants.rotations(self._evidence, self.sent),
            *invariants.publications_in_order(self._evidence, self.sent),
            *invariants.Chain().check(self._evidence),
            *invariants.audited(self._evidence, self.sent),
        ]

    def _there(self, sent: list[Sent]) -> Iterator[str]:
        for item in sent:
            if item.kind.find is not None and item.kind.find(self._evidence, [item.mark]).whole[item.mark]:
                yield item.mark

    def reconnect(self, server: ServerProcess) -> None:
        """Go on with another server."""
        self._client.close()
        self._client = Client(server.address, self._key)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
