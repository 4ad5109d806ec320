"""The HTTP server around the gateway: uvicorn, with bounded heads and a line when it is ready."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from erp.gateway.http_protocol import BoundedHttpProtocol

if TYPE_CHECKING:
    import socket

    from erp.gateway.app import Gateway

KEEP_ALIVE_SECONDS = 75


class GatewayServer(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then lets running calls end within ``drain_seconds``."""

    def __init__(self, app: Gateway, *, host: str, port: int, drain_seconds: int) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="none",
            http=BoundedHttpProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=drain_seconds,
        )
        super().__init__(config)
        self.on_ready: Callable[[str], Any] = lambda _: None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on SIGTERM and SIGINT, and leave it at that.

        uvicorn's own version raises the signal again afterwards, which would end the process before
        the layer has closed its providers and written what is waiting.
        """
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say where."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self.on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
