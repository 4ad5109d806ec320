"""Two layers, one with a tenant and one empty, and the commands that a person would type against them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import anyio
import anyio.from_thread
import httpx2
import pytest
from tests.conftest import NewDataDir
from tests.support.contract_client import contract_client
from typer.testing import CliRunner, Result

from erp.cli import app
from erp.cli.state import server as module
from erp.cli.state.server import Server
from erp.gateway.app import Gateway
from erp.main import Layer, Settings, running


class _Bridge(httpx2.BaseTransport):
    """Sends what a command asks to a layer in this process, whose answers are held to the OpenAPI document."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        body = request.read()
        headers = {name: request.headers[name] for name in ("content-type", "prefer") if name in request.headers}

        async def send() -> httpx2.Response:
            return await self._client.request(request.method, request.url, content=body, headers=headers)

        answer = anyio.from_thread.run(send)
        return httpx2.Response(answer.status_code, content=answer.content, headers={"x": "y"}, request=request)


@dataclass
class Terminal:
    """Runs ``erp`` in a folder with a key of one layer."""

    layer: Layer
    folder: Path
    key: str
    monkeypatch: pytest.MonkeyPatch
    clients: AsyncExitStack
    requests: list[tuple[str, str]] = field(default_factory=list)

    @cached_property
    def application(self) -> Gateway:
        """One for all commands, as in a process that serves."""
        return self.layer.application()

    async def erp(self, *arguments: str, key: str | None = None, stdin: str | None = None) -> Result:
        """Run one command."""
        client = contract_client(self.application, key or self.key)
        await self.clients.enter_async_context(client)

        @contextmanager
        def connected(url: str, key_text: str) -> Iterator[Server]:
            with httpx2.Client(transport=_Bridge(client), base_url="http://testserver") as made:
                yield Server(made, key or self.key)

        self.monkeypatch.setattr(module, "connected", connected)
        return await anyio.to_thread.run_sync(lambda: CliRunner().invoke(app, list(arguments), input=stdin))

    async def export(self) -> str:
        """Return the present state."""
        done = await self.erp("export")
        assert done.exit_code == 0, done.stderr
        return done.stdout

    async def apply(self, text: str, *options: str, key: str | None = None) -> Result:
        """Apply a state file."""
        return await self.erp("apply", "-f", self.file(text), *options, key=key)

    async def diff(self, text: str, *options: str, key: str | None = None) -> Result:
        """Compare with a state file."""
        return await self.erp("diff", "-f", self.file(text), *options, key=key)

    def file(self, text: str) -> str:
        """Write a state file and return its path."""
        path = self.folder / "state.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)


async def _terminal(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Terminal]:
    settings = Settings(data_dir=data_dir, database_url=None, log_level="error")
    async with running(settings) as layer, AsyncExitStack() as clients:
        yield Terminal(layer, data_dir.parent, await layer.first_key() or "", monkeypatch, clients)


@pytest.fixture
async def terminal(new_data_dir: NewDataDir, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Terminal]:
    """A layer with the tenant ``acme``, and the platform's key."""
    async for made in _terminal(new_data_dir("first"), monkeypatch):
        await made.layer.control.tenants.create("acme", name="Acme")
        yield made


@pytest.fixture
async def empty(new_data_dir: NewDataDir, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Terminal]:
    """A layer that has just been installed."""
    async for made in _terminal(new_data_dir("second"), monkeypatch):
        yield made
