"""A small HTTP load generator and the servers it measures.

Each server is a child process whose CPU time is read from the kernel (``/proc/PID/stat``), so that the
figures compare work done, not who happened to get the machine: wall rates on shared machines swing.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A child process that serves HTTP on a loopback port."""

    name: str
    process: subprocess.Popen[bytes]
    host: str
    port: int

    def cpu_seconds(self) -> float:
        """CPU time the process has used, over all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_bytes(self) -> int:
        """Memory the process holds now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """End the process and wait for it."""
        self.process.terminate()
        self.process.wait(30)


def start(name: str, command: list[str], *, log: Path, env: dict[str, str] | None = None) -> Server:
    """Start a server and wait for its line ``ready http://HOST:PORT`` in ``log``."""
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stderr, stderr=stderr, env={**os.environ, **(env or {})})
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        match = re.search(rb"ready http://([\d.]+):(\d+)", log.read_bytes())
        if match:
            return Server(name, process, match[1].decode(), int(match[2]))
        if process.poll() is not None:
            break
        time.sleep(0.01)
    process.kill()
    sys.exit(f"{name} did not start:\n{log.read_text()[-2000:]}")


def request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return the bytes of a POST."""
    lines = [f"POST {path} HTTP/1.1", "host: bench", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


@dataclass
class Outcome:
    """What one round of load saw."""

    requests: int = 0
    failures: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


class _Peer(asyncio.Protocol):
    """One keep-alive connection that waits for whole answers."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[bytes] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = _LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return
        self._buffer = b""
        if self._answer is not None:
            self._answer.set_result(head[9:12])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(b"000")

    async def ask(self, message: bytes) -> bytes:
        """Send one request and return the status of its answer."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return await self._answer


async def _connect(server: Server) -> _Peer:
    _, peer = await asyncio.get_running_loop().create_connection(_Peer, server.host, server.port)
    return peer


async def closed_loop(server: Server, messages: Callable[[], bytes], *, concurrency: int, seconds: float) -> Outcome:
    """Keep ``concurrency`` requests under way for ``seconds``."""
    outcome = Outcome()
    until = time.monotonic() + seconds
    peers = [await _connect(server) for _ in range(concurrency)]

    async def drive(peer: _Peer) -> None:
        while time.monotonic() < until:
            status = await peer.ask(messages())
            outcome.requests += 1
            outcome.failures += status != b"200"

    started = time.monotonic()
    await asyncio.gather(*(drive(peer) for peer in peers))
    outcome.seconds = time.monotonic() - started
    for peer in peers:
        assert peer.transport is not None
        peer.transport.close()
    return outcome


async def all_of(server: Server, messages: Sequence[bytes], *, concurrency: int) -> Outcome:
    """Send every message once, ``concurrency`` at a time."""
    outcome = Outcome()
    waiting = iter(messages)
    peers = [await _connect(server) for _ in range(concurrency)]

    async def drive(peer: _Peer) -> None:
        for message in waiting:
            status = await peer.ask(message)
            outcome.requests += 1
            outcome.failures += status != b"200"

    started = time.monotonic()
    await asyncio.gather(*(drive(peer) for peer in peers))
    outcome.seconds = time.monotonic() - started
    for peer in peers:
        assert peer.transport is not None
        peer.transport.close()
    return outcome


async def open_loop(server: Server, messages: Callable[[], bytes], *, rate: float, seconds: float) -> Outcome:
    """Send ``rate`` requests per second whether or not earlier ones were answered; time from the planned moment."""
    outcome = Outcome()
    idle: list[_Peer] = [await _connect(server) for _ in range(8)]
    started = time.monotonic() + 0.05

    async def one(planned: float) -> None:
        peer = idle.pop() if idle else await _connect(server)
        status = await peer.ask(messages())
        outcome.latencies.append(time.monotonic() - planned)
        outcome.requests += 1
        outcome.failures += status != b"200"
        idle.append(peer)

    tasks = []
    for number in range(int(rate * seconds)):
        planned = started + number / rate
        await asyncio.sleep(max(0.0, planned - time.monotonic()))
        tasks.append(asyncio.create_task(one(planned)))
    await asyncio.gather(*tasks)
    outcome.seconds = time.monotonic() - started
    for peer in idle:
        assert peer.transport is not None
        peer.transport.close()
    return outcome


def percentile(values: list[float], share: float) -> float:
    """Return the value below which ``share`` of ``values`` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: list[float]) -> float:
    """Return the middle value."""
    return percentile(values, 0.5)


def spread(values: list[float]) -> str:
    """Return ``median (min to max)``."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def endless(make: Callable[[int], bytes]) -> Callable[[], bytes]:
    """Return a function that calls ``make`` with 0, 1, 2, ..."""
    numbers: Iterator[int] = iter(range(10**12))
    return lambda: make(next(numbers))
