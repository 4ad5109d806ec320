"""A server of ``scripts/services`` that a test has for itself: stopped, killed and started again as it was."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
ANSWER_SECONDS = 30
LISTENING = "0A"
"""State of a socket in ``/proc/net/tcp``."""


class ServerProcess:
    """One running server. Its command, user and folder are read from the process, so that it can be started anew."""

    def __init__(self, name: str, place: Path | None = None) -> None:
        """Start it, with everything it keeps in ``place``, or where temporary files are."""
        self._folder = Path(tempfile.mkdtemp(prefix="erp-faults-", dir=place))
        self._folder.chmod(0o711)  # servers run as users of their own below it
        variable = f"ERP_TEST_{name.upper()}"
        environment = {key: value for key, value in os.environ.items() if key != variable}
        command = [str(ROOT / "scripts/services"), "up", str(self._folder / "services"), name]
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=START_SECONDS, check=False
        )
        found = re.search(rf"export {variable}='(.*)'", ended.stdout)
        assert found, ended.stderr
        self.address = found[1]
        self.port = urlsplit(self.address if "//" in self.address else f"//{self.address}").port or 0
        self._started: subprocess.Popen[bytes] | None = None
        self._pid = _listener(self.port)
        process = Path(f"/proc/{self._pid}")
        self._command = process.joinpath("cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        if name == "redis":  # it writes its title over its arguments
            self._command = _redis(self.address)
        self._directory = process.joinpath("cwd").readlink()
        entries = process.joinpath("environ").read_bytes().split(b"\0")
        self._environment = dict(entry.partition(b"=")[::2] for entry in entries if entry)
        self._owner = process.stat()

    @property
    def environment(self) -> dict[str, str]:
        """What it was started with."""
        return {name.decode(): value.decode() for name, value in self._environment.items()}

    def stop(self) -> None:
        """Have it answer nothing, its connections open."""
        for pid in (self._pid, *_children(self._pid)):
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End ``stop``."""
        for pid in (self._pid, *_children(self._pid)):
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as a failing machine would, and wait until nobody answers."""
        os.kill(self._pid, signal.SIGKILL)
        if self._started is not None:
            self._started.wait()
        ends = time.monotonic() + ANSWER_SECONDS
        while _answers(self.port):
            assert time.monotonic() < ends, "the server outlived SIGKILL"
            time.sleep(0.05)

    def start(self) -> None:
        """Start it again on its port, with what it has kept."""
        ends = time.monotonic() + ANSWER_SECONDS
        while not _answers(self.port):
            assert time.monotonic() < ends, f"{self._command[0].decode()} does not start again"
            if self._started is None or self._started.poll() is not None:
                self._started = self._again()
            time.sleep(0.1)
        self._pid = _listener(self.port)

    def _again(self) -> subprocess.Popen[bytes]:
        is_root = os.getuid() == 0
        return subprocess.Popen(
            self._command,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            user=self._owner.st_uid if is_root else None,
            group=self._owner.st_gid if is_root else None,
        )

    def close(self) -> None:
        """End it and remove what it has kept."""
        if self._started is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._started.wait()
        subprocess.run([str(ROOT / "scripts/services"), "down", str(self._folder / "services")], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


def _redis(address: str) -> list[bytes]:
    """What ``scripts/services.d/redis`` starts."""
    url = urlsplit(address)
    options = {
        "bind": "127.0.0.1",
        "port": str(url.port),
        "requirepass": url.password or "",
        "save": "",
        "appendonly": "no",
    }
    return [b"redis-server", *(part.encode() for name, value in options.items() for part in (f"--{name}", value))]


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _listener(port: int) -> int:
    """Return the process that listens on a port of 127.0.0.1 (``proc_pid_net(5)``); the oldest, when it has children."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == LISTENING and int(row[1].partition(":")[2], 16) == port}
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _holds(path, inodes)]
    assert found, f"nobody listens on port {port}"
    return min(found)


def _holds(process: Path, inodes: set[str]) -> bool:
    names = {f"socket:[{inode}]" for inode in inodes}
    with suppress(OSError):
        for descriptor in process.joinpath("fd").iterdir():
            with suppress(OSError):
                if str(descriptor.readlink()) in names:
                    return True
    return False
