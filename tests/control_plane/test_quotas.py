from __future__ import annotations

import asyncio
import datetime
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import ControlPlane, moments
from erp.control_plane.periods import bounds
from erp.control_plane.quotas import StoredQuotas
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio


def at(text: str) -> int:
    return moments.of(datetime.datetime.fromisoformat(text))


async def reserved(quotas: StoredQuotas, count: int) -> int:
    """How many of ``count`` reservations made at the same time succeeded."""
    results = await asyncio.gather(*(quotas.reserve("acme") for _ in range(count)), return_exceptions=True)
    refused = [result for result in results if result is not None]
    assert all(isinstance(error, ProviderError) and error.code == "quota_exhausted" for error in refused)
    return count - len(refused)


async def test_a_limit_is_met_exactly(control: ControlPlane) -> None:
    quota = await control.quotas.set("acme", "month", 10)
    assert (quota.tenant, quota.period, quota.limit, quota.used) == ("acme", "month", 10, 0)
    assert await reserved(control.quotas, 25) == 10
    assert [quota.used for quota in await control.quotas.list("acme")] == [10]
    await control.quotas.reserve("globex")


async def test_processes_together_use_up_a_limit_exactly(open_control_plane: Any) -> None:
    planes = [await open_control_plane() for _ in range(3)]
    await planes[0].tenants.create("acme")
    await planes[0].quotas.set("acme", "month", 1003)
    await planes[0].quotas.set("acme", "day", 1500)
    passed = await asyncio.gather(*(reserved(plane.quotas, 1000) for plane in planes))
    assert sum(passed) == 1003
    for plane in planes:
        assert {quota.period: quota.used for quota in await plane.quotas.list("acme")} == {"day": 1003, "month": 1003}


