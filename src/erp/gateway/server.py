"""The HTTP server around the gateway: uvicorn, with bounded heads and a line when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.gateway.http_protocol import BoundedHttpProtocol

if TYPE_CHECKING:
    import socket
    from asyncio import Protocol

    from erp.gateway.app import Gateway
    from erp.gateway.client_certificate import Network
    from erp.gateway.tls import Tls

KEEP_ALIVE_SECONDS = 75
CUT_OFF_SECONDS = 3.0


class GatewayServer(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then lets running calls end within ``drain_seconds``.

    A second SIGINT cuts them off at once; a second SIGTERM changes nothing, because supervisors and
    the shells between them often send it twice.
    """

    def __init__(
        self,
        app: Gateway,
        *,
        host: str,
        port: int,
        drain_seconds: int,
        tls: Tls | None = None,
        proxies: tuple[Network, ...] = (),
    ) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="none",
            http=cast("type[Protocol]", partial(BoundedHttpProtocol, trusted_proxies=proxies)),
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="error",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=drain_seconds,
            **({} if tls is None else tls.config),
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
        """Listen, then say where.

        Raises:
            ProviderError: ``failed_precondition`` when the address cannot be listened on.
        """
        try:
            await super().startup(sockets)
        except SystemExit as stop:
            raise self._not_listening(stop.__context__) from None
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            scheme = "https" if self.config.is_ssl else "http"
            self.on_ready(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")

    def _not_listening(self, error: BaseException | None) -> ProviderError:
        """Explain what uvicorn has logged and would end the process for."""
        reason = str(error)
        if isinstance(error, OSError) and error.errno:
            reason = os.strerror(error.errno) if error.errno > 0 else error.strerror or reason
        message = f"Cannot listen on {self.config.host}:{self.config.port}: {reason}. Choose another --host or --port."
        return ProviderError(ErrorCode.FAILED_PRECONDITION, message)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain; what is still running then is cancelled and given a moment to say so to its caller."""
        await super().shutdown(sockets)
        left = [task for task in self.server_state.tasks if not task.done()]
        if self.force_exit:  # After the limit uvicorn has cancelled them, and twice would disturb their last words.
            for task in left:
                task.cancel()
        if left:
            await asyncio.wait(left, timeout=CUT_OFF_SECONDS)
