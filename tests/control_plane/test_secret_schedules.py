"""Plans by which secrets are rotated: due at their times, taken on by one process, kept with what went wrong."""

from __future__ import annotations

import asyncio

import pytest

from erp.control_plane import ControlPlane, moments
from erp.control_plane.secret_schedules import DAY, SchedulePlan, SecretSchedule, SecretSchedules
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio

PLAN = SchedulePlan(path="crm", every_days=30, value={"from": "random"})


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.time = moments.now()

    def __call__(self) -> int:
        return self.time

    def forward(self, days: float) -> None:
        self.time += int(days * DAY)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def schedules(control: ControlPlane, clock: Clock) -> SecretSchedules:
    return SecretSchedules(control.database, clock=clock)


async def planned(schedules: SecretSchedules, plan: SchedulePlan = PLAN) -> SecretSchedule:
    return await schedules.put("acme", "crm-key", plan, by="key_1")


async def claimed(schedules: SecretSchedules) -> list[SecretSchedule]:
    return list(await schedules.claim(limit=10, lease_seconds=90))


async def test_it_is_due_after_its_days_and_again_after_as_many(schedules: SecretSchedules, clock: Clock) -> None:
    made = await planned(schedules)
    assert (made.due_at, made.failures, made.rotated_at) == (clock.time + 30 * DAY, 0, None)
    clock.forward(29.9)
    assert await claimed(schedules) == []
    clock.forward(0.2)
    [one] = await claimed(schedules)
    assert await schedules.succeeded(one, "secret://tenant/crm#2") is True

    after = await schedules.get("acme", "crm-key")
    assert (after.reference, after.rotated_at, after.due_at) == (
        "secret://tenant/crm#2",
        clock.time,
        clock.time + 30 * DAY,
    )
    assert await claimed(schedules) == []


async def test_of_many_processes_one_takes_it_on_and_another_when_that_has_died(
    schedules: SecretSchedules, clock: Clock
) -> None:
    await planned(schedules)
    clock.forward(31)
    taken = await asyncio.gather(*(claimed(schedules) for _ in range(8)))
    assert sum(len(one) for one in taken) == 1
    clock.time += 89 * moments.MICROSECONDS
    assert await claimed(schedules) == []
    clock.time += moments.MICROSECONDS
    [again] = await claimed(schedules)
    [late] = next(one for one in taken if one)
    assert await schedules.succeeded(late, "secret://tenant/crm#2") is False
    assert await schedules.succeeded(again, "secret://tenant/crm#3") is True
    assert (await schedules.get("acme", "crm-key")).reference == "secret://tenant/crm#3"


async def test_a_failure_is_kept_tried_again_and_forgotten_when_it_goes_well(
    schedules: SecretSchedules, clock: Clock
) -> None:
    await planned(schedules)
    clock.forward(30)
    due_at = clock.time
    for number in (1, 2):
        [one] = await claimed(schedules)
        await schedules.failed(one, "the server is sealed", again_seconds=60)
        found = await schedules.get("acme", "crm-key")
        assert (found.failures, found.failure, found.due_at) == (number, "the server is sealed", due_at)
        assert await claimed(schedules) == []
        clock.time += 60 * moments.MICROSECONDS
    [one] = await claimed(schedules)
    await schedules.succeeded(one, "secret://tenant/crm#2")
    found = await schedules.get("acme", "crm-key")
    assert (found.failures, found.failure, found.failed_at) == (0, None, None)


async def test_now_is_now_but_never_while_another_process_is_at_it(schedules: SecretSchedules, clock: Clock) -> None:
    await planned(schedules)
    assert (await schedules.run_now("acme", "crm-key")).due_at == clock.time
    [one] = await claimed(schedules)
    await schedules.run_now("acme", "crm-key")
    assert await claimed(schedules) == []
    assert await schedules.succeeded(one, "secret://tenant/crm#2") is True


async def test_a_plan_that_is_changed_while_it_runs_is_not_overwritten(
    schedules: SecretSchedules, clock: Clock
) -> None:
    await planned(schedules)
    await schedules.run_now("acme", "crm-key")
    [one] = await claimed(schedules)
    changed = await planned(schedules, SchedulePlan(path="other", every_days=7, value={"from": "random"}))
    assert await schedules.succeeded(one, "secret://tenant/crm#2") is False
    assert await schedules.get("acme", "crm-key") == changed
    assert changed.due_at == clock.time + 7 * DAY


async def test_what_is_not_enabled_never_runs(schedules: SecretSchedules, clock: Clock) -> None:
    await planned(schedules, SchedulePlan(path="crm", every_days=1, value={"from": "random"}, enabled=False))
    clock.forward(10_000)
    assert await claimed(schedules) == []
    with pytest.raises(ProviderError) as refused:
        await schedules.run_now("acme", "crm-key")
    assert refused.value.code == "failed_precondition"


async def test_tenants_have_their_own_and_revisions_guard_them(schedules: SecretSchedules) -> None:
    made = await planned(schedules)
    assert await schedules.list("globex") == ([], None)
    for call in (
        schedules.get("globex", "crm-key"),
        schedules.delete("globex", "crm-key"),
        schedules.run_now("globex", "crm-key"),
        schedules.put("nobody", "crm-key", PLAN, by="key_1"),
    ):
        with pytest.raises(ProviderError) as refused:
            await call
        assert refused.value.code == "not_found"
    for revision in ("", "another"):
        with pytest.raises(ProviderError) as refused:
            await schedules.put("acme", "crm-key", PLAN, by="key_1", revision=revision)
        assert refused.value.code == "conflict"
    assert await schedules.list("acme") == ([made], None)
    await schedules.delete("acme", "crm-key", revision=made.revision)
    assert await schedules.list("acme") == ([], None)


async def test_they_come_in_pages(schedules: SecretSchedules) -> None:
    for name in ("c", "a", "b"):
        await schedules.put("acme", name, PLAN, by="key_1")
    first, cursor = await schedules.list("acme", limit=2)
    second, end = await schedules.list("acme", limit=2, cursor=cursor)
    assert ([one.name for one in first + second], end) == (["a", "b", "c"], None)


async def test_a_tenant_has_at_most_so_many(schedules: SecretSchedules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erp.control_plane.secret_schedules.MOST", 1)
    await planned(schedules)
    with pytest.raises(ProviderError) as refused:
        await schedules.put("acme", "second", PLAN, by="key_1")
    assert refused.value.code == "failed_precondition"
    await planned(schedules)