async def test_nothing_is_held_beyond_the_calls_that_were_made(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await here.tenants.create("acme")
    await here.quotas.set("acme", "month", 1000)
    await here.quotas.reserve("acme")
    assert [quota.used for quota in await there.quotas.list("acme")] == [1]
    assert await reserved(there.quotas, 1000) == 999


async def test_many_tenants_are_counted_apart_in_one_transaction(control: ControlPlane) -> None:
    await control.quotas.set("acme", "day", 3)
    await control.quotas.set("globex", "day", 5)
    await control.quotas.set("globex", "month", 4)
    outcomes = await asyncio.gather(
        *(control.quotas.reserve(tenant) for tenant in ("acme", "globex", "initech") * 10), return_exceptions=True
    )
    admitted = [
        tenant for tenant, outcome in zip(("acme", "globex", "initech") * 10, outcomes, strict=True) if not outcome
    ]
    assert {tenant: admitted.count(tenant) for tenant in ("acme", "globex", "initech")} == {
        "acme": 3,
        "globex": 4,
        "initech": 10,
    }


async def test_a_caller_that_left_before_it_was_counted_uses_nothing(control: ControlPlane) -> None:
    await control.quotas.set("acme", "day", 10)
    first = asyncio.create_task(control.quotas.reserve("acme"))
    for _ in range(3):  # until the transaction of the first has begun
        await asyncio.sleep(0)
    second = asyncio.create_task(control.quotas.reserve("acme"))
    await asyncio.sleep(0)
    second.cancel()
    await first
    await control.quotas.close()
    assert [quota.used for quota in await control.quotas.list("acme")] == [1]


async def test_a_database_that_does_not_answer_admits_nobody(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.quotas.set("acme", "day", 10)

    async def silent(work: Any) -> Any:
        raise ProviderError(ErrorCode.UNAVAILABLE, "Silent.")

    with monkeypatch.context() as silenced:
        silenced.setattr(control.database, "count", silent)
        with pytest.raises(ProviderError) as refused:
            await control.quotas.reserve("acme")
    assert refused.value.code == "unavailable"
    assert await reserved(control.quotas, 12) == 10


async def test_a_refusal_says_when_the_period_ends_and_the_next_one_begins_anew(control: ControlPlane) -> None:
    now = at("2026-11-23T10:00:45Z")
    quotas = StoredQuotas(control.database, control.revisions, clock=lambda: now)
    await control.quotas.set("acme", "minute", 2)
    assert await reserved(quotas, 3) == 2
    with pytest.raises(ProviderError) as refused:
        await quotas.reserve("acme")
    assert (refused.value.code, refused.value.retry_after_seconds) == ("quota_exhausted", 15.0)
    assert "2 units per minute" in refused.value.message
    now = at("2026-11-23T10:01:00Z")
    assert await reserved(quotas, 3) == 2


async def test_a_clock_that_is_set_back_does_not_open_the_period_before_again(control: ControlPlane) -> None:
    now = at("2026-11-23T10:00:45Z")
    quotas = StoredQuotas(control.database, control.revisions, clock=lambda: now)
    await control.quotas.set("acme", "minute", 2)
    assert await reserved(quotas, 3) == 2
    now = at("2026-11-23T10:01:30Z")
    assert await reserved(quotas, 1) == 1
    now = at("2026-11-23T10:00:50Z")
    assert await reserved(quotas, 1) == 0
    now = at("2026-11-23T10:01:40Z")
    assert await reserved(quotas, 2) == 1


async def test_all_periods_have_to_allow_a_call_and_a_refused_one_uses_none(control: ControlPlane) -> None:
    await control.quotas.set("acme", "month", 3)
    await control.quotas.set("acme", "day", 100)
    assert await reserved(control.quotas, 5) == 3
    assert {quota.period: quota.used for quota in await control.quotas.list("acme")} == {"day": 3, "month": 3}


async def test_more_units_than_are_left_are_refused_but_fewer_pass(control: ControlPlane) -> None:
    await control.quotas.set("acme", "day", 10)
    await control.quotas.reserve("acme", 8)
    with pytest.raises(ProviderError):
        await control.quotas.reserve("acme", 3)
    await control.quotas.reserve("acme", 2)
    assert await reserved(control.quotas, 1) == 0


async def test_a_limit_of_nothing_refuses_everything(control: ControlPlane) -> None:
    await control.quotas.set("acme", "hour", 0)
    assert await reserved(control.quotas, 2) == 0


async def test_a_removed_or_raised_limit_counts_at_once(control: ControlPlane) -> None:
    await control.quotas.set("acme", "day", 1)
    assert await reserved(control.quotas, 2) == 1
    await control.quotas.set("acme", "day", 2)
    assert await reserved(control.quotas, 2) == 1
    assert await control.quotas.delete("acme", "day") is True
    assert await reserved(control.quotas, 5) == 5
    assert await control.quotas.delete("acme", "day") is False


async def test_a_limit_set_by_another_process_counts_within_a_second(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await there.tenants.create("acme")
    await here.quotas.reserve("acme")
    await there.quotas.set("acme", "day", 0)
    deadline = time.monotonic() + 30
    while await reserved(here.quotas, 1):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_limits_that_make_no_sense_are_refused(control: ControlPlane) -> None:
    for tenant, period, limit, code in (
        ("acme", "year", 1, "invalid_argument"),
        ("acme", "day", -1, "invalid_argument"),
        ("nobody", "day", 1, "not_found"),
    ):
        with pytest.raises(ProviderError) as refused:
            await control.quotas.set(tenant, period, limit)
        assert refused.value.code == code
    assert await control.quotas.list("acme") == []


async def test_without_a_limit_a_reservation_asks_no_database(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.quotas.reserve("acme")
    control.revisions.trusted_until = time.monotonic() + 60
    monkeypatch.setattr(control.database, "run", None)
    monkeypatch.setattr(control.database, "transact", None)
    monkeypatch.setattr(control.database, "count", None)
    await control.quotas.reserve("acme")


PROCESS = """
import asyncio, os, pathlib, sys
from erp.control_plane import ControlPlane
from erp.errors import ProviderError

async def main():
    control = await ControlPlane.open(pathlib.Path(sys.argv[1]), sys.argv[2] or None, pepper=b"p")
    async def call():
        while True:
            try:
                await control.quotas.reserve("acme")
            except ProviderError as error:
                assert error.code == "quota_exhausted", (error, error.detail)
                return
            os.write(1, b".")
    os.write(1, b"ready\\n")
    sys.stdin.readline()
    await asyncio.gather(*(call() for _ in range(int(sys.argv[3]))))
    await control.close()

asyncio.run(main())
"""


class Caller:
    """A process that makes calls until it is refused, and writes a dot for each that was admitted."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.admitted = 0

    @classmethod
    async def start(cls, folder: Path, url: str | None, callers: int) -> Caller:
        command = (sys.executable, "-c", PROCESS, str(folder), url or "", str(callers))
        pipe = asyncio.subprocess.PIPE
        made = cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
        assert made.process.stdout is not None
        assert await made.process.stdout.readline() == b"ready\n"
        return made

    def go(self) -> Caller:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        return self

    async def until(self, admitted: int) -> None:
        """Read its dots until there are as many, or all."""
        assert self.process.stdout is not None
        while self.admitted < admitted and (dots := await self.process.stdout.read(65536)):
            self.admitted += len(dots)

    async def ended(self) -> int:
        """Wait for its end; return how many calls it was allowed."""
        await self.until(sys.maxsize)
        await self.process.wait()
        return self.admitted


@pytest.mark.timeout(120)
async def test_two_processes_of_a_thousand_callers_each_never_exceed_a_limit_by_one(
    control: ControlPlane, control_plane_url: str | None, tmp_path: Path
) -> None:
    await control.quotas.set("acme", "month", 5_003)
    callers = [(await Caller.start(tmp_path, control_plane_url, 1000)).go() for _ in range(2)]
    assert sum([await caller.ended() for caller in callers]) == 5_003
    assert [quota.used for quota in await control.quotas.list("acme")] == [5_003]


@pytest.mark.timeout(120)
async def test_a_killed_process_takes_no_unit_with_it_but_those_of_its_calls(
    control: ControlPlane, control_plane_url: str | None, tmp_path: Path
) -> None:
    running = 50
    await control.quotas.set("acme", "month", 30_000)
    victim = (await Caller.start(tmp_path, control_plane_url, running)).go()
    await victim.until(500)
    victim.process.send_signal(signal.SIGKILL)
    made = await victim.ended()

    (used,) = [quota.used for quota in await control.quotas.list("acme")]
    survivor = (await Caller.start(tmp_path, control_plane_url, running)).go()

    assert made <= used <= made + running < 30_000
    assert await survivor.ended() == 30_000 - used


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_process_that_was_stopped_spends_nothing_that_others_have_used_up(
    control: ControlPlane, control_plane_url: str | None, tmp_path: Path
) -> None:
    await control.quotas.set("acme", "month", 20_000)
    stopped = (await Caller.start(tmp_path, control_plane_url, 50)).go()
    await stopped.until(500)
    stopped.process.send_signal(signal.SIGSTOP)
    other = (await Caller.start(tmp_path, control_plane_url, 50)).go()
    await asyncio.sleep(1.0)  # unless it was stopped in a transaction, the other has used up everything now
    stopped.process.send_signal(signal.SIGCONT)
    assert await other.ended() + await stopped.ended() == 20_000


FROZEN = """
import asyncio, os, pathlib, signal, sys
import sqlalchemy as sa
from erp.control_plane import ControlPlane

def freeze(connection):
    connection.execute(sa.text("UPDATE quota_usage SET used = used + 1"))
    print("frozen", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

async def main():
    control = await ControlPlane.open(pathlib.Path("."), sys.argv[1], pepper=b"p")
    await control.database.transact(freeze)

asyncio.run(main())
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("control_plane_url", ["postgresql"], indirect=True)  # SQLite's file stays locked
async def test_a_process_that_stops_in_a_transaction_stops_nobody_else_for_long(
    control: ControlPlane, control_plane_url: str
) -> None:
    await control.quotas.set("acme", "month", 10)
    await control.quotas.reserve("acme")
    frozen = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FROZEN, control_plane_url, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert frozen.stdout is not None
        assert await frozen.stdout.readline() == b"frozen\n"
        assert await reserved(control.quotas, 20) == 9
    finally:
        frozen.kill()
        await frozen.wait()


@pytest.mark.parametrize(
    ("period", "starts", "ends"),
    [
        ("minute", "2026-12-31T23:59:00Z", "2027-01-01T00:00:00Z"),
        ("hour", "2026-12-31T23:00:00Z", "2027-01-01T00:00:00Z"),
        ("day", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("month", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
    ],
)
def test_periods_follow_the_calendar_in_utc(period: Any, starts: str, ends: str) -> None:
    assert bounds(period, at("2026-12-31T23:59:59.999999Z")) == (at(starts), at(ends))
