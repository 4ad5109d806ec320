"""What the log removes by itself, and how consumers hear of other processes."""

from __future__ import annotations

import asyncio
import datetime
import time
from dataclasses import replace

import pytest
from tests.conftest import KeptReminders, MakeCallContext

from erp.contracts.models.bus import CloudEvent, PublishRequest, PullRequest
from erp.providers.bus.log.provider import EventLog
from erp.runtime.spi import CallContext, OpenContext, Worker

pytestmark = pytest.mark.anyio

WEEK = 604_800


@pytest.fixture
def context(call_context: MakeCallContext) -> CallContext:
    return call_context(seconds=20.0)


async def publish(log: EventLog, context: CallContext, name: str) -> None:
    await log.publish(PublishRequest(topic="t", event=CloudEvent(id=name, source="/t", type="t")), context)


async def pull(log: EventLog, context: CallContext, *, wait_seconds: float = 0) -> list[str]:
    found = await log.pull(PullRequest(topic="t", group="g", wait_seconds=wait_seconds), context)
    return [delivery.event.id for delivery in found.deliveries]


async def test_the_first_event_asks_for_the_day_on_which_it_goes(
    open_context: OpenContext, context: CallContext, reminders: KeptReminders
) -> None:
    log = EventLog({}, open_context)
    await log.open()
    for name in ("e1", "e2", "e3"):
        await publish(log, context, name)
    assert isinstance(log, Worker)
    (due,) = reminders.due
    assert abs((due - datetime.datetime.now(datetime.UTC)).total_seconds() - WEEK) < 5
    await log.close()


async def test_work_removes_what_is_old_enough_and_nothing_else(
    open_context: OpenContext, context: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog({"retention_seconds": 100}, open_context)
    await log.open()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    await publish(log, context, "old")
    monkeypatch.setattr(time, "time", lambda: now + 60)
    await publish(log, context, "new")
    due = await log.work(context)
    assert due is not None
    assert abs(due.timestamp() - (now + 101)) < 0.01
    monkeypatch.setattr(time, "time", lambda: now + 101)
    due = await log.work(context)
    assert due is not None
    assert abs(due.timestamp() - (now + 161)) < 0.01
    assert await pull(log, context) == ["new"]
    monkeypatch.setattr(time, "time", lambda: now + 161)
    assert await log.work(context) is None
    await log.close()


async def test_a_log_that_was_emptied_asks_again_when_something_comes(
    open_context: OpenContext, context: CallContext, reminders: KeptReminders
) -> None:
    log = EventLog({}, open_context)
    await log.open()
    assert await log.work(context) is None
    await publish(log, context, "e1")
    assert len(reminders.due) == 1
    await log.close()


async def test_a_waiting_consumer_hears_what_another_process_publishes(
    open_context: OpenContext, context: CallContext
) -> None:
    here, elsewhere = EventLog({}, open_context), EventLog({}, replace(open_context))
    await here.open()
    await elsewhere.open()
    waiting = asyncio.ensure_future(pull(here, context, wait_seconds=15))
    await asyncio.sleep(0.05)
    await publish(elsewhere, context, "e1")
    async with asyncio.timeout(30):
        assert await waiting == ["e1"]
    await elsewhere.close()
    await here.close()


async def test_nobody_looks_at_the_file_when_nobody_waits(open_context: OpenContext, context: CallContext) -> None:
    log = EventLog({}, open_context)
    await log.open()
    assert await pull(log, context, wait_seconds=0.05) == []
    await asyncio.sleep(0.25)
    assert log._arrivals._watcher is None
    await log.close()
