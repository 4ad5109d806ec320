"""``erp serve --workers N``: processes that listen on one socket, watched by the one that started them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

if TYPE_CHECKING:
    from erp.gateway.tls import Tls
    from erp.main import Settings

WORKER = "ERP_WORKER"
"""Set for a worker: the file descriptors of the socket and of the pipe on which it says that it is ready, and who started it."""
BACKLOG = 2048
QUICK_SECONDS = 10.0
MOST_QUICK_ENDS = 5
"""So many workers that end within so many seconds mean that no worker can run."""
POLL_SECONDS = 0.2
PARENT_SECONDS = 0.5
KILL_AFTER_SECONDS = 15.0
"""Beyond the time to drain."""


@dataclass(slots=True)
class Shared:
    """What a worker has from the process that started it."""

    socket: socket.socket
    pipe: int
    parent: int

    @classmethod
    def from_environment(cls) -> Shared | None:
        """Return it, or None in a process that nobody started as a worker."""
        text = os.environ.get(WORKER)
        if text is None:
            return None
        number, pipe, parent = (int(part) for part in text.split(","))
        return cls(socket.socket(fileno=number), pipe, parent)

    async def end_with_parent(self) -> None:
        """End this process, draining, when the one that started it is gone: nobody would end it otherwise."""
        while os.getppid() == self.parent:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(PARENT_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    def ready(self, listens_at: Callable[[str], None]) -> Callable[[str], None]:
        """Return what is called when the worker answers: it tells the address to ``listens_at``, and the parent."""

        def told(address: str) -> None:
            listens_at(address)
            with contextlib.suppress(OSError):
                os.write(self.pipe, b"r")

        return told


class Workers:
    """Starts workers, starts those again that die, and ends all of them when told."""

    def __init__(
        self, settings: Settings, host: str, port: int, drain_seconds: int, count: int, tls: Tls | None = None
    ) -> None:
        self._tls = tls
        self._settings = settings
        self._drain_seconds = drain_seconds
        self._count = count
        self._socket = _listening(host, port)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ends: list[float] = []
        self._is_stopping = False
        self._read, self._write = os.pipe()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status."""
        asyncio.run(self._prepare())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._processes = [self._started() for _ in range(self._count)]
        if self._until_ready():
            host, port = self._socket.getsockname()[:2]
            scheme = "http" if self._tls is None else "https"
            address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
            print(f"ready {address} ({self._count} workers)", file=sys.stderr, flush=True)
        return self._watch()

    async def _prepare(self) -> None:
        """Make the schema and the first key once, before several processes would."""
        from erp.main import running

        async with running(self._settings) as layer:
            if key := await layer.first_key():
                print(f"administrator key (shown only now): {key}", file=sys.stderr, flush=True)

    def _started(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            WORKER: f"{self._socket.fileno()},{self._write},{os.getpid()}",
            "ERP_PROCESSES": str(max(self._count, self._settings.processes)),
        }
        options = ["--data-dir", str(self._settings.data_dir), "--drain-seconds", str(self._drain_seconds)]
        options += [] if self._tls is None else self._tls.options
        return subprocess.Popen(  # noqa: S603  (this program itself)
            [sys.executable, "-m", "erp.cli", "serve", *options],
            env=environment,
            pass_fds=(self._socket.fileno(), self._write),
            start_new_session=True,  # Ctrl-C reaches them through this process, once
        )

    def _until_ready(self) -> bool:
        """Wait until every worker answers; False when one has ended instead, or all shall."""
        os.set_blocking(self._read, False)
        ready = 0
        while ready < self._count and not self._is_stopping:
            with contextlib.suppress(BlockingIOError):
                ready += len(os.read(self._read, self._count))
            if any(process.poll() is not None for process in self._processes):
                return False
            time.sleep(POLL_SECONDS / 4)
        return not self._is_stopping

    def _watch(self) -> int:
        while not self._is_stopping:
            for index, process in enumerate(self._processes):
                if process.poll() is not None and not self._is_stopping:
                    self._ends.append(time.monotonic())
                    if self._is_hopeless():
                        print("erp: the workers keep ending; see their errors above.", file=sys.stderr)
                        self._stop()
                        self._wait()
                        return 1
                    print(
                        f"erp: worker {process.pid} ended with {process.returncode}; starting another", file=sys.stderr
                    )
                    self._processes[index] = self._started()
            time.sleep(POLL_SECONDS)
        return self._wait()

    def _is_hopeless(self) -> bool:
        recent = [end for end in self._ends if end > time.monotonic() - QUICK_SECONDS]
        self._ends = recent
        return len(recent) >= MOST_QUICK_ENDS

    def _stop(self, *_: object) -> None:
        """Pass a signal to end on; a second one makes the workers hurry."""
        number = signal.SIGINT if self._is_stopping else signal.SIGTERM
        self._is_stopping = True
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    def _wait(self) -> int:
        """Wait for the workers to drain; return 0 when all did."""
        ends = time.monotonic() + self._drain_seconds + KILL_AFTER_SECONDS
        for process in self._processes:
            try:
                process.wait(max(ends - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # One that had only begun to start has nothing to drain, and ends by the signal.
        return 0 if all(process.returncode in {0, -signal.SIGTERM} for process in self._processes) else 1


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ProviderError: ``failed_precondition`` when the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
        made.set_inheritable(True)
    except OSError as error:
        made.close()
        reason = error.strerror or str(error)
        message = f"Cannot listen on {host}:{port}: {reason}. Choose another --host or --port."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
    return made
