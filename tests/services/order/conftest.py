"""The order service over a real SQLite provider, with recorded AI, integration and outbox."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.services.order.tenant import Tenant

from erp.contracts.models import ai, integration
from erp.control_plane.database import Database
from erp.control_plane.open_work import StoredOpenWork
from erp.control_plane.revisions import Revisions
from erp.control_plane.tenants import Tenants
from erp.errors import ProviderError
from erp.providers.db.sqlite.provider import SqliteDatabase
from erp.runtime.context import Actor, CallContext
from erp.runtime.spi import OpenContext
from erp.services.order import follow_up as follow_up_module
from erp.services.order.follow_up import OrderFollowUp
from erp.services.order.service import OrderService
from erp.services.order.watch import Watch


@dataclass
class World:
    """What the service reaches, and what it did there."""

    database: SqliteDatabase
    open_work: StoredOpenWork
    triggers: list[tuple[str | None, Any]] = field(default_factory=list)
    delivered: set[str] = field(default_factory=set)
    """What a receiver that deduplicates by key has seen."""
    texts: list[str] = field(default_factory=list)
    events: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """The outbox deduplicates by id."""
    failures: dict[str, list[ProviderError]] = field(default_factory=dict)
    """Domain -> errors of its next calls."""

    def context(self, tenant: str = "acme") -> CallContext:
        made = CallContext(
            tenant=tenant,
            actor=Actor(id="service:order", tenant=tenant, kind="service"),
            request_id="r",
            deadline=time.monotonic() + 10,
        )
        made.invoke = self._invoke(made)
        made.publish = self.publish
        return made

    def _invoke(self, context: CallContext) -> Any:
        async def invoke(domain: str, action: str, request: Any, **more: Any) -> Any:
            if self.failures.get(domain):
                raise self.failures[domain].pop(0)
            if domain == "db":
                return await getattr(self.database, action)(request, context)
            return getattr(self, f"_{action}")(request, **more)

        return invoke

    def _trigger(self, request: Any, *, idempotency_key: str | None = None) -> Any:
        self.triggers.append((idempotency_key, request))
        self.delivered.add(idempotency_key or "")
        return integration.TriggerResult(id=f"msg-{idempotency_key}", status="completed")

    def _classify(self, request: ai.ClassifyRequest, **_: Any) -> Any:
        self.texts += request.texts
        label = request.labels[0].name
        return ai.ClassifyResult(
            model="test-model",
            classifications=[ai.Classification(label=label, scores=[], truncated=False)],
            usage=ai.Usage(input_tokens=1, output_tokens=0, estimated=False),
        )

    async def publish(self, event: str, data: dict[str, Any], *, key: str | None = None, id: str | None = None) -> None:  # noqa: A002
        if self.failures.get("publish"):
            raise self.failures["publish"].pop(0)
        assert key == data["order_id"]
        self.events[id or ""] = (event, data)


@pytest.fixture
async def open_work(migrated_file: Path, tmp_path: Path) -> AsyncIterator[StoredOpenWork]:
    """The control plane's memory of tenants with open orders."""
    database = Database.in_file(Path(shutil.copy(migrated_file, tmp_path / "control.db")))
    for name in ("acme", "globex"):
        await Tenants(database, Revisions(database)).create(name)
    yield StoredOpenWork(database)
    await database.close()


@pytest.fixture
async def world(open_context: OpenContext, open_work: StoredOpenWork) -> AsyncIterator[World]:
    database = SqliteDatabase({}, open_context)
    await database.open()
    yield World(database, open_work)
    await database.close()


@dataclass
class Running:
    """A service with its follow-up at work."""

    world: World
    service: OrderService
    follow_up: OrderFollowUp
    task: asyncio.Task[None]

    async def stop(self) -> None:
        await self.follow_up.stop()
        await asyncio.wait_for(self.task, 30)


async def start(world: World) -> Running:
    follow_up = OrderFollowUp(context_for=world.context, watch=Watch(world.open_work), sweep_seconds=30)
    return Running(world, OrderService(follow_up), follow_up, asyncio.create_task(follow_up.run()))


@pytest.fixture
async def running(world: World) -> AsyncIterator[Running]:
    made = await start(world)
    yield made
    await made.stop()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without long pauses."""
    from erp.services.order import follow_up

    monkeypatch.setattr(follow_up, "BASE_SECONDS", 0.01)
    monkeypatch.setattr(follow_up, "CAP_SECONDS", 0.02)
    monkeypatch.setattr(follow_up, "UNREADABLE_SECONDS", 0.02)


@pytest.fixture
def data_dir(open_context: OpenContext) -> Path:
    return open_context.data_dir


@pytest.fixture
async def tenant(open_context: OpenContext) -> AsyncIterator[Tenant]:
    database = SqliteDatabase({}, open_context)
    await database.open()
    yield Tenant(database)
    await database.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come after milliseconds."""
    monkeypatch.setattr(follow_up_module, "BASE_SECONDS", 0.001)
    monkeypatch.setattr(follow_up_module, "CAP_SECONDS", 0.002)
    monkeypatch.setattr(follow_up_module, "UNREADABLE_SECONDS", 0.002)


@pytest.fixture
def follow_up(tenant: Tenant, open_work: StoredOpenWork, impatient: None) -> OrderFollowUp:
    """Not running: a test starts it when it wants to."""
    return OrderFollowUp(context_for=tenant.context, watch=Watch(open_work), sweep_seconds=0.02)


@pytest.fixture
def service(follow_up: OrderFollowUp) -> OrderService:
    return OrderService(follow_up)


@pytest.fixture
async def at_work(follow_up: OrderFollowUp) -> AsyncIterator[OrderFollowUp]:
    """The follow-up at work for the length of the test."""
    task = asyncio.create_task(follow_up.run())
    yield follow_up
    await follow_up.stop()
    await task
