"""Memcached as tests need it: one that can be killed, asks for a password, or speaks TLS. On 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

from tests.support.redis_servers import HOST, PATIENCE_SECONDS, eventually, free_port, needs, reachable


class MemcachedServer:
    """One process; its port stays when it is killed and started again."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"{HOST}:{self.port}"

    def start(self) -> MemcachedServer:
        """Start it and wait until it answers."""
        owner = ["-u", "root"] if os.getuid() == 0 else []
        command = ["memcached", "-l", HOST, "-p", str(self.port), "-U", "0", *owner, *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: reachable(self.port), f"{' '.join(command)} answers")
        return self

    def kill(self) -> None:
        """End it as a failing machine would. Safe twice."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(PATIENCE_SECONDS)

    def pause(self) -> None:
        """Stop it: it answers nobody, and its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def memcached(*options: str) -> Iterator[MemcachedServer]:
    """One server for the length of a block."""
    needs("memcached")
    server = MemcachedServer(*options)
    try:
        yield server.start()
    finally:
        server.kill()
