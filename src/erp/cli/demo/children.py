"""The processes a demonstration needs: the layer itself and somebody who receives webhooks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30.0
STOP_SECONDS = 25.0


class ChildFailedError(RuntimeError):
    """A child process did not come up; the message holds the end of what it said."""


@dataclass
class Child:
    """A running child process and the address it announced."""

    name: str
    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def stop(self) -> None:
        """Ask the process to end, and insist after a while."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(name: str, arguments: list[str], *, announces: str, log: Path, env: dict[str, str] | None = None) -> Child:
    """Start ``python ARGUMENTS`` and wait until it prints ``ANNOUNCES http://...``.

    Raises:
        ChildFailedError: it ended or said nothing within 30 s.
    """
    with log.open("wb") as output:
        command = [sys.executable, *arguments]
        environment = {**os.environ, **(env or {})}
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment)  # noqa: S603  (our own program)
    pattern = re.compile(rf"^{announces} (http://\S+)$".encode(), re.MULTILINE)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = pattern.search(log.read_bytes())
        if found:
            return Child(name, process, found[1].decode(), log)
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    tail = log.read_text(errors="replace")[-2000:]
    message = f"The {name} did not start. The end of {log}:\n{tail}"
    raise ChildFailedError(message)
