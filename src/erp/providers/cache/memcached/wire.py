"""One connection to a Memcached: the meta commands of its text protocol.

Source: https://docs.memcached.org/protocols/meta/ and, for signing in (``-Y``), doc/protocol.txt, "Authentication".
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import NamedTuple

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.guarded_tcp import permitted_address

PIPELINED = 100
"""Requests sent before their answers are read; what they take fits into the buffers of a socket."""

MAX_LINE_BYTES = 65_536


class Item(NamedTuple):
    """A value and the number that changes with every write of it."""

    data: bytes
    cas: int


class Reply(NamedTuple):
    """The answer to one request: its two letters, and an item where there is one."""

    code: str
    item: Item | None = None


class ReplyError(Exception):
    """Memcached answered with an error of its own."""


class Wire:
    """Sends requests and reads their answers, in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(
        cls, host: str, port: int, tls: ssl.SSLContext | None, credentials: tuple[str, str] | None
    ) -> Wire:
        """Connect where the operator allows it, and sign in.

        Raises:
            OSError: nobody answers.
            ProviderError: ``unauthenticated``; ``failed_precondition`` when the operator does not allow the address, or
                credentials are given and not asked for.
        """
        address = await permitted_address(host, port)
        reader, writer = await asyncio.open_connection(address, port, ssl=tls, limit=MAX_LINE_BYTES)
        wire = cls(reader, writer)
        try:
            await wire._sign_in(credentials)
        except BaseException:
            wire.abort()
            raise
        return wire

    async def _sign_in(self, credentials: tuple[str, str] | None) -> None:
        """Ask first: a server that wants no password would store it as a value that everybody can read."""
        self._writer.write(b"mn\r\n")
        is_asked = not (await self._line()).startswith(b"MN")
        if credentials is None and is_asked:
            raise ProviderError(ErrorCode.UNAUTHENTICATED, "Memcached asks for a user name and password.")
        if credentials is None:
            return
        if not is_asked:
            message = "Memcached asks for no password; leave username and password out, or start it with -Y."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        text = " ".join(credentials).encode()
        self._writer.write(b"set auth 0 0 %d\r\n%b\r\n" % (len(text), text))
        if not (await self._line()).startswith(b"STORED"):
            raise ProviderError(ErrorCode.UNAUTHENTICATED, "Memcached refused the user name or password.")

    @property
    def is_broken(self) -> bool:
        """Whether the server has hung up."""
        return self._writer.is_closing() or self._reader.at_eof()

    async def exchange(self, requests: Sequence[bytes]) -> list[Reply]:
        """Send requests and return their answers; the connection is broken when this does not end well.

        Raises:
            ReplyError: the first error of the server; the answers to all of them were read.
            OSError, EOFError: the connection broke; what was sent may have been carried out.
        """
        found: list[Reply | ReplyError] = []
        for at in range(0, len(requests), PIPELINED):
            portion = requests[at : at + PIPELINED]
            self._writer.writelines(portion)
            await self._writer.drain()
            found += [await self._reply() for _ in portion]
        replies = [one for one in found if isinstance(one, Reply)]
        for one in found:
            if isinstance(one, ReplyError):
                raise one
        return replies

    async def _reply(self) -> Reply | ReplyError:
        line = (await self._line()).decode("ascii", "replace")
        code, *flags = line.split(" ")
        if code != "VA":
            return Reply(code) if len(code) == 2 else ReplyError(line)  # noqa: PLR2004  (HD, EN, NS, EX, NF, MN)
        data = (await self._reader.readexactly(int(flags[0]) + 2))[:-2]
        return Reply(code, Item(data, int(flags[1].removeprefix("c"))))

    async def _line(self) -> bytes:
        line = await self._reader.readuntil(b"\r\n")
        return line[:-2]

    def abort(self) -> None:
        """Hang up at once."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def get(key: str) -> bytes:
    """Ask for value and number of a key."""
    return f"mg {key} v c\r\n".encode()


def put(key: str, data: bytes, seconds: int, *, cas: int | None = None, is_new: bool = False) -> bytes:
    """Write a value: always, only over the one with number ``cas``, or only where there is none."""
    condition = " ME" if is_new else "" if cas is None else f" C{cas}"
    return b"ms %b %d T%d%b\r\n%b\r\n" % (key.encode(), len(data), seconds, condition.encode(), data)


def remove(key: str, cas: int) -> bytes:
    """Remove a key that is still as it was read."""
    return f"md {key} C{cas}\r\n".encode()


NOTHING = b"mn\r\n"
