from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import NewDataDir

from erp.contracts.models.errors import ErrorCode
from erp.main import Layer, Settings, running
from erp.providers.storage.filesystem.provider import FileStorage
from erp.runtime.caretaker import CaretakerSettings
from erp.runtime.context import CallContext
from erp.runtime.spi import ProviderError

pytestmark = pytest.mark.anyio

PLACE = ("acme", "storage", "filesystem", "default")


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture
async def layer(new_data_dir: NewDataDir) -> AsyncIterator[Layer]:
    async with running(Settings(data_dir=new_data_dir(), database_url=None, log_level="error")) as made:
        made.caretaker._settings = CaretakerSettings(retry_seconds=0.01, work_seconds=0.2, poll_seconds=0.02)
        await made.control.tenants.create("acme")
        yield made


async def until(is_true: Callable[[], bool], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < ends, "it did not happen in time"
        await asyncio.sleep(0.005)


class Chores:
    """Stands in for ``work``: notes every visit, then does what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.visits: list[CallContext] = []
        self.then: Callable[[int, CallContext], Any] = lambda _number, _context: None

        async def work(_: Any, context: CallContext) -> Any:
            self.visits.append(context)
            answer = self.then(len(self.visits), context)
            return await answer if asyncio.iscoroutine(answer) else answer

        monkeypatch.setattr(FileStorage, "work", work, raising=False)


@pytest.fixture
def chores(monkeypatch: pytest.MonkeyPatch) -> Chores:
    return Chores(monkeypatch)


async def settled(layer: Layer) -> None:
    await until(lambda: not layer.caretaker._working)


async def test_work_is_done_as_the_tenant_on_the_connection_that_asked(layer: Layer, chores: Chores) -> None:
    await layer.control.reminders.set(*PLACE, now())
    await until(lambda: bool(chores.visits))
    context = chores.visits[0]
    assert (context.tenant, context.connection, context.actor.id) == ("acme", "default", "service:caretaker")
    assert 0.0 < context.remaining_seconds() <= 0.2
    await settled(layer)
    assert await layer.control.reminders.next_due_seconds() is None


async def test_work_comes_again_when_it_says_so(layer: Layer, chores: Chores) -> None:
    chores.then = lambda number, _: now() if number < 4 else None
    await layer.control.reminders.set(*PLACE, now())
    await until(lambda: len(chores.visits) == 4)
    await settled(layer)
    assert await layer.control.reminders.next_due_seconds() is None


async def test_work_that_fails_comes_again_until_it_succeeds(layer: Layer, chores: Chores) -> None:
    def fail(number: int, _: CallContext) -> None:
        if number == 1:
            raise ProviderError(ErrorCode.UNAVAILABLE, "not now")
        if number == 2:
            raise ValueError("not foreseen")

    chores.then = fail
    await layer.control.reminders.set(*PLACE, now())
    await until(lambda: len(chores.visits) == 3)
    await settled(layer)
    assert await layer.control.reminders.next_due_seconds() is None


async def test_work_that_takes_too_long_is_cancelled_and_comes_again(layer: Layer, chores: Chores) -> None:
    chores.then = lambda number, _: asyncio.sleep(30) if number == 1 else None
    await layer.control.reminders.set(*PLACE, now())
    await until(lambda: len(chores.visits) == 2)


async def test_what_work_announces_reaches_the_bus_of_the_tenant_once(layer: Layer, chores: Chores) -> None:
    chores.then = lambda _, context: context.emit("expired", {"rule": "r1", "removed": 3}, id="sweep-1")
    await layer.control.reminders.set(*PLACE, now())
    await until(lambda: bool(chores.visits))
    await layer.control.reminders.set(*PLACE, now())
    await until(lambda: len(chores.visits) == 2)
    await settled(layer)
    found = await published(layer, "provider.events.storage.filesystem.expired")
    assert [(event["id"], event["data"]) for event in found] == [("sweep-1", {"rule": "r1", "removed": 3})]
    records, _ = await layer.control.audit.search("acme", actor="service:caretaker")
    assert {(record.action, record.target, record.outcome) for record in records} == {
        ("storage.work", "storage/filesystem", "ok")
    }


async def test_what_was_announced_before_work_failed_is_published(layer: Layer, chores: Chores) -> None:
    def fail(number: int, context: CallContext) -> None:
        if number == 1:
            context.emit("expired", {"rule": "r1", "removed": 1}, id="sweep-1")
            raise ProviderError(ErrorCode.UNAVAILABLE, "the disk went away")

    chores.then = fail
    await layer.control.reminders.set(*PLACE, now())
    await until(lambda: len(chores.visits) == 2)
    assert len(await published(layer, "provider.events.storage.filesystem.expired")) == 1


async def test_the_work_of_a_connection_that_is_gone_is_forgotten(layer: Layer, chores: Chores) -> None:
    await layer.control.reminders.set("acme", "storage", "filesystem", "no-such-connection", now())
    await settled(layer)
    ends = time.monotonic() + 30
    while await layer.control.reminders.next_due_seconds() is not None:
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)
    assert chores.visits == []


async def test_the_work_of_a_provider_that_was_removed_waits_for_its_return(layer: Layer, chores: Chores) -> None:
    known = dict(layer.catalog.providers)
    layer.catalog.replace(manifest for ref, manifest in known.items() if ref != "storage/filesystem")
    await layer.control.reminders.set(*PLACE, now())
    ends = time.monotonic() + 30
    while (due := await layer.control.reminders.next_due_seconds()) is not None and due < 200:
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)
    assert due is not None
    assert chores.visits == []

    layer.catalog.replace(known.values())
    await layer.control.reminders.set(*PLACE, now())
    await until(lambda: len(chores.visits) == 1)


async def test_a_provider_without_work_is_not_reminded_again(layer: Layer) -> None:
    await layer.control.reminders.set("acme", "cache", "memory", "default", now())
    ends = time.monotonic() + 30
    while await layer.control.reminders.next_due_seconds() is not None:
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


async def test_work_asked_for_before_a_restart_is_done_after_it(tmp_path: Path, chores: Chores) -> None:
    settings = Settings(data_dir=tmp_path / "kept", database_url=None, log_level="error")
    async with running(settings) as first:
        await first.control.tenants.create("acme")
        await first.control.reminders.set(*PLACE, now() + datetime.timedelta(seconds=0.2))
    assert chores.visits == []
    async with running(settings):
        await until(lambda: len(chores.visits) == 1)


async def published(layer: Layer, topic: str) -> list[dict[str, Any]]:
    """Read a topic of acme's bus; wait until something is there."""
    from erp.contracts.models.bus import PullRequest
    from erp.runtime.call import Call
    from erp.runtime.service_calls import service_actor

    answer = await layer.calls.invoke(
        Call(
            action=layer.catalog.action("providers", "bus", "pull"),
            actor=service_actor("test", "acme"),
            provider="log",
            request=PullRequest(topic=topic, group="test", wait_seconds=5, max_events=10),
        )
    )
    return [delivery["event"] for delivery in json.loads(answer.data)["deliveries"]]
