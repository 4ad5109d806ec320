from __future__ import annotations

import asyncio
import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from erp.control_plane import ControlPlane, moments
from erp.control_plane.budgets import HOLD_SECONDS, StoredBudgets
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio

SCOPES = ("tenant", "actor:key_1", "provider:ai/openai", "action:ai.chat")


async def held(budgets: StoredBudgets, units: Mapping[str, int], *, scopes: tuple[str, ...] = SCOPES) -> Any:
    """What was reserved, or None when it was refused."""
    try:
        return await budgets.reserve("acme", scopes, units)
    except ProviderError as error:
        if error.code != "quota_exhausted":
            raise
        return None


async def used(control: ControlPlane) -> dict[tuple[str, str], int]:
    return {(quota.scope, quota.unit): quota.used for quota in await control.quotas.list("acme")}


async def test_a_thousand_callers_at_once_never_exceed_a_limit(control: ControlPlane) -> None:
    await control.quotas.set("acme", "month", 7_003, scope="provider:ai/openai", unit="tokens")
    found = await asyncio.gather(*(held(control.budgets, {"tokens": 10}) for _ in range(1000)))
    assert sum(item is not None for item in found) == 700
    assert await used(control) == {("provider:ai/openai", "tokens"): 7_000}


@pytest.mark.timeout(120)
async def test_processes_together_never_exceed_a_limit_while_they_settle(open_control_plane: Any) -> None:
    planes = [await open_control_plane() for _ in range(3)]
    await planes[0].tenants.create("acme")
    await planes[0].quotas.set("acme", "month", 7_003, unit="tokens")

    async def call(budgets: StoredBudgets) -> int:
        found = await held(budgets, {"tokens": 10})
        if found is None:
            return 0
        await asyncio.sleep(0)
        budgets.settle(found, {"tokens": 9})
        return 9

    found = await asyncio.gather(*(call(plane.budgets) for plane in planes for _ in range(1000)))
    for plane in planes:
        await plane.budgets.flush()
    assert await used(planes[0]) == {("tenant", "tokens"): sum(found)}
    assert 6_300 <= sum(found) <= 7_003


async def test_what_was_reserved_is_settled_with_what_was_used(control: ControlPlane) -> None:
    await control.quotas.set("acme", "day", 100, unit="tokens")
    first = await held(control.budgets, {"tokens": 80})
    assert await held(control.budgets, {"tokens": 30}) is None
    control.budgets.settle(first, {"tokens": 15})
    await control.budgets.flush()
    assert await used(control) == {("tenant", "tokens"): 15}
    assert await held(control.budgets, {"tokens": 85}) is not None
    assert await held(control.budgets, {"tokens": 1}) is None


async def test_a_call_that_used_more_than_it_reserved_is_counted_in_full(control: ControlPlane) -> None:
    await control.quotas.set("acme", "day", 100, unit="bytes")
    first = await held(control.budgets, {"bytes": 10})
    control.budgets.settle(first, {"bytes": 130})
    await control.budgets.flush()
    assert await used(control) == {("tenant", "bytes"): 130}
    assert await held(control.budgets, {"bytes": 1}) is None


async def test_after_a_call_that_used_more_everything_is_refused_until_the_period_ends(control: ControlPlane) -> None:
    now = moments.of(datetime.datetime.fromisoformat("2026-11-23T10:00:45Z"))
    budgets = StoredBudgets(control.database, control.revisions, clock=lambda: now)
    await control.quotas.set("acme", "minute", 100, unit="tokens")
    running = [await held(budgets, {"tokens": 10}) for _ in range(2)]
    for one in running:
        budgets.settle(one, {"tokens": 70})
    await budgets.flush()
    for _ in range(3):
        with pytest.raises(ProviderError) as refused:
            await budgets.reserve("acme", SCOPES, {"tokens": 1})
        assert (refused.value.code, refused.value.retry_after_seconds) == ("quota_exhausted", 15.0)
    now += 15 * moments.MICROSECONDS
    assert await held(budgets, {"tokens": 100}) is not None
    assert await held(budgets, {"tokens": 1}) is None
    await budgets.close()


async def test_every_limit_of_a_call_has_to_hold_it_and_a_refused_one_uses_none(control: ControlPlane) -> None:
    await control.quotas.set("acme", "day", 100, unit="tokens")
    await control.quotas.set("acme", "day", 2, scope="action:ai.chat", unit="requests")
    await control.quotas.set("acme", "day", 5, scope="actor:key_2", unit="tokens")
    for _ in range(3):
        await held(control.budgets, {"tokens": 10, "requests": 1})
    assert await used(control) == {
        ("action:ai.chat", "requests"): 2,
        ("actor:key_2", "tokens"): 0,
        ("tenant", "tokens"): 20,
    }


async def test_requests_are_used_when_they_are_admitted(control: ControlPlane) -> None:
    await control.quotas.set("acme", "day", 2, scope="actor:key_1", unit="requests")
    control.budgets.settle(await held(control.budgets, {"requests": 1}), {})
    await control.budgets.flush()
    assert await used(control) == {("actor:key_1", "requests"): 1}


