"""What every test may ask for: a place for an open provider to live and the facts of a call."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.context import Actor, CallContext
from erp.runtime.ports import SecretVersion
from erp.runtime.spi import OpenContext


class MakeCallContext(Protocol):
    """``call_context(tenant="acme", **facts)``: a ``CallContext`` whose deadline is 5 s ahead."""

    def __call__(self, *, tenant: str = "acme", seconds: float = 5.0, **facts: Any) -> CallContext: ...


@dataclass
class MemoryVault:
    """The port ``SecretVault`` on a dictionary: versions count from 1, destroyed ones stay listed."""

    values: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    async def put(self, tenant: str, path: str, value: str) -> int:
        versions = self.values.setdefault((tenant, path), [])
        versions.append(value)
        return len(versions)

    async def get(self, tenant: str, path: str, version: int | None = None) -> str:
        versions = self.values.get((tenant, path), [])
        wanted = len(versions) if version is None else version
        if not 1 <= wanted <= len(versions):
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no secret {path!r} in this version.")
        return versions[wanted - 1]

    async def versions(self, tenant: str, path: str) -> list[SecretVersion]:
        newest = len(self.values.get((tenant, path), []))
        return [
            SecretVersion(
                version=number,
                created_at="2026-01-01T00:00:00Z",
                state="current" if number == newest else "previous",
            )
            for number in range(1, newest + 1)
        ]

    async def list(self, tenant: str, prefix: str) -> list[str]:
        return sorted(path for owner, path in self.values if owner == tenant and path.startswith(prefix))

    async def delete(self, tenant: str, path: str) -> bool:
        return self.values.pop((tenant, path), None) is not None


@dataclass
class ListedIdentity:
    """The port ``Identity`` on a dictionary: credential -> actor."""

    actors: dict[str, Actor] = field(default_factory=dict)

    async def authenticate(self, credential: str) -> Actor:
        actor = self.actors.get(credential)
        if actor is None:
            raise ProviderError(ErrorCode.UNAUTHENTICATED, "The credential is not valid.")
        return actor


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Plain asyncio: its errors and warnings are clearer than uvloop's."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture
def vault() -> MemoryVault:
    """An empty secret store."""
    return MemoryVault()


@pytest.fixture
def identity() -> ListedIdentity:
    """Knows the credential ``valid-credential`` of an administrator of ``acme`` and nobody else."""
    admin = Actor(id="key_admin", tenant="acme", roles=frozenset({"admin"}))
    return ListedIdentity({"valid-credential": admin})


@pytest.fixture
def open_context(tmp_path: Path, vault: MemoryVault, identity: ListedIdentity) -> OpenContext:
    """Where a provider under test lives: tenant ``acme``, connection ``default``, empty folders."""
    data_dir, shared_dir = tmp_path / "data", tmp_path / "shared"
    data_dir.mkdir(mode=0o700)
    shared_dir.mkdir(mode=0o700)
    return OpenContext(
        tenant="acme",
        connection="default",
        data_dir=data_dir,
        shared_dir=shared_dir,
        vault=vault,
        identity=identity,
    )


@pytest.fixture
def call_context() -> MakeCallContext:
    """A maker of call contexts; any fact of ``CallContext`` can be given by name."""

    def make(*, tenant: str = "acme", seconds: float = 5.0, **facts: Any) -> CallContext:
        facts.setdefault("actor", Actor(id="key_test", tenant=tenant, roles=frozenset({"developer"})))
        facts.setdefault("request_id", f"req_{uuid.uuid4().hex}")
        facts.setdefault("deadline", time.monotonic() + seconds)
        return CallContext(tenant=tenant, **facts)

    return make
