"""NATS servers of a test's own, to be killed, started again and configured."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = shutil.which(str(Path(sys.executable).with_name("nats-server"))) or shutil.which("nats-server")
PATIENCE_SECONDS = 30


class NatsServer:
    """One server with its data in a folder, on one port for all its lives."""

    def __init__(self, folder: Path, configuration: str) -> None:
        self._folder = folder
        self._configuration = configuration
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port: int = found.getsockname()[1]

    def config(self, **more: Any) -> dict[str, Any]:
        """Return settings of ``bus/nats`` for it."""
        return {"url": f"nats://127.0.0.1:{self.port}", "prefix": f"t-{secrets.token_hex(4)}", **more}

    def start(self) -> None:
        text = f"""
            listen: 127.0.0.1:{self.port}
            jetstream {{ store_dir: "{self._folder}/jetstream", sync_interval: always }}
            {self._configuration}
        """
        path = self._folder / "server.conf"
        path.write_text(text)
        assert PROGRAM
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, "-c", str(path)], stdout=log, stderr=log)

    async def started(self) -> None:
        """Start it and wait until it accepts connections."""
        self.start()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut would end it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def nats_server(folder: Path, configuration: str = "") -> Iterator[NatsServer]:
    """Have a server for the length of a block; without its program the test is skipped."""
    if PROGRAM is None:
        pytest.skip("needs the program nats-server: scripts/bootstrap dev brings it")
    made = NatsServer(folder, configuration)
    try:
        yield made
    finally:
        made.kill()
