"""What every test may ask for: a place for an open provider to live and the facts of a call."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from tests.support import collecting

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import ControlPlane
from erp.control_plane.tables import metadata as control_plane_tables
from erp.errors import ProviderError
from erp.runtime.context import Actor, CallContext
from erp.runtime.overlaps import Overlap
from erp.runtime.ports import Decision, Introspection, IssuedToken, LinkPurpose, SecretVersion
from erp.runtime.spi import OpenContext


def pytest_configure(config: pytest.Config) -> None:
    """Have tests collected as ``tests/support/collecting.py`` says."""
    config.pluginmanager.register(collecting)


class MakeCallContext(Protocol):
    """``call_context(tenant="acme", **facts)``: a ``CallContext`` whose deadline is 5 s ahead."""

    def __call__(self, *, tenant: str = "acme", seconds: float = 5.0, **facts: Any) -> CallContext: ...


@dataclass
class MemoryVault:
    """The port ``SecretVault`` on a dictionary: versions count from 1, destroyed ones stay listed."""

    values: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    overlaps: list[float | None] = field(default_factory=list)

    async def put(self, tenant: str, path: str, value: str, *, overlap_seconds: float | None = None) -> int:
        versions = self.values.setdefault((tenant, path), [])
        versions.append(value)
        self.overlaps.append(overlap_seconds)
        return len(versions)

    async def newest(self, tenant: str, path: str) -> int | None:
        return len(self.values.get((tenant, path), [])) or None

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
class ReadableOverlaps:
    """The port ``Overlaps`` on a dictionary: secret -> version as it is named -> seconds, or None once it is over."""

    planned: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def at(self, *_: str) -> ReadableOverlaps:
        return self

    @contextlib.asynccontextmanager
    async def replacing(self, path: str, versions: Mapping[int, str], seconds: float) -> AsyncIterator[None]:
        yield
        self.planned.setdefault(path, {}).update(dict.fromkeys(versions.values(), seconds))

    async def of(self, path: str) -> dict[str, Overlap]:
        now = datetime.datetime.now(datetime.UTC)
        return {
            name: Overlap(ends_at=now + datetime.timedelta(seconds=left or 0), is_over=left is None)
            for name, left in self.planned.get(path, {}).items()
        }

    async def end(self, path: str, version_id: str) -> None:
        self.planned[path][version_id] = None

    async def forget(self, path: str) -> None:
        self.planned.pop(path, None)


@dataclass
class ListedIdentity:
    """The port ``Identity`` on a dictionary: credential -> actor."""

    actors: dict[str, Actor] = field(default_factory=dict)

    async def authenticate(self, credential: str) -> Actor:
        actor = self.actors.get(credential)
        if actor is None:
            raise ProviderError(ErrorCode.UNAUTHENTICATED, "The credential is not valid.")
        return actor

    async def introspect(self, credential: str) -> Introspection:
        actor = self.actors.get(credential)
        return Introspection(active=actor is not None, actor=actor, audience="urn:erp:gateway")

    async def exchange(self, tenant: str, subject_token: str, **_: Any) -> IssuedToken:
        raise AssertionError(tenant, len(subject_token))

    async def evaluate(self, tenant: str, subject: Any, action: str, resource: Any) -> Decision:
        raise AssertionError(tenant, subject, action, resource)


@dataclass
class ReadableLinks:
    """The port ``Links`` without a seal: purpose, claims and expiry can be read back from ``made``."""

    made: list[tuple[str, dict[str, str], datetime.datetime | None]] = field(default_factory=list)

    def make(
        self, purpose: LinkPurpose, claims: Mapping[str, str], *, expires_at: datetime.datetime | None = None
    ) -> str:
        self.made.append((purpose, dict(claims), expires_at))
        return f"https://erp.example/{purpose}/link-{len(self.made)}"


@dataclass
class KeptReminders:
    """What ``OpenContext.remind`` was asked for, in order."""

    due: list[datetime.datetime] = field(default_factory=list)

    async def __call__(self, due: datetime.datetime) -> None:
        self.due.append(due)


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


class OneLinkMaker:
    """The port ``LinkMaker``: all connections share ``links``."""

    def __init__(self, links: ReadableLinks) -> None:
        self.links = links

    def of(self, *_: str) -> ReadableLinks:
        return self.links


@dataclass
class ListedReminders:
    """The port ``Reminders`` on a list: place and time, in the order they were asked for; none is ever due."""

    asked: list[tuple[tuple[str, str, str, str], datetime.datetime]] = field(default_factory=list)

    async def set(self, tenant: str, domain: str, provider: str, connection: str, due: datetime.datetime) -> None:
        self.asked.append(((tenant, domain, provider, connection), due))

    async def next_due_seconds(self) -> float | None:
        return None

    async def claim(self, *, limit: int, lease_seconds: float) -> list[Any]:
        del limit, lease_seconds
        return []

    async def settle(self, reminder: Any, due: datetime.datetime | None) -> None:
        raise AssertionError(reminder, due)


@pytest.fixture
def link_maker(links: ReadableLinks) -> OneLinkMaker:
    """What a pool gives its providers links with."""
    return OneLinkMaker(links)


@pytest.fixture
def listed_reminders() -> ListedReminders:
    """Reminders of a pool that a test can read."""
    return ListedReminders()


@pytest.fixture
def links() -> ReadableLinks:
    """Links whose claims a test can read."""
    return ReadableLinks()


@pytest.fixture
def reminders() -> KeptReminders:
    """Reminders a test can read."""
    return KeptReminders()


@pytest.fixture
def overlaps() -> ReadableOverlaps:
    """Plans for versions of secrets that a test can read."""
    return ReadableOverlaps()


@pytest.fixture
def open_context(
    tmp_path: Path,
    vault: MemoryVault,
    identity: ListedIdentity,
    links: ReadableLinks,
    reminders: KeptReminders,
    overlaps: ReadableOverlaps,
) -> OpenContext:
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
        links=links,
        remind=reminders,
        overlaps=overlaps,
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


class OpenControlPlane(Protocol):
    """``await open_control_plane()``: one more process's view of the test's control plane."""

    async def __call__(self) -> ControlPlane: ...


PEPPER = b"pepper of the tests, 32 bytes..."


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite control plane with its schema and nothing in it, to be copied."""
    folder = tmp_path_factory.mktemp("migrated")
    asyncio.run(_migrate(folder, None))
    return folder / "control.db"


