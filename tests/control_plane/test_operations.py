from __future__ import annotations

import asyncio

import pytest
from tests.control_plane.test_reminders import Clock

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import ControlPlane, operations
from erp.control_plane.operations import StoredOperations
from erp.errors import ProviderError
from erp.runtime.context import Actor
from erp.runtime.operation import Order, Outcome, Progress

pytestmark = pytest.mark.anyio

DONE = Outcome(state="succeeded", result='{"data":1}')


def order(key: str | None = None, tenant: str = "acme", actor: str = "key_1") -> Order:
    return Order(
        area="providers",
        group="cache",
        name="set",
        provider="memory",
        connection="default",
        actor=Actor(id=actor, tenant=tenant, roles=frozenset({"developer"})),
        body="{}",
        request_id="req_1",
        traceparent="",
        idempotency_key=key,
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stored(control: ControlPlane, clock: Clock) -> StoredOperations:
    return StoredOperations(control.database, clock=clock)


async def claimed(stored: StoredOperations, owner: str = "one") -> list[str]:
    return [one.id for one in await stored.claim(owner, limit=10, lease_seconds=30)]


async def state(stored: StoredOperations, id_: str, tenant: str = "acme") -> str | None:
    found = await stored.find(tenant, id_)
    return None if found is None else found.state


async def test_what_was_accepted_is_taken_on_once_and_keeps_all_it_had(stored: StoredOperations) -> None:
    accepted = await stored.accept("op_1", order(), b"f")
    [taken] = await stored.claim("one", limit=10, lease_seconds=30)

    assert (accepted.state, taken.state, taken.attempts) == ("queued", "running", 1)
    assert taken.order == order()
    assert await claimed(stored, "two") == []


async def test_an_operation_whose_process_died_is_taken_on_again(stored: StoredOperations, clock: Clock) -> None:
    await stored.accept("op_1", order(), b"f")
    await claimed(stored, "one")
    clock.forward(31)

    [again] = await stored.claim("two", limit=10, lease_seconds=30)

    assert (again.id, again.attempts) == ("op_1", 2)
    assert not await stored.settle("one", "op_1", DONE), "it is not its operation any more"
    assert await state(stored, "op_1") == "running"
    assert await stored.settle("two", "op_1", DONE)
    assert await state(stored, "op_1") == "succeeded"


async def test_a_renewed_lease_holds(stored: StoredOperations, clock: Clock) -> None:
    await stored.accept("op_1", order(), b"f")
    await claimed(stored, "one")
    clock.forward(20)
    assert await stored.renew("one", ["op_1"], 30) == []
    clock.forward(20)

    assert await claimed(stored, "two") == []
    assert await stored.next_due_seconds() == 10.0


async def test_what_was_given_back_waits_again(stored: StoredOperations) -> None:
    await stored.accept("op_1", order(), b"f")
    await claimed(stored, "one")

    assert await stored.settle("one", "op_1", None)

    assert await claimed(stored, "two") == ["op_1"]


async def test_a_waiting_operation_is_cancelled_at_once_and_a_running_one_is_told(stored: StoredOperations) -> None:
    await stored.accept("op_1", order(), b"f")
    await stored.accept("op_2", order(), b"f")
    [first] = await stored.claim("one", limit=1, lease_seconds=30)
    waiting = "op_2" if first.id == "op_1" else "op_1"

    for id_ in ("op_1", "op_2"):
        await stored.cancel("acme", id_)

    assert await state(stored, waiting) == "cancelled"
    assert await state(stored, first.id) == "running"
    assert await stored.renew("one", [first.id], 30) == [first.id]


async def test_another_tenant_sees_and_cancels_nothing(stored: StoredOperations) -> None:
    await stored.accept("op_1", order(), b"f")

    assert await stored.find("globex", "op_1") is None
    assert await stored.cancel("globex", "op_1") is None
    assert (await stored.page("globex", actor=None, state=None, before=None, limit=10))[0] == []
    assert await state(stored, "op_1") == "queued"


async def test_a_key_names_one_operation_of_its_actor(stored: StoredOperations) -> None:
    ids = await asyncio.gather(*(stored.accept(f"op_{number}", order("k"), b"f") for number in range(5)))
    other = await stored.accept("op_other", order("k", actor="key_2"), b"g")

    assert len({one.id for one in ids}) == 1
    assert other.id == "op_other"
    with pytest.raises(ProviderError) as refused:
        await stored.accept("op_9", order("k"), b"another request")
    assert refused.value.status == 422


async def test_too_many_that_wait_are_refused_and_another_tenant_is_not(
    stored: StoredOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MAX_WAITING", 2)
    for number in range(2):
        await stored.accept(f"op_{number}", order(), b"f")

    with pytest.raises(ProviderError) as refused:
        await stored.accept("op_2", order(), b"f")

    assert refused.value.code is ErrorCode.RATE_LIMITED
    await stored.accept("op_3", order(tenant="globex"), b"f")
    await stored.cancel("acme", "op_0")
    await stored.accept("op_4", order(), b"f")


async def test_tenants_that_have_enough_are_passed_over(stored: StoredOperations) -> None:
    await stored.accept("op_1", order(), b"f")
    await stored.accept("op_2", order(tenant="globex"), b"f")

    found = await stored.claim("one", limit=10, lease_seconds=30, without=["acme"])

    assert [one.id for one in found] == ["op_2"]


async def test_progress_is_kept_by_the_owner_alone(stored: StoredOperations) -> None:
    await stored.accept("op_1", order(), b"f")
    await claimed(stored, "one")
    await stored.report("one", "op_1", Progress(0.5, "half"))
    await stored.report("two", "op_1", Progress(0.9))

    found = await stored.find("acme", "op_1")

    assert found is not None
    assert found.progress == Progress(0.5, "half")


async def test_operations_that_ended_long_ago_are_forgotten(stored: StoredOperations, clock: Clock) -> None:
    for id_ in ("op_1", "op_2"):
        await stored.accept(id_, order(), b"f")
    await stored.cancel("acme", "op_1")
    clock.forward(3600)

    assert await stored.purge(older_than_seconds=1800) == 1

    assert [await state(stored, id_) for id_ in ("op_1", "op_2")] == [None, "queued"]