async def test_money_is_counted_in_fractions_and_shown_rounded_up(control: ControlPlane) -> None:
    await control.quotas.set("acme", "month", 2, unit="money:USD")
    first = await held(control.budgets, {"money:USD": 1_000_000, "money:EUR": 9_000_000})
    control.budgets.settle(first, {"money:USD": 300})
    await control.budgets.flush()
    assert await used(control) == {("tenant", "money:USD"): 1}
    assert await held(control.budgets, {"money:USD": 1_999_700}) is not None
    assert await held(control.budgets, {"money:USD": 1}) is None


async def test_what_a_killed_process_held_is_given_back(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await here.tenants.create("acme")
    await here.quotas.set("acme", "month", 100, unit="tokens")
    assert await held(here.budgets, {"tokens": 90}) is not None
    assert await held(there.budgets, {"tokens": 20}) is None

    later = moments.now() + int((HOLD_SECONDS + 1) * moments.MICROSECONDS)
    survivor = StoredBudgets(there.database, there.revisions, clock=lambda: later)
    assert await held(survivor, {"tokens": 20}) is not None
    assert await held(survivor, {"tokens": 80}) is not None
    assert await held(survivor, {"tokens": 1}) is None
    await survivor.close()


async def test_a_process_that_was_thought_dead_still_pays_for_what_it_used(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await here.tenants.create("acme")
    await here.quotas.set("acme", "month", 100, unit="tokens")
    slow = await held(here.budgets, {"tokens": 100})
    later = moments.now() + int((HOLD_SECONDS + 1) * moments.MICROSECONDS)
    survivor = StoredBudgets(there.database, there.revisions, clock=lambda: later)
    await held(survivor, {"tokens": 10})
    here.budgets.settle(slow, {"tokens": 40})
    await here.budgets.flush()
    assert await used(here) == {("tenant", "tokens"): 50}
    await survivor.close()


async def test_what_was_reserved_for_a_cancelled_call_is_given_back(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.quotas.set("acme", "day", 100, unit="tokens")
    reserved, may_go_on = asyncio.Event(), asyncio.Event()
    transact = control.database.transact

    async def slow(work: Any) -> Any:
        result = await transact(work)
        reserved.set()
        await may_go_on.wait()
        return result

    monkeypatch.setattr(control.database, "transact", slow)
    task = asyncio.create_task(held(control.budgets, {"tokens": 100}))
    await asyncio.wait_for(reserved.wait(), 30)
    task.cancel()
    await asyncio.sleep(0)
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await control.budgets.flush()
    assert await used(control) == {("tenant", "tokens"): 0}


async def test_without_a_limit_nothing_is_asked(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    assert control.budgets.are_absent("acme") is False
    assert await held(control.budgets, {"tokens": 5}) is None
    control.revisions.trusted_until += 60
    monkeypatch.setattr(control.database, "run", None)
    monkeypatch.setattr(control.database, "transact", None)
    assert control.budgets.are_absent("acme") is True


@pytest.mark.parametrize(
    ("scope", "unit", "pointer"),
    [("provider:ai", "tokens", "/scope"), ("tenant\n", "tokens", "/scope"), ("tenant", "money:usd", "/unit")],
)
async def test_scopes_and_units_that_do_not_exist_are_refused(
    control: ControlPlane, scope: str, unit: str, pointer: str
) -> None:
    with pytest.raises(ProviderError) as refused:
        await control.quotas.set("acme", "day", 1, scope=scope, unit=unit)
    assert (refused.value.code, [error.pointer for error in refused.value.errors]) == ("invalid_argument", [pointer])
    assert await control.quotas.list("acme") == []


PROCESS = """
import asyncio, pathlib, sys
from erp.control_plane import ControlPlane
from erp.errors import ProviderError

async def main():
    control = await ControlPlane.open(pathlib.Path(sys.argv[1]), sys.argv[2] or None, pepper=b"p")
    async def one():
        try:
            return await control.budgets.reserve("acme", ("tenant",), {"tokens": 3})
        except ProviderError as error:
            assert error.code == "quota_exhausted", (error, error.detail)
    print("ready", flush=True)
    sys.stdin.readline()
    found = await asyncio.gather(*(one() for _ in range(1000)))
    for held in found:
        if held is not None:
            control.budgets.settle(held, {"tokens": 3})
    await control.budgets.flush()
    print(sum(held is not None for held in found), flush=True)
    await control.close()

asyncio.run(main())
"""


@pytest.mark.timeout(120)
async def test_two_processes_of_a_thousand_callers_each_use_up_a_limit_exactly(
    control: ControlPlane, control_plane_url: str | None, tmp_path: Path
) -> None:
    await control.quotas.set("acme", "month", 3 * 1234 + 2, unit="tokens")
    command = (sys.executable, "-c", PROCESS, str(tmp_path), control_plane_url or "")
    pipe = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert sum(int(out) for out, _ in answers) == 1234
    assert await used(control) == {("tenant", "tokens"): 3 * 1234}
