"""A layer to run cases in: the whole pipeline with a control plane of its own and two tenants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from erp.runtime.calls import Calls
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.conformance.peers import Peers
    from erp.runtime.manifest import ProviderManifest
    from erp.runtime.pool import ProviderPool

ALPHA, BETA = "alpha", "beta"
"""The tenants of every host."""

PATIENT = {
    "timeout_seconds": 30,
    "retry": {"max_attempts": 1},
    "breaker": {"failure_threshold": 10_000},
    "bulkhead": {"max_concurrency": 1000, "max_queue": 1000},
}
"""How calls of cases are protected: a failure is seen at once and not hidden by a retry."""


class Ask(Protocol):
    """``await ask(method, path, tenant, body)``: status and JSON of one request to the gateway, by its administrator."""

    async def __call__(
        self, method: str, path: str, tenant: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]: ...


class Send(Protocol):
    """``await send(url, headers, content)``: status of a POST to a link of the gateway, by nobody it knows."""

    async def __call__(self, url: str, headers: Mapping[str, str], content: bytes) -> int: ...


class Claims(Protocol):
    """``claims(url)``: what a link of the gateway for webhooks says."""

    def __call__(self, url: str) -> Mapping[str, str]: ...


class Connect(Protocol):
    """``await connect(tenant, manifest, name, config)``: make a connection that calls can use."""

    async def __call__(self, tenant: str, manifest: ProviderManifest, name: str, config: Mapping[str, Any]) -> None: ...


class Disconnect(Protocol):
    """``await disconnect(tenant, manifest, name)``: remove it; its open provider is closed."""

    async def __call__(self, tenant: str, manifest: ProviderManifest, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Host:
    """What cases reach of the layer they run in."""

    calls: Calls
    catalog: ProviderCatalog
    pool: ProviderPool
    ask: Ask
    send: Send
    claims: Claims
    connect: Connect
    disconnect: Disconnect
    data_dir: Path
    credentials: Mapping[str, str]
    """Tenant -> a credential of its administrator that the platform's own identity knows."""
    peers: Peers
