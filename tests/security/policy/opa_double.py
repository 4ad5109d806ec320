"""A server that answers the two requests of OPA's REST API that the layer makes, with the embedded engine underneath.

It shows that the layer speaks the API, not that OPA decides alike: that is shown on the real one (``ERP_TEST_OPA``).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from erp.security.policy.process import RegoProcess


class OpaDouble:
    """Where it listens, what it was given, and what it is told to answer instead."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}
        self.instead: tuple[int, bytes] | None = None
        self.authorization: list[str | None] = []
        self.address = ""

    def document(self, entry: str, input_: Any) -> bytes:
        value = self.evaluate(entry, input_)
        return json.dumps({} if value is None else {"result": value}).encode()

    def evaluate(self, entry: str, input_: Any) -> Any:
        async def once() -> Any:
            process = RegoProcess(seconds=30)
            try:
                return await process.evaluate("opa", self.modules, entry, json.dumps(input_, ensure_ascii=False))
            finally:
                await process.close()

        return asyncio.run(once())


@contextmanager
def opa_double() -> Iterator[OpaDouble]:
    """Run one for the length of a block."""
    double = OpaDouble()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("content-length", "0")))

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            double.modules[self.path.rpartition("/")[2]] = self._body().decode()
            self._answer(200, b"{}")

        def do_GET(self) -> None:
            self._answer(200, b"{}")

        def do_POST(self) -> None:
            double.authorization.append(self.headers.get("authorization"))
            asked = json.loads(self._body())
            entry = self.path.removeprefix("/v1/data/")
            self._answer(*(double.instead or (200, double.document(entry, asked["input"]))))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    double.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
