"""A webhook receiver that confirms everything at once and says how much it got: ``GET /`` answers the count.

Usage: python benchmarks/peer.py
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import uvloop

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_CONFIRMED = b"HTTP/1.1 204 No Content\r\n\r\n"
_got = 0


class Receiver(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        global _got  # noqa: PLW0603  (one number for all connections is what the program is)
        self._buffer += data
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            if not found or len(rest) < size:
                return
            self._buffer = rest[size:]
            assert self._transport is not None
            if head.startswith(b"POST"):
                _got += 1
                self._transport.write(_CONFIRMED)
            else:
                body = str(_got).encode()
                self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


async def main() -> None:
    """Serve on a free loopback port until killed."""
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
