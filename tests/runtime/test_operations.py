"""Operations and the death of their process: begun again, and never done twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erp.main import Layer, Settings, running
from erp.runtime.call import Call
from erp.runtime.context import Actor
from erp.runtime.operation import Operation
from erp.runtime.operations import OperationRunner, OperationSettings
from erp.telemetry.ids import continued

pytestmark = pytest.mark.anyio

QUICK = OperationSettings(poll_seconds=0.02, lease_seconds=0.3, drain_seconds=0.05)
DEVELOPER = Actor(id="key_1", tenant="acme", roles=frozenset({"developer"}))


def call(layer: Layer, domain: str, provider: str, action: str, params: str) -> Call:
    return Call(
        action=layer.catalog.action("providers", domain, action),
        actor=DEVELOPER,
        provider=provider,
        body=b'{"params":' + params.encode() + b"}",
        request_id="req_1",
        traceparent=continued(None),
    )


def runner(layer: Layer) -> OperationRunner:
    made = OperationRunner(layer.calls, layer.control.operations, layer.catalog, layer.configuring, QUICK)
    layer.control.operations.on_change = made.nudge
    return made


async def until(condition: Callable[[], Any]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)


async def ended(made: OperationRunner, operation: Operation) -> Operation:
    found = await made.wait("acme", operation.id, 5)
    assert found is not None
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=None, log_level="error")


async def opened(layer: Layer) -> None:
    """Make the tenant, and end the layer's own runner: the tests have theirs."""
    if not await layer.control.tenants.ids():
        await layer.control.tenants.create("acme")
    await layer.operations.stop()
    layer.calls.is_draining = False


class Stalled:
    """Lets every call of one action hang until told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, layer: Layer) -> None:
        self.begun = 0
        self.go = asyncio.Event()
        invoke = layer.calls.invoke

        async def stalled(call: Call) -> Any:
            self.begun += 1
            answer = await invoke(call)
            await self.go.wait()
            return answer

        monkeypatch.setattr(layer.calls, "invoke", stalled)


async def test_an_effect_done_before_its_process_died_is_not_done_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(settings) as layer:
        await opened(layer)
        with monkeypatch.context() as patch:
            stalled = Stalled(patch, layer)
            dying = runner(layer)
            looping = asyncio.create_task(dying.run())
            operation = await dying.accept(call(layer, "cache", "memory", "increment", '{"key":"n"}'))
            await until(lambda: stalled.begun == 1)
            await asyncio.sleep(0.05)
            looping.cancel()  # as if the process were gone: nobody renews, nobody settles
        await asyncio.sleep(0.35)
        heir = runner(layer)
        again = asyncio.create_task(heir.run())

        found = await ended(heir, operation)

        assert (found.state, found.attempts) == ("succeeded", 2)
        assert '"value":1' in (found.outcome.result if found.outcome and found.outcome.result else "")
        assert '"replayed":true' in (found.outcome.result if found.outcome and found.outcome.result else "")
        await heir.stop()
        await again
        stalled.go.set()
        await dying.stop()


async def test_what_was_accepted_before_a_restart_is_done_after_it(settings: Settings) -> None:
    async with running(settings) as layer:
        await opened(layer)
        accepted = await runner(layer).accept(call(layer, "storage", "filesystem", "list", "{}"))

    async with running(settings) as layer:
        found = await layer.operations.wait("acme", accepted.id, 5)

    assert found is not None
    assert (found.state, found.attempts) == ("succeeded", 1)


async def test_what_runs_when_the_layer_stops_waits_for_the_next_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(settings) as layer:
        await opened(layer)
        stalled = Stalled(monkeypatch, layer)
        made = runner(layer)
        looping = asyncio.create_task(made.run())
        operation = await made.accept(call(layer, "cache", "memory", "get", '{"key":"n"}'))
        await until(lambda: stalled.begun == 1)

        await made.stop()
        await looping

        found = await layer.control.operations.find("acme", operation.id)
        assert found is not None
        assert (found.state, found.attempts) == ("queued", 1)


async def test_one_tenant_does_not_take_all_places(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(settings) as layer:
        await opened(layer)
        stalled = Stalled(monkeypatch, layer)
        few = OperationSettings(poll_seconds=0.02, lease_seconds=5, drain_seconds=0.05, per_tenant=2)
        made = OperationRunner(layer.calls, layer.control.operations, layer.catalog, layer.configuring, few)
        looping = asyncio.create_task(made.run())
        await made.accept(call(layer, "cache", "memory", "get", '{"key":"n"}'))
        await until(lambda: stalled.begun == 1)
        for _ in range(4):
            await made.accept(call(layer, "cache", "memory", "get", '{"key":"n"}'))
        await asyncio.sleep(0.2)

        assert stalled.begun == 2
        stalled.go.set()
        await until(lambda: stalled.begun == 5)
        await made.stop()
        await looping


async def test_an_operation_may_take_longer_than_a_call(settings: Settings) -> None:
    async with running(settings) as layer:
        await opened(layer)
        made = runner(layer)
        accepted = await made.accept(call(layer, "cache", "memory", "get", '{"key":"n"}'))
        later = made._call(accepted)
        plan = await layer.calls.plan(later)

        assert layer.calls.context(later, plan).remaining_seconds() > 3000
        assert layer.calls.context(call(layer, "cache", "memory", "get", "{}"), plan).remaining_seconds() < 600
