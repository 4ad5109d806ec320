"""The peers the kit plays: a real HTTP server on 127.0.0.1 that receives webhooks and keeps records.

Peers                    one server; every case has a site of its own on it
Site                     what one case's peer answers, and everything it was sent
  .instead(path, ...)    answers to give instead of the usual ones, one per request
  .always                answers to every request below a path instead
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from erp.runtime.conformance.peer_records import PeerRecords

HOST = "127.0.0.1"
MAX_HEAD_BYTES = 65_536
HOOKS, API = "/hooks", "/api"


@dataclass(frozen=True, slots=True)
class Received:
    """One request a site was sent."""

    method: str
    path: str
    """Below the site, as it was sent."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    at: float
    """By the monotonic clock."""

    @property
    def segments(self) -> list[str]:
        """The path below the site, decoded segment by segment."""
        return [unquote(segment) for segment in self.path.split("/")[1:]]

    @property
    def document(self) -> Any:
        """The body as JSON; None without one."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, or the lack of one."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_seconds: float = 0.0
    hangs_up: bool = False
    """The connection is closed without an answer."""
    is_cut: bool = False
    """The connection is closed in the middle of the body."""

    def late(self, seconds: float) -> Reply:
        """The same, after ``seconds``."""
        return replace(self, delay_seconds=seconds)

    def cut(self) -> Reply:
        """The same, closed in the middle of the body."""
        return replace(self, is_cut=True)

    @classmethod
    def of(cls, status: int, document: Any = None, **headers: str) -> Reply:
        """An answer with a JSON body; ``_`` in the name of a header stands for ``-``."""
        found = {name.replace("_", "-"): value for name, value in headers.items()}
        body = b"" if document is None else json.dumps(document).encode()
        return cls(status, {"content-type": "application/json", **found}, body)


class Site:
    """The peer of one case: ``/hooks`` confirms whatever comes, ``/api`` is a JSON interface to records."""

    def __init__(self, name: str, origin: str) -> None:
        self.name = name
        self.address = f"{origin}/{name}"
        self.hooks = f"{self.address}{HOOKS}"
        self.records = PeerRecords()
        self.received: list[Received] = []
        self.always: dict[str, Reply] = {}
        """By the beginning of the path."""
        self._once: dict[str, deque[Reply | None]] = {}

    def instead(self, path: str, *replies: Reply | None) -> None:
        """Answer the next requests below ``path`` so, one each; None answers as usual."""
        self._once.setdefault(path, deque()).extend(replies)

    def forgive(self) -> None:
        """Answer as usual again."""
        self._once.clear()
        self.always.clear()

    def sent_to(self, path: str) -> list[Received]:
        """The requests to ``path``, oldest first."""
        return [one for one in self.received if one.path == path]

    def answer(self, request: Received) -> Reply:
        """Note a request and answer it."""
        self.received.append(request)
        for path, replies in self._once.items():
            if replies and request.path.startswith(path):
                return replies.popleft() or self._usual(request)
        for path, reply in self.always.items():
            if request.path.startswith(path):
                return reply
        return self._usual(request)

    def _usual(self, request: Received) -> Reply:
        if request.path.startswith(API + "/"):
            return Reply.of(*self.records.answer(_below(request)))
        return Reply(204) if request.path.startswith(HOOKS) else Reply(404)


def _below(request: Received) -> Received:
    return replace(request, path=request.path.removeprefix(API))


class Peers:
    """The server with all sites, and an address where nobody listens."""

    def __init__(self) -> None:
        self._sites: dict[str, Site] = {}
        self._numbers = itertools.count(1)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._deaf: socket.socket | None = None

    async def open(self) -> None:
        """Listen on a free port; keep a further one on which nothing listens."""
        self._server = await asyncio.start_server(self._accepted, HOST, 0, limit=MAX_HEAD_BYTES, backlog=512)
        self._deaf = socket.socket()
        self._deaf.bind((HOST, 0))

    async def close(self) -> None:
        """Stop listening and hang up."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._deaf is not None:
            self._deaf.close()

    @property
    def ports(self) -> tuple[int, int]:
        """The port of the server, and the one on which nothing listens."""
        assert self._server is not None  # noqa: S101  (open was called)
        assert self._deaf is not None  # noqa: S101
        return self._server.sockets[0].getsockname()[1], self._deaf.getsockname()[1]

    @property
    def nobody(self) -> str:
        """Where a connection is refused."""
        return f"http://{HOST}:{self.ports[1]}"

    def site(self) -> Site:
        """Make a site."""
        made = Site(f"site-{next(self._numbers)}", f"http://{HOST}:{self.ports[0]}")
        self._sites[made.name] = made
        return made

    def forget(self, site: Site) -> None:
        """Answer 404 for the site from now on."""
        self._sites.pop(site.name, None)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (runs as one)
        self._connections.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
                while await self._served(reader, writer):
                    pass
        except asyncio.CancelledError:  # only close() cancels, and waits for it
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        name, request = await _read(reader)
        site = self._sites.get(name)
        reply = Reply(404) if site is None else site.answer(request)
        if reply.delay_seconds:
            await asyncio.sleep(reply.delay_seconds)
        if reply.hangs_up:
            return False
        writer.write(_encoded(reply, has_body=request.method != "HEAD"))
        await writer.drain()
        return not reply.is_cut


async def _read(reader: asyncio.StreamReader) -> tuple[str, Received]:
    """Return the site asked for and the request (HTTP/1.1, RFC 9112; bodies with a length alone)."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    name, _, path = url.path.removeprefix("/").partition("/")
    return name, Received(method, f"/{path}", dict(parse_qsl(url.query)), headers, body, time.monotonic())


def _encoded(reply: Reply, *, has_body: bool) -> bytes:
    length = len(reply.body) + (100 if reply.is_cut else 0)
    facts = {"date": formatdate(usegmt=True), "content-length": str(length), **reply.headers}
    if reply.status == 204:  # noqa: PLR2004  (No Content has no length: RFC 9110, section 8.6)
        del facts["content-length"]
    lines = "".join(f"{name}: {value}\r\n" for name, value in facts.items())
    return f"HTTP/1.1 {reply.status} -\r\n{lines}\r\n".encode() + (reply.body if has_body else b"")


def filled(value: Any, site: Site, peers: Peers) -> Any:
    """Settings with ``{peer}`` for the address of the site and ``{nobody}`` for where nobody listens."""
    if isinstance(value, Mapping):
        return {name: filled(item, site, peers) for name, item in value.items()}
    if isinstance(value, list):
        return [filled(item, site, peers) for item in value]
    if not isinstance(value, str):
        return value
    return value.replace("{peer}", site.address).replace("{nobody}", peers.nobody)


def uses_kit(settings: Any) -> bool:
    """Whether the settings lead to the peer that the kit plays."""
    return "{peer}" in json.dumps(settings, default=str)
