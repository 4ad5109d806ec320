"""Servers as processes with process ids: forked from a warm zygote, or started as ``erp serve``."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tests.durability.furnishing import furnished

READY_LINE = re.compile(r"^ready (http://\S+)$", re.MULTILINE)
READY_SECONDS = 30.0
LOOK_SECONDS = 0.002
ROOT = Path(__file__).parents[2]


class ServerProcess:
    """One life of a server: from its start until SIGKILL."""

    def __init__(self, pid: int, log: Path, *, begins_at: int) -> None:
        """``begins_at``: where its part of ``log`` begins."""
        self.pid = pid
        self._pidfd = _pidfd(pid)
        self._log = log
        self._begins_at = begins_at
        self.address = ""

    @property
    def log(self) -> str:
        """What it wrote to standard error so far."""
        with self._log.open("rb") as file:
            file.seek(self._begins_at)
            return file.read().decode(errors="replace")

    def ready(self) -> ServerProcess:
        """Wait until it answers."""
        deadline = time.monotonic() + READY_SECONDS
        while not (found := READY_LINE.search(self.log)):
            assert not self.is_gone(), f"the server ended before it was ready:\n{self.log}"
            assert time.monotonic() < deadline, f"the server is not ready after {READY_SECONDS} s:\n{self.log}"
            time.sleep(LOOK_SECONDS)
        self.address = found[1].removeprefix("http://")
        return self

    def is_gone(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or ends within ``seconds``."""
        if self._pidfd is None:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def signal(self, number: int) -> None:
        """Send a signal; nothing when it has ended."""
        if self._pidfd is not None and not self.is_gone():
            signal.pidfd_send_signal(self._pidfd, number)

    def pause(self, seconds: float) -> None:
        """Stop it for that long, as a machine that is frozen would."""
        self.signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until nothing of it runs any more. Safe twice."""
        if self._pidfd is None:
            return
        self.signal(signal.SIGKILL)
        assert self.is_gone(READY_SECONDS), f"process {self.pid} survived SIGKILL"
        os.close(self._pidfd)
        self._pidfd = None


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


class Starter(Protocol):
    """Makes data directories and starts servers on them."""

    def furnish(self, data_dir: Path) -> dict[str, str]: ...

    def start(self, data_dir: Path, log: Path) -> ServerProcess: ...

    def close(self) -> None: ...


def _opened(log: Path) -> int:
    """Make a log file where there is none; return its size."""
    log.touch()
    return log.stat().st_size


class Zygote:
    """Forks servers from one warm process."""

    def __init__(self, environment: Mapping[str, str] = {}) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ERP_", "OTEL_"))}
        self.is_warm = False
        """Whether it has furnished, and so imported everything."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.durability.zygote"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**clean, **environment},
        )

    def _ask(self, order: Mapping[str, str]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the zygote ended; its reason is on standard error"
        return json.loads(line)

    def furnish(self, data_dir: Path) -> dict[str, str]:
        """Make a data directory; the first one takes seconds, and makes all that follows quick."""
        self.is_warm = True
        keys: dict[str, str] = self._ask({"furnish": str(data_dir)})
        return keys

    def start(self, data_dir: Path, log: Path) -> ServerProcess:
        size = _opened(log)
        return ServerProcess(self._ask({"serve": str(data_dir), "log": str(log)}), log, begins_at=size)

    def close(self) -> None:
        """End it and every server it forked."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait(READY_SECONDS)


class Commands:
    """Starts ``erp serve`` anew each time, as an operator does; slower by the imports."""

    def __init__(self, environment: Mapping[str, str] = {}) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ERP_", "OTEL_"))}
        self._environment = {**clean, "ERP_LOG_LEVEL": "warning", **environment}
        self._processes: list[subprocess.Popen[bytes]] = []

    def furnish(self, data_dir: Path) -> dict[str, str]:
        return furnished(data_dir)

    def start(self, data_dir: Path, log: Path) -> ServerProcess:
        size = _opened(log)
        command = [str(Path(sys.executable).with_name("erp")), "serve", "--port", "0", "--data-dir", str(data_dir)]
        with log.open("ab") as error:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=error, env=self._environment
            )
        self._processes = [other for other in self._processes if other.poll() is None] + [process]
        return ServerProcess(process.pid, log, begins_at=size)

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes:
            process.kill()
            process.wait(READY_SECONDS)
