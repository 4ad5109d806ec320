from __future__ import annotations

import asyncio
from typing import Any

import pytest

from erp.control_plane import ControlPlane, moments
from erp.control_plane.outbox import Failure
from erp.runtime.ports import Completion

pytestmark = pytest.mark.anyio


async def publish(control: ControlPlane, make: Any, *events: tuple[str, str | None], tenant: str = "acme") -> None:
    made = [make.event(tenant=tenant, id=id_, key=key) for id_, key in events]
    await control.journal.complete(Completion(audit=make.audit(tenant=tenant), events=made))


async def claimed(control: ControlPlane, **facts: Any) -> dict[str, list[str]]:
    given = {"limit": 100, "per_tenant": 100, "lease_seconds": 60.0, **facts}
    found = await control.outbox.claim(**given)
    return {tenant: [due.event.id for due in events] for tenant, events in found.items()}


async def test_an_event_comes_out_as_it_went_in(control: ControlPlane, make: Any) -> None:
    event = make.event(key="order-1", subject="order-1", traceparent="00-a-b-01", data={"total": "19.90", "n": [1]})
    await control.journal.complete(Completion(audit=make.audit(), events=[event]))
    (due,) = (await control.outbox.claim(limit=1, per_tenant=1, lease_seconds=1))["acme"]
    assert (due.event, due.attempts) == (event, 0)


async def test_a_leased_event_is_nobody_elses_until_the_lease_lapses(open_control_plane: Any, make: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await publish(here, make, ("a", None), ("b", None))
    assert await claimed(here, lease_seconds=0.0) == {"acme": ["a", "b"]}
    assert await claimed(there) == {"acme": ["a", "b"]}
    assert await claimed(here) == {}
    assert 59 < (await here.outbox.next_due_seconds() or 0) <= 60


@pytest.mark.parametrize("lease_seconds", [None, 60.0])
async def test_events_are_not_held_back_by_a_clock_that_was_set_back(
    control: ControlPlane, make: Any, monkeypatch: pytest.MonkeyPatch, lease_seconds: float | None
) -> None:
    await publish(control, make, ("1", "x"), ("2", "x"))
    if lease_seconds is not None:
        await claimed(control, limit=1, lease_seconds=lease_seconds)
    earlier = moments.now() - 3600 * moments.MICROSECONDS
    monkeypatch.setattr(moments, "now", lambda: earlier)

    assert (await control.outbox.next_due_seconds() or 0.0) <= 0
    assert await claimed(control) == {"acme": ["1", "2"]}
    assert await claimed(control) == {}
    assert await control.outbox.next_due_seconds() == 60.0


async def test_a_delivered_event_is_not_delivered_again_and_its_id_not_accepted_again(
    control: ControlPlane, make: Any
) -> None:
    await publish(control, make, ("a", None))
    (due,) = (await control.outbox.claim(limit=1, per_tenant=1, lease_seconds=0))["acme"]
    await control.outbox.settle(delivered=[due.position])
    await publish(control, make, ("a", None), ("b", None))
    await publish(control, make, ("a", None), tenant="globex")
    assert await claimed(control) == {"acme": ["b"], "globex": ["a"]}
    assert await control.outbox.purge() == 0
    assert await control.outbox.purge(older_than_seconds=-1) == 1
    await publish(control, make, ("a", None))
    assert await claimed(control) == {"acme": ["a"]}


async def test_events_wait_behind_a_failed_one_of_their_key_and_only_of_their_key(
    control: ControlPlane, make: Any
) -> None:
    await publish(control, make, ("1", "x"), ("2", "x"), ("3", "y"), ("4", None))
    events = (await control.outbox.claim(limit=9, per_tenant=9, lease_seconds=60))["acme"]
    positions = {due.event.id: due.position for due in events}
    failure = Failure(position=positions["1"], reason="bus down", retry_after_seconds=60.0)
    await control.outbox.settle(failed=[failure], untried=[positions["2"], positions["3"], positions["4"]])
    assert await claimed(control) == {"acme": ["3", "4"]}


async def test_a_dead_event_is_kept_aside_until_it_is_requeued(control: ControlPlane, make: Any) -> None:
    await publish(control, make, ("1", "x"), ("2", "x"))
    first, second = (await control.outbox.claim(limit=9, per_tenant=9, lease_seconds=60))["acme"]
    failure = Failure(position=first.position, reason="refused \0 by the bus", retry_after_seconds=None)
    await control.outbox.settle(failed=[failure], untried=[second.position])
    assert await claimed(control, lease_seconds=0.0) == {"acme": ["2"]}
    (dead,) = await control.outbox.dead("acme")
    assert (dead.event.id, dead.attempts, dead.reason) == ("1", 1, "refused � by the bus")
    assert await control.outbox.dead("globex") == []
    assert await control.outbox.requeue("globex", "1") is False
    assert await control.outbox.requeue("acme", "1") is True
    assert await control.outbox.requeue("acme", "1") is False
    assert await claimed(control) == {"acme": ["1", "2"]}


async def test_tenants_take_turns(control: ControlPlane, make: Any) -> None:
    await publish(control, make, *((str(number), None) for number in range(5)))
    await publish(control, make, ("a", None), tenant="globex")
    assert await claimed(control, limit=2, per_tenant=2) == {"acme": ["0", "1"]}
    assert await claimed(control, limit=2, per_tenant=2) == {"globex": ["a"], "acme": ["2"]}
    assert await claimed(control, without={"acme"}) == {}
    assert await claimed(control) == {"acme": ["3", "4"]}
    assert await control.outbox.next_due_seconds() is not None


async def test_whoever_reads_on_behind_the_last_event_misses_none_of_those_that_processes_write_at_once(
    open_control_plane: Any, control: ControlPlane, make: Any
) -> None:
    processes = [control, await open_control_plane(), await open_control_plane()]
    count = 150

    async def write(number: int, process: ControlPlane) -> None:
        for event in range(count):
            await publish(process, make, (f"{number}-{event}", None))

    seen: list[str] = []
    position = 0
    writing = asyncio.gather(*(write(number, process) for number, process in enumerate(processes)))
    is_last = False
    while not is_last:
        is_last = writing.done()
        found = await control.outbox.after("acme", position, 1000)
        seen += [event.id for _, event in found]
        position = found[-1][0] if found else position
        await asyncio.sleep(0)
    await writing

    assert sorted(seen) == sorted(f"{number}-{event}" for number in range(len(processes)) for event in range(count))
