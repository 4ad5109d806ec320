"""``erp serve``: run the layer until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erp.cli.session import failures_explained
from erp.cli.workers import WORKER, Shared, Workers

if TYPE_CHECKING:
    from erp.gateway.tls import Tls

DRAIN_SECONDS = 20
COLLECT_AFTER_OBJECTS = 10_000
"""CPython's default is 700."""


class ClientCert(StrEnum):
    """Whether clients must have a certificate."""

    OPTIONAL = "optional"
    REQUIRED = "required"


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8080,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.", show_default=False)] = None,
    drain_seconds: Annotated[
        int, typer.Option(help="How long running calls may still take after SIGTERM.", min=0)
    ] = DRAIN_SECONDS,
    tls_cert: Annotated[Path | None, typer.Option(help="Serve HTTPS with this certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    client_ca: Annotated[Path | None, typer.Option(help="Who issues the certificates of clients (PEM).")] = None,
    client_cert: Annotated[ClientCert | None, typer.Option(help="Whether clients must have one.")] = None,
    workers: Annotated[int, typer.Option(help="How many processes serve.", min=1, max=64)] = 1,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain; Ctrl-C once more cuts running calls off.

    Prints "ready http://HOST:PORT" on standard error when it answers. With several workers, providers that keep their
    data in one process's memory are refused; a worker that dies is started again.

    Example: erp serve --port 8080 --data-dir ./data
    """
    from erp.gateway.tls import Tls
    from erp.main import Settings

    with failures_explained():
        settings = Settings(data_dir=data_dir.absolute()) if data_dir else Settings()
        logging.basicConfig(
            level=settings.log_level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
        )
        tls = Tls.of(tls_cert, tls_key, client_ca, client_cert)
        if workers > 1 and WORKER not in os.environ:
            sys.exit(Workers(settings, host, port, drain_seconds, workers, tls).run())
        sys.exit(run(settings, host, port, drain_seconds, tls))


def run(settings: Any, host: str, port: int, drain_seconds: int = DRAIN_SECONDS, tls: Tls | None = None) -> int:
    """Run the server; return the exit status.

    Raises:
        ProviderError: when the layer cannot start: port, data directory, keys, database.
    """
    import uvloop

    return uvloop.run(_serve(settings, host, port, drain_seconds, tls))


def collect_seldom() -> None:
    """Let the garbage collector leave alone what was made at the start, and look at the rest less often.

    A call makes some hundred objects and hardly a cycle: by CPython's defaults every second call starts a collection, and
    all of them together cost an eighth of the CPU time of an order's journey.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 20)


async def _serve(settings: Any, host: str, port: int, drain_seconds: int, tls: Tls | None) -> int:
    from erp.gateway.client_certificate import trusted_proxies
    from erp.gateway.server import GatewayServer
    from erp.main import running

    shared = Shared.from_environment()
    proxies = trusted_proxies()
    async with running(settings) as layer:
        if key := await layer.first_key():
            print(f"administrator key (shown only now): {key}", file=sys.stderr, flush=True)
        server = GatewayServer(
            layer.application(), host=host, port=port, drain_seconds=drain_seconds, tls=tls, proxies=proxies
        )

        def listens(address: str) -> None:
            layer.listens_at(address)
            collect_seldom()

        def ready(address: str) -> None:
            listens(address)
            print(f"ready {address}", file=sys.stderr, flush=True)

        server.on_ready = ready if shared is None else shared.ready(listens)
        if shared is None:
            await server.serve()
        else:
            watching = asyncio.create_task(shared.end_with_parent(), name="parent")
            await server.serve([shared.socket])
            watching.cancel()
        return 0 if server.started else 1
