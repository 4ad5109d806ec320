"""A whole layer in a temporary folder, with a tenant and keys of every role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property

import httpx2
import pytest
from tests.conftest import NewDataDir
from tests.support.contract_client import contract_client

from erp.gateway.app import Gateway
from erp.main import Layer, Settings, running


@dataclass
class Site:
    """A running layer and what a test needs to call it."""

    layer: Layer
    keys: dict[str, str]

    @cached_property
    def application(self) -> Gateway:
        """One for all clients, as in a process that serves."""
        return self.layer.application()

    def client(self, role: str | None = "developer") -> httpx2.AsyncClient:
        """A client with the key of ``role`` (``admin``, ``operator``, ``developer``, ``platform``), or with none."""
        return contract_client(self.application, self.keys[role] if role else None)


@pytest.fixture
async def site(new_data_dir: NewDataDir) -> AsyncIterator[Site]:
    """A layer with the tenant ``acme``."""
    async with running(Settings(data_dir=new_data_dir(), database_url=None, log_level="error")) as layer:
        keys = {"platform": await layer.first_key() or ""}
        await layer.control.tenants.create("acme", name="Acme")
        for role in ("admin", "operator", "developer"):
            _, keys[role] = await layer.control.api_keys.create("acme", role=role)
        yield Site(layer, keys)


@pytest.fixture
async def client(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    """A developer of ``acme``."""
    async with site.client() as made:
        yield made


@pytest.fixture
async def admin(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    """An administrator of ``acme``."""
    async with site.client("admin") as made:
        yield made
