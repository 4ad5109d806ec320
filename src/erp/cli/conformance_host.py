"""A whole layer in a temporary folder for conformance cases to run in."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec

from erp.gateway.configuration import secret_prefix, split_secrets
from erp.main import Layer, Settings, running
from erp.runtime.conformance.host import ALPHA, BETA, PATIENT, Ask, Claims, Connect, Disconnect, Host, Send
from erp.runtime.conformance.peers import Peers
from erp.runtime.ports import Connection
from erp.runtime.secret_references import SECRET_SCHEME
from erp.vendor_clients.egress import ALLOW_VARIABLE

if TYPE_CHECKING:
    from erp.runtime.manifest import ProviderManifest

Load = Callable[["ProviderManifest"], type[Any]]


@contextlib.asynccontextmanager
async def hosting(*, load: Load | None = None, drop_in: Path | None = None) -> AsyncIterator[Host]:
    """Run a layer with the tenants of conformance cases for the length of a block.

    Args:
        load: finds the class of a provider; None: as always.
        drop_in: folder with provider folders to be known beside the installed ones.
    """
    with tempfile.TemporaryDirectory(prefix="erp-conformance-") as folder:
        data_dir = _prepared(Path(folder), drop_in)
        settings = Settings(data_dir=data_dir, database_url=None, log_level="error")
        async with _playing() as peers, running(settings) as layer:
            if load is not None:
                layer.pool.load = load
            keys = await _tenants(layer)
            connect, disconnect = _connecting(layer)
            yield Host(
                calls=layer.calls,
                catalog=layer.catalog,
                pool=layer.pool,
                ask=_asking(layer, keys),
                send=_sending(layer),
                claims=_claims(layer),
                connect=connect,
                disconnect=disconnect,
                data_dir=data_dir,
                credentials=keys,
                peers=peers,
            )


@contextlib.asynccontextmanager
async def _playing() -> AsyncIterator[Peers]:
    """Play the peers, and let this process reach their ports on this machine, and no others."""
    peers = Peers()
    await peers.open()
    try:
        with _reachable(*peers.ports):
            yield peers
    finally:
        await peers.close()


@contextlib.contextmanager
def _reachable(*ports: int) -> Iterator[None]:
    """Add the ports to what the guard of outgoing requests allows; others may do the same at the same time."""
    mine = [f"127.0.0.1/32:{port}" for port in ports]
    os.environ[ALLOW_VARIABLE] = ",".join([*_allowed(), *mine])
    try:
        yield
    finally:
        rest = [entry for entry in _allowed() if entry not in mine]
        if rest:
            os.environ[ALLOW_VARIABLE] = ",".join(rest)
        else:
            os.environ.pop(ALLOW_VARIABLE, None)


def _allowed() -> list[str]:
    return [entry for entry in os.environ.get(ALLOW_VARIABLE, "").split(",") if entry]


def _prepared(folder: Path, drop_in: Path | None) -> Path:
    if drop_in is not None:
        (folder / "providers").symlink_to(drop_in.absolute())
    return folder


async def _tenants(layer: Layer) -> dict[str, str]:
    """Make the tenants; return the key of each one's administrator."""
    keys = {}
    for tenant in (ALPHA, BETA):
        await layer.control.tenants.create(tenant)
        _, keys[tenant] = await layer.control.api_keys.create(tenant, role="admin")
    return keys


def _asking(layer: Layer, keys: Mapping[str, str]) -> Ask:
    transport = httpx2.ASGITransport(app=layer.application())
    client = httpx2.AsyncClient(transport=transport, base_url="http://layer", timeout=60.0)

    async def ask(method: str, path: str, tenant: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {keys[tenant]}", "content-type": "application/json"}
        content = None if body is None else msgspec.json.encode(body)
        answer = await client.request(method, path, content=content, headers=headers)
        return answer.status_code, msgspec.json.decode(answer.content) if answer.content else None

    return ask


def _sending(layer: Layer) -> Send:
    transport = httpx2.ASGITransport(app=layer.application())
    client = httpx2.AsyncClient(transport=transport, timeout=60.0)

    async def send(url: str, headers: Mapping[str, str], content: bytes) -> int:
        return (await client.post(url, content=content, headers=dict(headers))).status_code

    return send


def _claims(layer: Layer) -> Claims:
    def claims(url: str) -> Mapping[str, str]:
        return layer.links.open("webhooks", url.rpartition("/")[2]).claims

    return claims


def _connecting(layer: Layer) -> tuple[Connect, Disconnect]:
    """Connections straight into the control plane: every case needs one, and most are not about configuring."""

    async def connect(tenant: str, manifest: ProviderManifest, name: str, config: Mapping[str, Any]) -> None:
        plain, secrets = split_secrets(manifest, config)
        wanted = Connection(
            tenant=tenant,
            domain=manifest.domain,
            provider=manifest.name,
            name=name,
            revision="",
            config=plain,
            secrets={},
            policy=PATIENT,
        )
        references = {field: await _kept(layer, wanted, field, value) for field, value in secrets.items()}
        await layer.control.connections.put(msgspec.structs.replace(wanted, secrets=references))

    async def disconnect(tenant: str, manifest: ProviderManifest, name: str) -> None:
        await layer.control.connections.delete(tenant, manifest.domain, manifest.name, name)
        layer.plans.forget(tenant)
        layer.pool.discard(tenant, manifest.domain, manifest.name, name)

    return connect, disconnect


async def _kept(layer: Layer, target: Connection, field: str, value: str) -> str:
    path = f"{secret_prefix(target)}{field}"
    return f"{SECRET_SCHEME}{path}#{await layer.vault.put(target.tenant, path, value)}"
