"""``erp demo``: a layer with a demo tenant, real orders through it, and a table of what became of each."""

from __future__ import annotations

import secrets
import signal
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from erp.cli.demo.children import Child
    from erp.cli.demo.client import DemoClient

TENANT = "demo"
CONFIGURED = 200


def demo(
    *,
    port: Annotated[int, typer.Option(help="Port of the layer; 0 takes a free one.", min=0, max=65535)] = 8080,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.", show_default=False)] = None,
    once: Annotated[bool, typer.Option("--once", help="End after the orders instead of serving on.")] = False,
    with_models: Annotated[bool, typer.Option(help="Install the local language model if it is missing.")] = True,
    tpch: Annotated[
        str | None,
        typer.Option(
            metavar="SCALE",
            help="Push the orders of TPC-H at this scale factor instead (0.01: 15,000) and reconcile them to the cent.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(help="With --tpch: orders under way at once.", min=1, max=64)] = 8,
    kill_every: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="With --tpch: kill the layer this often and start it again.", min=0.1, max=3600
        ),
    ] = None,
) -> None:
    """Start the layer with a demo tenant, run sample orders through it, and keep serving.

    Example: erp demo --port 8080 --data-dir ./data
    """
    from erp.main import Settings

    settings = Settings(data_dir=data_dir.absolute()) if data_dir else Settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if tpch is None:
        if kill_every is not None:
            _stop("--kill-every belongs to --tpch.", status=2)
        if with_models:
            _install_model(settings.models_dir)
        is_right = _ended(lambda stack: _show(stack, settings.data_dir, port, once=once))
    else:
        options = AtSize(tpch, settings.data_dir, port, concurrency, kill_every, once)
        is_right = _ended(lambda stack: _show_at_size(stack, options))
    if not is_right:
        raise typer.Exit(1)


def _stop(message: str, *, status: int = 1) -> NoReturn:
    typer.echo(f"erp demo: {message}", err=True)
    raise typer.Exit(status)


def _ended(work: Callable[[ExitStack], bool]) -> bool:
    """Do ``work`` and clean up; failures that have an explanation end with it."""
    from erp.cli.demo.children import ChildFailedError
    from erp.cli.demo.tpch.generated import NotGeneratedError
    from erp.cli.demo.tpch.push import PushError
    from erp.cli.demo.tpch.stored import NotReadableError

    try:
        with ExitStack() as stack:
            return work(stack)
    except (ChildFailedError, NotGeneratedError, NotReadableError, PushError) as error:
        _stop(str(error))
    except KeyboardInterrupt:
        return True


def _install_model(models_dir: Path) -> None:
    """Install the model, or say that the fallback answers instead: the orders go through either way."""
    from erp.cli import models

    try:
        models.install(models.ModelChoice.MINILM, models_dir=models_dir)
    except (typer.Exit, SystemExit):
        typer.echo(
            "The language model could not be installed; annotations come from hashing-384, which knows only words."
        )


def _show(stack: ExitStack, data_dir: Path, port: int, *, once: bool) -> bool:
    from erp.cli.demo import children, report
    from erp.cli.demo.client import DemoClient

    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="erp-demo-")))
    secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
    receiver = children.start(
        "webhook receiver",
        ["-m", "erp.cli.demo.receiver", "--port", "0", "--fail-first", "2"],
        announces="receiver",
        log=scratch / "receiver.log",
        env={"WEBHOOK_SECRET": secret},
    )
    stack.callback(receiver.stop)
    layer = children.start(
        "layer",
        ["-m", "erp.cli", "serve", "--port", str(port), "--data-dir", str(data_dir)],
        announces="ready",
        log=data_dir / "server.log",
        env={"ERP_EGRESS_ALLOW": "127.0.0.1/32"},
    )
    stack.callback(layer.stop)
    key = _key(data_dir)
    client = DemoClient(layer.address, key)
    _configure(client, receiver, secret)
    is_right = report.run(client, secrets.token_hex(3))
    report.print_next_steps(layer.address, key, log=layer.log)
    if not once:
        layer.process.wait()
    return is_right


@dataclass(frozen=True, slots=True)
class AtSize:
    """What ``--tpch`` was asked for."""

    scale: str
    data_dir: Path
    port: int
    concurrency: int
    kill_every: float | None
    once: bool


def _show_at_size(stack: ExitStack, asked: AtSize) -> bool:
    from erp.cli.demo import report, tpch
    from erp.cli.demo.client import DemoClient
    from erp.cli.demo.tpch.generated import generate
    from erp.cli.demo.tpch.lives import Lives

    try:
        scale = tpch.scale_of(asked.scale)
    except ValueError as error:
        _stop(f"--tpch: {error}", status=2)
    orders = generate(scale, asked.data_dir / "tpch")
    lives = Lives(asked.data_dir, asked.port, kill_every=asked.kill_every)
    stack.callback(lives.stop)
    key = _key(asked.data_dir)
    is_right = tpch.run(tpch.Journey(orders, lives, lambda: DemoClient(lives.address, key), asked.concurrency))
    if not asked.once:
        report.print_next_steps(lives.address, key, log=lives.log)
        lives.wait()
    return is_right


def _key(data_dir: Path) -> str:
    """Return an operator's key of the demo tenant, making the tenant at the first run."""
    from erp.cli.session import with_control_plane
    from erp.control_plane import ControlPlane

    async def made(control: ControlPlane) -> str:
        if TENANT not in await control.tenants.ids():
            await control.tenants.create(TENANT, name="Demo")
        _, text = await control.api_keys.create(TENANT, role="operator", name="demo")
        return text

    return with_control_plane(data_dir, made)


def _configure(client: DemoClient, receiver: Child, secret: str) -> None:
    """Make the receiver the tenant's integration."""
    from erp.cli.demo.children import ChildFailedError

    body = {"config": {"url": f"{receiver.address}/orders", "secret": secret}, "default": True}
    answer = client.send("POST", "/providers/integration/webhook/configure", body)
    if answer.status != CONFIGURED:
        message = f"the webhook could not be configured: {answer.body.get('detail')}"
        raise ChildFailedError(message)
