"""``erp serve`` as its users run it: a process of its own, on a free port."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
from tests.support.contract_client import live_client

ERP = str(Path(sys.executable).with_name("erp"))
KEY_LINE = re.compile(r"administrator key \(shown only now\): (\S+)")
READY_LINE = re.compile(r"ready (https?://\S+)")
END_SECONDS = 30


def erp(*arguments: str, timeout_seconds: float = END_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run([ERP, *arguments], capture_output=True, text=True, timeout=timeout_seconds, check=False)


class Server:
    """A running server. Its standard error is read all the time and kept in ``lines``."""

    def __init__(
        self, data_dir: Path, *options: str, environment: Mapping[str, str] = {}, program: Path = Path(ERP)
    ) -> None:
        self.data_dir = data_dir
        self.address = ""
        self.first_key: str | None = None
        self.keys: dict[str, str] = {}
        self.lines: list[str] = []
        command = [str(program), "serve", "--port", "0", "--data-dir", str(data_dir), *options]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ERP_", "OTEL_"))}
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**clean, **environment}
        )
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := KEY_LINE.match(line):
                self.first_key = self.keys["platform"] = found[1]
            if found := READY_LINE.match(line):
                self.address = found[1]
                self._is_ready.set()
        self._is_ready.set()

    @property
    def log(self) -> str:
        """Everything the server wrote to standard error so far."""
        return "".join(self.lines)

    def ready(self) -> Server:
        """Wait until it answers."""
        self._is_ready.wait(END_SECONDS)
        assert self.address, f"erp serve ended before it was ready:\n{self.log}"
        return self

    def client(self, role: str | None = "developer") -> httpx2.Client:
        """A client that checks every answer, with the key of ``role`` in tenant acme (``platform``: the first key)."""
        return live_client(self.address, self.keys.get(role or ""))

    def furnish(self) -> Server:
        """Make the tenant acme with keys of every role."""
        with self.client("platform") as platform:
            assert platform.post("/tenants", json={"id": "acme"}).status_code == 201
            for role in ("admin", "developer"):
                made = platform.post("/keys", json={"tenant": "acme", "role": role})
                assert made.status_code == 201, made.text
                self.keys[role] = made.json()["key"]
        return self

    def signal(self, number: int) -> None:
        """Send a signal, or nothing when the process has ended."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end and return the exit status (negative: the signal that killed it)."""
        status = self.process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)
        return status

    def kill(self) -> None:
        """End the process as a failing machine would, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.ended()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def call_lines(self) -> list[dict[str, Any]]:
        """The structured log lines of calls so far."""
        return [json.loads(line) for line in self.lines if line.startswith('{"event":"call"')]
