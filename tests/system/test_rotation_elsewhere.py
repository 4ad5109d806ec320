"""Secrets in Vault and in AWS are rotated by hand and by schedule while calls use them: none fails.

The versions before are then destroyed there, but for one that a connection still names.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import boto3
import httpx2
import pytest
from moto.server import ThreadedMotoServer
from tests.support.process import Server
from tests.support.vault_double import Double
from tests.system.conftest import StartServer
from tests.system.test_hot_swap import headers, make_provider

pytestmark = pytest.mark.anyio

PER_SECOND = 100
PLACE = "erp/acme/default/cache"
GONE = ["previous", "destroyed", "current"]


class Peer(Protocol):
    """Where secrets are kept, seen from outside the layer."""

    name: str

    def settings(self) -> dict[str, Any]: ...
    def versions(self) -> dict[int, bool]:
        """Return by number whether the system itself still offers a version."""


class VaultPeer:
    name = "vault"

    def __init__(self, double: Double) -> None:
        self._double = double

    def settings(self) -> dict[str, Any]:
        return {"address": self._double.address, "token": self._double.vault.root_token}

    def versions(self) -> dict[int, bool]:
        found = self._double.vault.secrets[f"|{PLACE}"]["versions"]
        return {number: one["data"] is not None for number, one in found.items()}


class AwsPeer:
    name = "aws"

    def __init__(self, address: str) -> None:
        self._address = address
        keys = {"aws_access_key_id": "other", "aws_secret_access_key": "other", "region_name": "eu-west-1"}
        self._client = boto3.client("secretsmanager", endpoint_url=address, **keys)

    def settings(self) -> dict[str, Any]:
        keys = {"access_key_id": "not-a-real-id", "secret_access_key": "not-a-real-key"}
        return {**keys, "region": "eu-west-1", "endpoint": self._address}

    def versions(self) -> dict[int, bool]:
        stages = self._client.describe_secret(SecretId=PLACE)["VersionIdsToStages"]
        return {number: bool(stages.get(f"erp-version-{number:024}")) for number in (1, 2, 3)}


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    double, moto = Double(), ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    yield [VaultPeer(double), AwsPeer(f"http://127.0.0.1:{moto.get_host_and_port()[1]}")]
    moto.stop()
    double.close()


class Site:
    """A server with a connection ``cache/fresh#vault`` and ``#aws``, each with a password that is kept there."""

    def __init__(self, client: httpx2.AsyncClient, server: Server) -> None:
        self._client = client
        self._server = server
        self.statuses: Counter[int] = Counter()

    async def ask(self, method: str, path: str, body: Any = None, connection: str = "default") -> Any:
        heads = headers(self._server, "admin") | {"X-Connection": connection}
        answer = await self._client.request(method, path, json=body, headers=heads)
        assert answer.status_code in {200, 204}, answer.text
        return answer.json() if answer.content else None

    async def secret(self, peer: Peer, action: str, **params: Any) -> Any:
        body = {"params": {"path": "cache", **params}}
        return (await self.ask("POST", f"/providers/secrets/{peer.name}/{action}", body))["data"]

    async def connect(self, peer: Peer, name: str, version: str = "") -> None:
        reference = f"secret://secrets/{peer.name}/default/cache{version}"
        body = {"connection": name, "config": {"password": reference}}
        await self.ask("POST", "/providers/cache/fresh/configure", body)

    async def password(self, name: str) -> Any:
        body = {"params": {"key": "no such key"}}
        return (await self.ask("POST", "/providers/cache/fresh/get", body, name))["data"]["value"]

    async def states(self, peer: Peer) -> list[str]:
        return [one["state"] for one in (await self.secret(peer, "list_versions"))["versions"]]

    async def load(self, is_over: asyncio.Event) -> None:
        """Send calls at their times, whatever became of those before."""
        sent: list[asyncio.Task[None]] = []

        async def call(number: int) -> None:
            heads = headers(self._server, "developer") | {"X-Connection": ("vault", "aws")[number % 2]}
            body = {"params": {"key": "k", "value": number}}
            answer = await self._client.post("/providers/cache/fresh/set", json=body, headers=heads)
            self.statuses[answer.status_code] += 1

        began = time.monotonic()
        while not is_over.is_set():
            await asyncio.sleep(max(0.0, began + len(sent) / PER_SECOND - time.monotonic()))
            sent.append(asyncio.create_task(call(len(sent))))
        await asyncio.gather(*sent)


async def furnish(site: Site, peer: Peer) -> None:
    await site.ask("POST", f"/providers/secrets/{peer.name}/configure", {"config": peer.settings()})
    await site.secret(peer, "put", value="first")
    await site.connect(peer, peer.name)
    await site.connect(peer, f"{peer.name}-pinned", "#1")
    assert await site.password(peer.name) == "first"


async def follows(site: Site, peer: Peer, before: str) -> str:
    """Return the password that is taken into use instead of ``before``."""
    ends = time.monotonic() + 30
    while (found := str(await site.password(peer.name))) == before:
        assert time.monotonic() < ends, found
        await asyncio.sleep(0.05)
    return found


async def rotate(site: Site, peer: Peer) -> str:
    """Rotate by hand, then by schedule; return the last password."""
    await site.secret(peer, "rotate", value="second", overlap_seconds=0)
    assert await follows(site, peer, "first") == "second"
    plan = {
        "path": "cache",
        "provider": f"secrets/{peer.name}",
        "every_days": 30,
        "overlap_seconds": 0,
        "value": {"from": "random"},
    }
    await site.ask("PUT", f"/secret-schedules/{peer.name}", plan)
    await site.ask("POST", f"/secret-schedules/{peer.name}:run")
    return await follows(site, peer, "second")


async def outlived(site: Site, peer: Peer) -> None:
    """Wait until the version that nothing uses is destroyed."""
    ends = time.monotonic() + 60
    while (found := await site.states(peer)) != GONE:
        assert time.monotonic() < ends, found
        await asyncio.sleep(0.2)
    assert await asyncio.to_thread(peer.versions) == {1: peer.name == "vault", 2: False, 3: True}


async def test_no_call_fails_while_secrets_elsewhere_are_rotated_and_what_nothing_uses_is_destroyed_there(
    furnished: Path, start_server: StartServer, peers: list[Peer]
) -> None:
    await asyncio.to_thread(make_provider, furnished / "providers")
    server = await asyncio.to_thread(start_server, furnished, environment={"ERP_EGRESS_ALLOW": "127.0.0.0/8"})
    is_over = asyncio.Event()
    async with httpx2.AsyncClient(base_url=server.address, timeout=30) as client:
        site = Site(client, server)
        await asyncio.gather(*(furnish(site, peer) for peer in peers))
        loading = asyncio.create_task(site.load(is_over))
        try:
            passwords = await asyncio.gather(*(rotate(site, peer) for peer in peers))
            assert [await site.states(peer) for peer in peers] == [["previous", "previous", "current"]] * 2
            await asyncio.gather(*(outlived(site, peer) for peer in peers))
        finally:
            is_over.set()
            await loading
        assert [await site.password(peer.name) for peer in peers] == passwords
        assert [await site.password(f"{peer.name}-pinned") for peer in peers] == ["first", "first"]
        records = (await site.ask("GET", "/audit?action=secrets.destroy_version"))["items"]

    assert sorted(one["target"] for one in records) == [f"secrets/{name}/default/cache#2" for name in ("aws", "vault")]
    assert set(site.statuses) == {200}
    assert server.log.count("could not be destroyed") == 0
