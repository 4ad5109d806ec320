"""Two tenants on one layer: one has everything, the other one wants it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.hostile.plants import ATTACKER, VICTIM, Loot, planted, seen
from tests.support.contract_client import contract_client

from erp.main import Layer, Settings, running

UNHURRIED = {"rate": {"requests": 1_000_000, "period_seconds": 1}}


@dataclass
class Scene:
    """The layer, the victim's things, and clients of both."""

    layer: Layer
    loot: Loot
    keys: dict[str, str]
    before: dict[str, Any]

    def client(self, who: str) -> httpx2.AsyncClient:
        """A client of ``victim``, ``victim admin``, ``attacker`` or ``attacker admin``."""
        return contract_client(self.layer.application(), self.keys[who])

    async def now(self) -> dict[str, Any]:
        """What the victim sees."""
        async with self.client("victim") as victim, self.client("victim admin") as admin:
            return await seen(victim, admin)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def scene(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    data_dir: Path = tmp_path_factory.mktemp("hostile")
    async with running(Settings(data_dir=data_dir, database_url=None, log_level="error")) as layer:
        await layer.first_key()
        keys = {}
        for tenant in (VICTIM, ATTACKER):
            await layer.control.tenants.create(tenant, policy=UNHURRIED)
            for role, name in (("developer", tenant), ("admin", f"{tenant} admin")):
                _, keys[name] = await layer.control.api_keys.create(tenant, role=role)
        made = Scene(layer, Loot(), keys, {})
        async with made.client("victim") as victim, made.client("victim admin") as admin:
            made.loot = await planted(victim, admin)
        made.before = await made.now()
        yield made
