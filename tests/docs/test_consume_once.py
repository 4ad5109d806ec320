"""The inbox of ``examples/consume_once`` keeps its promise over every bus, whatever is delivered how often."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conformance.live import bus_kafka, bus_nats, bus_rabbitmq

from erp.contracts.models import bus as api
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.context import CallContext
from erp.runtime.loader import load
from erp.runtime.spi import OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

pytestmark = pytest.mark.anyio

SOURCE = Path(__file__).parents[2] / "examples/consume_once/inbox.py"
LIVE = {one.REF: one for one in (bus_kafka, bus_nats, bus_rabbitmq)}
EVENTS, COPIES = 30, 3


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("consume_once", SOURCE)
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


inbox = _module()


class DiedError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _loopback_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "127.0.0.0/8")


@pytest.fixture(params=["bus/log", *(pytest.param(ref, marks=pytest.mark.live) for ref in LIVE)])
async def bus(request: pytest.FixtureRequest, open_context: OpenContext) -> AsyncIterator[Any]:
    config: dict[str, Any] = {}
    if request.param in LIVE:
        address = os.environ.get(LIVE[request.param].VARIABLE)
        if not address:
            pytest.skip(f"needs {LIVE[request.param].VARIABLE}")
        config = dict(LIVE[request.param].config(address))
    made = load(ProviderCatalog.load().provider(*request.param.split("/")))(config, open_context)
    await made.open()
    yield made
    await made.close()


async def _published(bus: Any, ctx: CallContext) -> None:
    """Publish every event several times, as publishers do who were not answered."""
    for _ in range(COPIES):
        for number in range(EVENTS):
            event = api.CloudEvent(id=f"e{number}", source="/shop", type="sold", data={"sku": "A", "quantity": number})
            await bus.publish(api.PublishRequest(topic="sold", event=event), ctx)


async def test_every_event_counts_once_though_it_is_published_and_delivered_more_often(
    bus: Any, call_context: Any, tmp_path: Path
) -> None:
    ctx = call_context(seconds=60)
    await _published(bus, ctx)
    loop = asyncio.get_running_loop()
    deaths = iter([True, False, True, True, False, True])
    kinds = {"pull": api.PullRequest, "ack": api.AckRequest}

    def call(action: str, params: dict[str, Any]) -> dict[str, Any]:
        """What the layer answers; now and then the consumer dies before it can confirm."""
        if action == "ack" and next(deaths, False):
            raise DiedError
        if action == "pull":
            params = {**params, "max_events": 7, "visibility_seconds": 0.5}
        request = msgspec.convert(params, kinds[action])
        answer = asyncio.run_coroutine_threadsafe(getattr(bus, action)(request, ctx), loop).result(60)
        result: dict[str, Any] = msgspec.to_builtins(answer)
        return result

    def consume_all() -> int:
        """Begin again after every death, and go on until nothing is delivered any more."""
        delivered, quiet = 0, 0
        while quiet < 2:
            database = inbox.opened(str(tmp_path / "totals.db"))
            try:
                found = inbox.consume(call, "sold", "totals", inbox.prepared(database), inbox.add_to_total)
            except DiedError:
                found = 1
            finally:
                database.close()
            delivered += found
            quiet = 0 if found else quiet + 1
        return delivered

    assert await asyncio.to_thread(consume_all) >= EVENTS
    with sqlite3.connect(tmp_path / "totals.db") as database:
        assert database.execute("SELECT sku, quantity FROM totals").fetchall() == [("A", sum(range(EVENTS)))]
        assert database.execute("SELECT count(*) FROM erp_inbox").fetchone() == (EVENTS,)
    database.close()
