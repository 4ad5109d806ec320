"""Servers that are processes of their own: one for all that only ask, and one's own for those that kill it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import httpx2
import pytest
from tests.support.process import Server

from erp.main import Settings, running

DROP_IN = Path(__file__).parent / "drop_in"


class StartServer(Protocol):
    """``start_server(data_dir=None, *options, environment={})``: a ready server; killed at the end of the test."""

    def __call__(self, data_dir: Path | None = None, *options: str, environment: Mapping[str, str] = {}) -> Server: ...


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the tenant acme and the provider ``db/paced``, for tests that leave it as it is."""
    data_dir = tmp_path_factory.mktemp("system") / "data"
    shutil.copytree(DROP_IN, data_dir / "providers", ignore=shutil.ignore_patterns("__pycache__"))
    server = Server(data_dir)
    try:
        yield server.ready().furnish()
    finally:
        server.kill()


@pytest.fixture(scope="session")
def first_keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A data directory with the tenant acme, and its keys by role: made once, to be copied."""
    where = tmp_path_factory.mktemp("furnished") / "data"

    async def furnish() -> dict[str, str]:
        async with running(Settings(data_dir=where, database_url=None, log_level="error")) as layer:
            keys = {"platform": await layer.first_key() or ""}
            await layer.control.tenants.create("acme")
            for role in ("admin", "developer"):
                _, keys[role] = await layer.control.api_keys.create("acme", role=role)
            return keys

    return where, asyncio.run(furnish())


@pytest.fixture
def client(shared: Server) -> Iterator[httpx2.Client]:
    """A developer of acme on the shared server."""
    with shared.client() as made:
        yield made


@pytest.fixture
def furnished(first_keys: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """A data directory of one's own with the tenant acme, whose keys ``start_server`` knows."""
    shutil.copytree(first_keys[0], tmp_path / "furnished")
    return tmp_path / "furnished"


@pytest.fixture
def start_server(first_keys: tuple[Path, dict[str, str]], tmp_path: Path) -> Iterator[StartServer]:
    """A maker of servers that a test may do anything to."""
    started: list[Server] = []

    def start(data_dir: Path | None = None, *options: str, environment: Mapping[str, str] = {}) -> Server:
        started.append(Server(data_dir or tmp_path / "data", *options, environment=environment))
        started[-1].keys |= first_keys[1]
        return started[-1].ready()

    yield start
    for server in started:
        server.kill()
