"""A proxy that holds every answer that passes it to the OpenAPI document, for callers that are no client of ours."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.support.contract_client import live_client

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
OF_ONE_HOP = frozenset({"connection", "content-length", "date", "host", "transfer-encoding", "content-encoding"})


@dataclass
class CheckingProxy:
    """Where it listens, how many answers it has checked and which were not as documented."""

    address: str = ""
    checked: int = 0
    wrong: list[str] = field(default_factory=list)


@contextlib.contextmanager
def checking_proxy(upstream: str) -> Iterator[CheckingProxy]:
    """Run a proxy to the server at ``upstream`` in a thread for the length of a block."""
    proxy = CheckingProxy()
    with live_client(upstream) as client:
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # they are the callers', each its own

        def forward(method: str, url: str, headers: dict[str, str], body: bytes) -> httpx2.Response | None:
            proxy.checked += 1
            try:
                return client.request(method, url, headers=headers, content=body)
            except AssertionError as error:
                proxy.wrong.append(str(error))
                return None

        async def answer(request: Request) -> Response:
            from starlette.concurrency import run_in_threadpool

            url = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            headers = {name: value for name, value in request.headers.items() if name not in OF_ONE_HOP}
            found = await run_in_threadpool(forward, request.method, url, headers, await request.body())
            if found is None:
                return Response(proxy.wrong[-1], status_code=500)
            answer = Response(found.content, found.status_code)
            for name, value in found.headers.multi_items():
                if name == "set-cookie":  # each in a line of its own (RFC 6265, section 3)
                    answer.headers.append(name, value)
                elif name not in OF_ONE_HOP:
                    answer.headers[name] = value
            return answer

        app = Starlette(routes=[Route("/{path:path}", answer, methods=METHODS)])
        with _served(app) as address:
            proxy.address = address
            yield proxy


@contextlib.contextmanager
def _served(app: Starlette) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    ends = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < ends, "the proxy did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
