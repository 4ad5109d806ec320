from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from erp.control_plane import ControlPlane
from erp.control_plane.relay import OutboxRelay, RelaySettings
from erp.errors import ProviderError
from erp.runtime.ports import Completion, OutboxEvent

pytestmark = pytest.mark.anyio

QUICK = RelaySettings(poll_seconds=0.02, first_backoff_seconds=0.01, longest_backoff_seconds=0.02)


@asynccontextmanager
async def relaying(
    control: ControlPlane, deliver: Callable[[OutboxEvent], Awaitable[None]], settings: RelaySettings = QUICK
) -> AsyncIterator[OutboxRelay]:
    relay = OutboxRelay(control.outbox, deliver, settings)
    control.journal.on_events = relay.nudge
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        await relay.stop()
        await task


async def publish(control: ControlPlane, make: Any, *events: tuple[str, str | None], tenant: str = "acme") -> None:
    made = [make.event(tenant=tenant, id=id_, key=key) for id_, key in events]
    await control.journal.complete(Completion(audit=make.audit(tenant=tenant), events=made))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def until_empty(control: ControlPlane) -> None:
    async with asyncio.timeout(30):
        while await control.outbox.next_due_seconds() is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_events_are_delivered_once_and_in_the_order_of_their_key(control: ControlPlane, make: Any) -> None:
    delivered: list[str] = []

    async def deliver(event: OutboxEvent) -> None:
        await asyncio.sleep(0)
        delivered.append(event.id)

    async with relaying(control, deliver):
        for number in range(10):
            await publish(control, make, (f"x{number}", "x"), (f"y{number}", "y"), (f"z{number}", None))
        await until_empty(control)
    assert sorted(delivered) == sorted(f"{key}{number}" for key in "xyz" for number in range(10))
    for key in "xy":
        assert [id_ for id_ in delivered if id_[0] == key] == [f"{key}{number}" for number in range(10)]


async def test_a_nudge_wakes_the_relay_at_once(control: ControlPlane, make: Any) -> None:
    delivered: list[str] = []

    async def deliver(event: OutboxEvent) -> None:
        delivered.append(event.id)

    async with relaying(control, deliver, RelaySettings(poll_seconds=60.0)):
        await asyncio.sleep(0.05)
        await publish(control, make, ("a", None))
        await until(lambda: delivered == ["a"])


async def test_a_failed_delivery_is_repeated_and_holds_its_key_back(control: ControlPlane, make: Any) -> None:
    attempts: list[str] = []

    async def deliver(event: OutboxEvent) -> None:
        attempts.append(event.id)
        if attempts.count("1") < 3:
            raise ProviderError("unavailable", "The bus is down.")

    async with relaying(control, deliver):
        await publish(control, make, ("1", "x"), ("2", "x"))
        await until_empty(control)
    assert attempts == ["1", "1", "1", "2"]


async def test_an_event_that_always_fails_dies_and_the_rest_goes_on(control: ControlPlane, make: Any) -> None:
    delivered: list[str] = []

    async def deliver(event: OutboxEvent) -> None:
        if event.id == "1":
            raise ValueError("poison")
        delivered.append(event.id)

    settings = RelaySettings(poll_seconds=0.02, first_backoff_seconds=0.001, max_attempts=3)
    async with relaying(control, deliver, settings):
        await publish(control, make, ("1", "x"), ("2", "x"))
        await until_empty(control)
    (dead,) = await control.outbox.dead("acme")
    assert (dead.event.id, dead.attempts, dead.reason) == ("1", 3, "ValueError: poison")
    assert delivered == ["2"]


async def test_a_slow_tenant_delays_no_other(control: ControlPlane, make: Any) -> None:
    release, delivered = asyncio.Event(), []

    async def deliver(event: OutboxEvent) -> None:
        if event.tenant == "acme":
            await release.wait()
        delivered.append((event.tenant, event.id))

    async with relaying(control, deliver):
        await publish(control, make, ("1", None))
        await publish(control, make, ("2", None), tenant="globex")
        await publish(control, make, ("3", None), tenant="globex")
        await until(lambda: len(delivered) == 2)
        assert sorted(delivered) == [("globex", "2"), ("globex", "3")]
        release.set()
        await until(lambda: ("acme", "1") in delivered)


async def test_a_delivery_that_hangs_is_ended_and_tried_again(control: ControlPlane, make: Any) -> None:
    attempts: list[str] = []

    async def deliver(event: OutboxEvent) -> None:
        attempts.append(event.id)
        if len(attempts) == 1:
            await asyncio.sleep(60)

    settings = RelaySettings(poll_seconds=0.02, first_backoff_seconds=0.01, deliver_seconds=0.05)
    async with relaying(control, deliver, settings):
        await publish(control, make, ("1", None))
        await until_empty(control)
    assert attempts == ["1", "1"]


async def test_stopping_lets_a_delivery_end_and_leaves_the_rest_due(control: ControlPlane, make: Any) -> None:
    started, release, delivered = asyncio.Event(), asyncio.Event(), []

    async def deliver(event: OutboxEvent) -> None:
        started.set()
        await release.wait()
        delivered.append(event.id)

    relay = OutboxRelay(control.outbox, deliver, QUICK)
    await publish(control, make, ("1", "x"), ("2", "x"))
    task = asyncio.create_task(relay.run())
    await started.wait()
    stopping = asyncio.create_task(relay.stop())
    await asyncio.sleep(0.01)
    release.set()
    await stopping
    await task
    assert delivered == ["1"]
    found = await control.outbox.claim(limit=9, per_tenant=9, lease_seconds=1)
    assert [due.event.id for due in found["acme"]] == ["2"]


async def test_the_relay_goes_on_after_the_database_was_away(
    control: ControlPlane, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered: list[str] = []

    async def deliver(event: OutboxEvent) -> None:
        delivered.append(event.id)

    async def away(*_: object, **__: object) -> None:
        raise ProviderError("unavailable", "The control plane's database does not answer.")

    await publish(control, make, ("1", None))
    with monkeypatch.context() as patch:
        patch.setattr(control.outbox, "claim", away)
        async with relaying(control, deliver):
            await asyncio.sleep(0.06)
            assert delivered == []
            patch.undo()
            await until(lambda: delivered == ["1"])
