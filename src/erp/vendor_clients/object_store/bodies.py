"""The content of objects, moved by ``obstore`` (the Rust crate ``object_store``): fast, and never whole in memory.

Everything else goes over the project's own HTTP client. The library is told not to repeat anything (the layer does), and
what it would take from the environment (credentials, addresses, proxies) is always given by the connection.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.object_store.endpoint import Endpoint
from erp.vendor_clients.object_store.failures import Refusal, RefusedError, of_library
from erp.vendor_clients.object_store.gate import EgressGate
from erp.vendor_clients.object_store.metadata import Facts, MetadataForm

MAX_WHOLE_BYTES = 64 * 1024 * 1024
"""What one answer may hold; larger objects are read in ranges or as a stream."""
_BEYOND_THE_END = 416
_LONGEST_STREAM = "24h"
"""The library's own limit counts a whole stream; each part of it has its own."""
_IDLE = "15s"
"""Shorter than stores keep idle connections: one that the store has closed costs a call."""


@dataclass(frozen=True, slots=True)
class Described:
    """An object without its content."""

    etag: str
    size: int
    modified_at: datetime.datetime
    facts: Facts
    version: str | None = None
    encryption_key: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What the store says of a write."""

    etag: str
    version: str | None


class Bodies:
    """Reads and writes objects by their names in the bucket.

    Raises of all methods: ``RefusedError`` and the errors of ``guarded_http``.
    """

    def __init__(self, store: Any, form: MetadataForm, *, by_version: bool = False) -> None:
        """``by_version``: conditions compare the version (generation) of an object, which then stands for its etag."""
        self._store = store
        self._form = form
        self._by_version = by_version

    async def put(
        self,
        name: str,
        content: bytes,
        facts: Facts,
        *,
        if_match: str | None = None,
        if_absent: bool = False,
        seconds: float,
    ) -> Written:
        """Write an object in one request."""
        import obstore

        mode: Any = "create" if if_absent else "overwrite"
        if if_match is not None and self._by_version and not if_match.isdecimal():
            raise RefusedError(Refusal(412))
        if if_match is not None:
            mode = {"version" if self._by_version else "e_tag": self._quoted(if_match)}
        attributes: Any = {"Content-Type": facts.content_type, **self._form.written(facts)}
        async with _answered(name, seconds):
            done = await obstore.put_async(
                self._store, name, content, attributes=attributes, mode=mode, use_multipart=False
            )
        return Written(self._etag(done), done["version"])

    async def get(
        self,
        name: str,
        *,
        offset: int = 0,
        length: int | None = None,
        if_match: str | None = None,
        version: str | None = None,
        seconds: float,
    ) -> tuple[Described, bytes]:
        """Read an object or a part of it; nothing when the part lies behind its end."""
        options: dict[str, Any] = {} if version is None else {"version": version}
        if if_match is not None and not self._by_version:
            options["if_match"] = self._quoted(if_match)
        if offset or length is not None:
            options["range"] = {"offset": offset} if length is None else (offset, offset + length)
        try:
            described, content = await self._content(name, options, seconds)
        except RefusedError as error:
            if error.refusal.status != _BEYOND_THE_END:
                raise
            described, content = await self.head(name, version=version, seconds=seconds), b""
        if if_match is not None and described.etag != if_match:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "The object is not the one with this etag any more.")
        return described, content

    async def _content(self, name: str, options: Any, seconds: float) -> tuple[Described, bytes]:
        import obstore

        async with _answered(name, seconds):
            answer = await obstore.get_async(self._store, name, options=options)
            first, end = answer.range
            if end - first > MAX_WHOLE_BYTES:
                message = "The object is too large for one answer. Use length (at most 67108864), or the action read."
                raise ProviderError(ErrorCode.INVALID_ARGUMENT, message)
            return self._described(answer), bytes(await answer.bytes_async())

    async def head(self, name: str, *, version: str | None = None, seconds: float) -> Described:
        """Describe an object."""
        import obstore

        options: Any = {"head": True} | ({} if version is None else {"version": version})
        async with _answered(name, seconds):
            return self._described(await obstore.get_async(self._store, name, options=options))

    async def stream(self, name: str, *, part_bytes: int, seconds: float) -> AsyncGenerator[bytes]:
        """Yield an object in parts of ``part_bytes``, the last one shorter; ``seconds`` are for each part.

        It is one request: all parts are of one object, whatever is written meanwhile.
        """
        import obstore

        async with _answered(name, seconds):
            answer = await obstore.get_async(self._store, name)
        chunks = aiter(answer.stream(min_chunk_size=part_bytes))
        waiting = bytearray()
        while True:
            async with _answered(name, seconds):
                chunk = await anext(chunks, None)
            if chunk is None:
                break
            waiting += memoryview(chunk)
            while len(waiting) >= part_bytes:
                yield bytes(memoryview(waiting)[:part_bytes])
                del waiting[:part_bytes]
        if waiting:
            yield bytes(waiting)

    def _described(self, answer: Any) -> Described:
        meta, attributes = answer.meta, dict(answer.attributes)
        facts = self._form.read(attributes.pop("Content-Type", None), _custom(attributes))
        return Described(self._etag(meta), meta["size"], meta["last_modified"], facts, meta["version"])

    def _etag(self, found: Any) -> str:
        text = found["version"] if self._by_version else found["e_tag"]
        return str(text or "").strip('"')

    def _quoted(self, etag: str) -> str:
        return etag if self._by_version else f'"{etag}"'


def client_options(endpoint: Endpoint, gate: EgressGate | None, *, timeout_seconds: float) -> Any:
    """Return how the library connects: through the gate where there is one, and by nothing of the environment."""
    seconds = f"{timeout_seconds}s"
    options: dict[str, Any] = {
        "allow_http": endpoint.is_plain,
        "connect_timeout": seconds,
        "read_timeout": seconds,
        "timeout": _LONGEST_STREAM,
        "pool_idle_timeout": _IDLE,
    }
    if gate is not None:
        return options | {"proxy_url": gate.url}
    # Without a proxy of ours it would take one of the environment. Nobody listens at this one, where redirects to other
    # hosts end.
    return options | {"proxy_url": "http://127.0.0.1:1", "proxy_excludes": urlsplit(endpoint.bucket_url).hostname}


def _custom(attributes: dict[str, str]) -> dict[str, str]:
    """Without the headers that the library knows, which it spells with capitals."""
    return {name: value for name, value in attributes.items() if not name[:1].isupper()}


@asynccontextmanager
async def _answered(name: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            yield
    except (TimeoutError, ProviderError):
        raise
    except Exception as error:  # its panics have no class that could be named
        raise of_library(error, name) from error
