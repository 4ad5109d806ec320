from __future__ import annotations

import datetime

import pytest

from erp.control_plane import ControlPlane, moments
from erp.control_plane.reminders import StoredReminders

pytestmark = pytest.mark.anyio

PLACE = ("acme", "storage", "filesystem", "default")
START = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> int:
        return moments.of(self.time)

    def forward(self, seconds: float) -> None:
        self.time += datetime.timedelta(seconds=seconds)


def at(seconds: float) -> datetime.datetime:
    return START + datetime.timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reminders(control: ControlPlane, clock: Clock) -> StoredReminders:
    return StoredReminders(control.database, clock=clock)


async def claimed(reminders: StoredReminders) -> list[tuple[str, str, str, str]]:
    found = await reminders.claim(limit=10, lease_seconds=90)
    return [(one.tenant, one.domain, one.provider, one.connection) for one in found]


async def test_nothing_is_due_where_nothing_was_asked_for(reminders: StoredReminders) -> None:
    assert await reminders.next_due_seconds() is None
    assert await claimed(reminders) == []


async def test_a_reminder_is_due_at_its_time_and_not_before(reminders: StoredReminders, clock: Clock) -> None:
    await reminders.set(*PLACE, at(10))
    assert await reminders.next_due_seconds() == 10.0
    assert await claimed(reminders) == []
    clock.forward(10)
    assert await reminders.next_due_seconds() == 0.0
    assert await claimed(reminders) == [PLACE]


async def test_the_earliest_time_asked_for_stands(reminders: StoredReminders) -> None:
    for seconds in (30, 10, 20):
        await reminders.set(*PLACE, at(seconds))
    assert await reminders.next_due_seconds() == 10.0


async def test_who_has_taken_work_on_has_it_alone_until_the_lease_ends(
    reminders: StoredReminders, clock: Clock
) -> None:
    await reminders.set(*PLACE, at(0))
    assert await claimed(reminders) == [PLACE]
    clock.forward(89)
    assert await claimed(reminders) == []
    clock.forward(1)  # whoever had it has died
    assert await claimed(reminders) == [PLACE]


async def test_settled_work_comes_again_at_the_time_it_named_or_never(reminders: StoredReminders, clock: Clock) -> None:
    await reminders.set(*PLACE, at(0))
    (first,) = await reminders.claim(limit=10, lease_seconds=90)
    await reminders.settle(first, at(5))
    assert await reminders.next_due_seconds() == 5.0
    clock.forward(5)
    (second,) = await reminders.claim(limit=10, lease_seconds=90)
    await reminders.settle(second, None)
    assert await reminders.next_due_seconds() is None


@pytest.mark.parametrize("asked", [5, 300])
async def test_a_time_asked_for_during_the_work_is_not_lost(
    reminders: StoredReminders, clock: Clock, asked: int
) -> None:
    await reminders.set(*PLACE, at(0))
    (taken,) = await reminders.claim(limit=10, lease_seconds=90)
    await reminders.set(*PLACE, at(asked))
    await reminders.settle(taken, None)
    assert await reminders.next_due_seconds() == asked
    clock.forward(asked)
    assert await claimed(reminders) == [PLACE]


async def test_a_time_asked_for_during_work_that_died_waits_for_its_lease(
    reminders: StoredReminders, clock: Clock
) -> None:
    await reminders.set(*PLACE, at(0))
    await claimed(reminders)
    await reminders.set(*PLACE, at(5))
    clock.forward(6)
    assert await claimed(reminders) == []
    clock.forward(84)
    assert await claimed(reminders) == [PLACE]


async def test_who_lost_the_lease_changes_nothing(reminders: StoredReminders, clock: Clock) -> None:
    await reminders.set(*PLACE, at(0))
    (lost,) = await reminders.claim(limit=10, lease_seconds=90)
    clock.forward(90)
    (held,) = await reminders.claim(limit=10, lease_seconds=90)
    await reminders.settle(lost, None)
    await reminders.settle(held, at(100))
    assert await reminders.next_due_seconds() == 10.0


async def test_reminders_go_with_their_tenant(reminders: StoredReminders, control: ControlPlane) -> None:
    await reminders.set(*PLACE, at(0))
    await control.tenants.delete("acme")
    assert await reminders.next_due_seconds() is None


async def test_at_most_as_many_are_taken_on_as_asked_for_earliest_first(
    reminders: StoredReminders, clock: Clock
) -> None:
    for number in range(5):
        await reminders.set("acme", "storage", "filesystem", f"c{number}", at(5 - number))
    clock.forward(10)
    found = await reminders.claim(limit=2, lease_seconds=90)
    assert [one.connection for one in found] == ["c4", "c3"]
