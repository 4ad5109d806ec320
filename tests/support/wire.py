"""HTTP/1.1 byte by byte: for what a well-behaved client cannot be made to send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

PATIENCE_SECONDS = 30.0
CONTINUE = 100


@dataclass
class Answer:
    """One response as it came."""

    status: int
    headers: dict[str, str]
    """Names in lower case; of several with one name the last."""
    body: bytes

    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._reader: BinaryIO = connection.makefile("rb")

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send ``data`` as it is."""
        self.socket.sendall(data)

    def answer(self, *, to: str = "GET") -> Answer:
        """Read the next response, which must be complete; ``to`` is the method it answers."""
        status, headers = self.head()
        return Answer(status, headers, b"" if to == "HEAD" or status == CONTINUE else self._body(headers))

    def head(self) -> tuple[int, dict[str, str]]:
        """Read status and headers of the next response."""
        version, status, _ = self._line().split(" ", 2)
        assert version == "HTTP/1.1"
        return int(status), dict(self._headers())

    def ends(self) -> bool:
        """Whether the server closed the connection without sending anything more."""
        try:
            return self._reader.read(1) == b""
        except ConnectionResetError:
            return True

    def line(self) -> bytes:
        """Read one chunk of a chunked body: what the server sent in one piece; empty at the end."""
        size = int(self._line(), 16)
        data = self._reader.read(size)
        assert self._line() == ""
        return data

    def _line(self) -> str:
        line = self._reader.readline()
        assert line.endswith(b"\r\n"), f"the connection ended after {line!r}"
        return line[:-2].decode("latin-1")

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self._line():
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            return b"".join(iter(self.line, b""))
        if "content-length" in headers:
            size = int(headers["content-length"])
            body = self._reader.read(size)
            assert len(body) == size, "the body ended early"
            return body
        return self._reader.read() if headers.get("connection") == "close" else b""


@contextmanager
def connected(address: str) -> Iterator[Wire]:
    """Connect to ``http://HOST:PORT``; nothing may take longer than ``PATIENCE_SECONDS``."""
    where = urlsplit(address)
    connection = socket.create_connection((where.hostname or "", where.port or 0), PATIENCE_SECONDS)
    with closing(Wire(connection)) as wire:
        yield wire


def request(
    target: str,
    key: str | None = None,
    body: bytes | None = None,
    *,
    method: str = "POST",
    version: str = "1.1",
    **more: str,
) -> bytes:
    """Return a well-formed request; ``more`` are headers, with _ for -. ``Content-Length`` is added when there is a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: layer.test"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    if body is not None and "Transfer_Encoding" not in more and "Content_Length" not in more:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")
