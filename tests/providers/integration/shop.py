"""A small JSON HTTP API with records that change while they are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Answer = tuple[int, dict[str, str], Any]
NOW = 1_764_000_000


@dataclass
class Shop:
    """Products in the order of their change; every change moves a product to the end of the list."""

    products: dict[str, dict[str, Any]] = field(default_factory=dict)
    now: int = NOW
    port: int = 0
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    failures: list[Answer | None] = field(default_factory=list)
    """Answers given instead, one per request; None answers as usual."""
    before_answer: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def paths(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.requests]

    def add(self, *skus: str, **fields: Any) -> None:
        for sku in skus:
            self.change(sku, name=sku.lower(), **fields)

    def change(self, key: str, /, **fields: Any) -> None:
        product = self.products.pop(key, {"sku": key, "id": len(self.products) + 1, "rev": 0})
        self.products[key] = {**product, **fields, "rev": product["rev"] + 1, "updated": self.now}

    def answer(self, method: str, target: str, body: Any) -> Answer:
        self.before_answer()
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/api/products":
            return self.listed(query) if method == "GET" else self.created(body)
        return self.one(method, unquote(url.path.rpartition("/")[2]), body)

    def listed(self, query: dict[str, str]) -> Answer:
        since = float(query.get("since", 0))
        found = [product for product in self.products.values() if product["updated"] >= since]
        size = int(query.get("size", 100))
        if query.get("cursor") == "expired":
            return 410, {}, {}
        start = int(query.get("offset", query.get("cursor", (int(query.get("page", 1)) - 1) * size)))
        page = found[start : start + size]
        following = str(start + size) if start + size < len(found) else None
        link = {"link": f'</api/products?size={size}&cursor={following}>; rel="next"'} if following else {}
        return 200, link, {"data": {"items": page}, "next": following}

    def created(self, body: dict[str, Any]) -> Answer:
        if body["sku"] in self.products:
            return 409, {}, {}
        self.change(body["sku"], **body)
        return 201, {}, self.products[body["sku"]]

    def one(self, method: str, sku: str, body: Any) -> Answer:
        known = sku in self.products
        if method in {"GET", "PATCH", "DELETE"} and not known:
            return 404, {}, {"error": "no such product"}
        if method == "GET":
            return 200, {}, self.products[sku]
        if method == "DELETE":
            del self.products[sku]
            return 204, {}, None
        if body.get("name") == "":
            return 422, {}, {"error": "name is empty"}
        self.change(sku, **body)
        return 200 if known else 201, {}, self.products[sku]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._served(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        headers = {line.split(": ")[0].lower(): line.split(": ", 1)[1] for line in head.split("\r\n")[1:-2]}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        body = json.loads(content) if content else None
        self.requests.append((method, target, headers, body))
        failure = self.failures.pop(0) if self.failures else None
        status, further, document = failure or self.answer(method, target, body)
        if status == 0:
            return False
        text = b"" if document is None else document if isinstance(document, bytes) else json.dumps(document).encode()
        facts = {"date": formatdate(self.now, usegmt=True), "content-length": str(len(text)), **further}
        lines = "".join(f"{name}: {value}\r\n" for name, value in facts.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + text)
        await writer.drain()
        return True


@asynccontextmanager
async def selling(*skus: str) -> AsyncIterator[Shop]:
    """A shop with products that listens."""
    shop = Shop()
    shop.add(*skus)
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await shop.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    shop.port = server.sockets[0].getsockname()[1]
    try:
        yield shop
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


def described(style: str = "cursor", size: int = 2, **listing: Any) -> dict[str, Any]:
    """How the products are reached."""
    names = {"cursor": "cursor", "page": "page", "offset": "offset"}
    paging = {"style": style, "size": size, "size_param": "size", "next_cursor": "/next"}
    if style in names:
        paging["position_param"] = names[style]
    return {
        "key": ["sku"],
        "id_field": "id",
        "version_field": "rev",
        "changed_field": "updated",
        "list": {
            "path": "/products",
            "items": "/data/items",
            "since_param": "since",
            "since_format": "unix",
            "lookback_seconds": 0,
            "paging": paging,
            **listing,
        },
        "get": {"path": "/products/{sku}"},
        "put": {"path": "/products/{sku}", "method": "PUT"},
        "create": {"path": "/products", "method": "POST"},
        "update": {"path": "/products/{sku}", "method": "PATCH"},
        "delete": {"path": "/products/{sku}", "method": "DELETE"},
    }