class NewDataDir(Protocol):
    """``new_data_dir("data")``: a data directory in ``tmp_path``, as a layer's first start leaves its database."""

    def __call__(self, name: str = "data") -> Path: ...


@pytest.fixture
def new_data_dir(migrated_file: Path, tmp_path: Path) -> NewDataDir:
    """A maker of data directories: migrating an empty database is most of what the start of a layer takes."""

    def make(name: str = "data") -> Path:
        folder = tmp_path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(migrated_file, folder / migrated_file.name)
        return folder

    return make


@pytest.fixture(scope="session")
def migrated_postgresql() -> Iterator[str]:
    """A database of its own on the PostgreSQL that ``ERP_TEST_POSTGRES`` names, with the schema; removed at the end."""
    server = os.environ.get("ERP_TEST_POSTGRES")
    if not server:
        pytest.skip("needs PostgreSQL: set ERP_TEST_POSTGRES")
    name = f"erp_control_plane_{uuid.uuid4().hex[:12]}"
    url = urlsplit(server)._replace(path=f"/{name}").geturl()
    asyncio.run(_execute(server, f"CREATE DATABASE {name}"))
    try:
        asyncio.run(_migrate(Path(), url))
        yield url
    finally:
        asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _migrate(folder: Path, url: str | None) -> None:
    control = await ControlPlane.open(folder, url, pepper=PEPPER)
    await control.close()


async def _execute(url: str, statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def control_plane_url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """The address of an empty control plane; None for SQLite in ``tmp_path``. Tests run once on each."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "control.db")
        return None
    url: str = request.getfixturevalue("migrated_postgresql")
    names = [table.name for table in control_plane_tables.sorted_tables if table.name != "revisions"]
    asyncio.run(_execute(url, f"TRUNCATE {', '.join(names)} CASCADE"))
    return url


@pytest.fixture
async def open_control_plane(control_plane_url: str | None, tmp_path: Path) -> AsyncIterator[OpenControlPlane]:
    """A maker of control planes over one database, as several processes would have; closed at the end."""
    opened: list[ControlPlane] = []

    async def make() -> ControlPlane:
        opened.append(await ControlPlane.open(tmp_path, control_plane_url, pepper=PEPPER))
        return opened[-1]

    yield make
    for control in opened:
        await control.close()


@pytest.fixture
async def control(open_control_plane: OpenControlPlane) -> ControlPlane:
    """A control plane with the tenants ``acme`` and ``globex``."""
    made = await open_control_plane()
    await made.tenants.create("acme", name="Acme")
    await made.tenants.create("globex")
    return made
