from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from erp.control_plane import ControlPlane, moments
from erp.control_plane.journal import GroupCommitJournal
from erp.control_plane.tables import idempotency, owners
from erp.errors import ProviderError
from erp.runtime.ports import ClaimOutcome, Completion

pytestmark = pytest.mark.anyio


async def state(journal: GroupCommitJournal, claim: Any) -> str:
    return (await journal.claim(claim)).state


async def test_the_first_runs_the_second_waits_the_third_gets_the_stored_answer(
    control: ControlPlane, make: Any
) -> None:
    journal, first = control.journal, make.claim()
    assert await state(journal, first) == "won"
    assert await state(journal, make.claim()) == "in_flight"
    await journal.complete(Completion(audit=make.audit(), claim=first, status=200, body=b'{"stored":true}'))
    replay = await journal.claim(make.claim())
    assert (replay.state, replay.status, replay.body) == ("replay", 200, b'{"stored":true}')


@pytest.mark.parametrize("other", [{"fingerprint": b"another"}, {"target": "cache/memory.delete"}])
async def test_a_key_used_for_another_request_is_a_mismatch_running_or_done(
    control: ControlPlane, make: Any, other: dict[str, Any]
) -> None:
    journal, first = control.journal, make.claim()
    await journal.claim(first)
    assert await state(journal, make.claim(**other)) == "mismatch"
    await journal.complete(Completion(audit=make.audit(), claim=first, status=200, body=b"{}"))
    assert await state(journal, make.claim(**other)) == "mismatch"
    assert await state(journal, make.claim()) == "replay"


async def test_keys_of_tenants_are_apart(control: ControlPlane, make: Any) -> None:
    assert await state(control.journal, make.claim()) == "won"
    assert await state(control.journal, make.claim(tenant="globex")) == "won"
    assert await state(control.journal, make.claim(key="c:2")) == "won"


async def test_processes_see_each_others_claims(open_control_plane: Any, make: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    first = make.claim()
    assert await state(here.journal, first) == "won"
    assert await state(there.journal, make.claim()) == "in_flight"
    assert await state(there.journal, make.claim(fingerprint=b"another")) == "mismatch"
    await here.journal.complete(Completion(audit=make.audit(), claim=first, status=201, body=b"{}"))
    assert (await there.journal.claim(make.claim())).status == 201


async def test_a_released_key_can_run_again(control: ControlPlane, make: Any) -> None:
    first = make.claim()
    await control.journal.claim(first)
    await control.journal.complete(Completion(audit=make.audit(outcome="unavailable"), claim=first, release=True))
    assert await state(control.journal, make.claim()) == "won"


async def test_an_answer_is_forgotten_when_its_window_has_passed(control: ControlPlane, make: Any) -> None:
    first = make.claim(window_seconds=0)
    await control.journal.claim(first)
    await control.journal.complete(Completion(audit=make.audit(), claim=first, status=200, body=b"old"))
    second = make.claim(fingerprint=b"another")
    assert await state(control.journal, second) == "won"
    await control.journal.complete(Completion(audit=make.audit(), claim=second, status=200, body=b"new"))
    assert (await control.journal.claim(make.claim(fingerprint=b"another"))).body == b"new"


async def test_purging_removes_what_has_passed_and_nothing_that_runs(control: ControlPlane, make: Any) -> None:
    claims = {
        name: make.claim(key=name, window_seconds=0 if name != "kept" else 60) for name in ("old", "kept", "runs")
    }
    for claim in claims.values():
        await control.journal.claim(claim)
    for name in ("old", "kept"):
        await control.journal.complete(Completion(audit=make.audit(), claim=claims[name], status=200, body=b"{}"))
    await control.database.transact(control.journal._writer.purge)
    keys = sa.select(idempotency.c.key).order_by(idempotency.c.key)
    found = await control.database.run(lambda connection: list(connection.execute(keys).scalars()))
    assert found == ["kept", "runs"]


@pytest.mark.parametrize(("reentrant", "expected"), [(True, "won"), (False, "lost")])
async def test_a_claim_of_a_dead_process_is_taken_over_only_when_it_may_run_again(
    control: ControlPlane, make: Any, reentrant: bool, expected: str
) -> None:
    dead = GroupCommitJournal(control.database, lease_seconds=0.05, heartbeat_seconds=60)
    assert await state(dead, make.claim()) == "won"
    assert await state(control.journal, make.claim(reentrant=reentrant)) == "in_flight"
    await asyncio.sleep(0.06)
    assert await state(control.journal, make.claim(fingerprint=b"another")) == "mismatch"
    assert await state(control.journal, make.claim(reentrant=reentrant)) == expected
    dead._timer.cancel()


@pytest.mark.parametrize(("reentrant", "expected"), [(True, "won"), (False, "lost")])
async def test_a_runner_that_died_before_the_clock_was_set_back_counts_as_dead(
    control: ControlPlane, make: Any, monkeypatch: pytest.MonkeyPatch, reentrant: bool, expected: str
) -> None:
    dead = GroupCommitJournal(control.database, heartbeat_seconds=60)
    assert await state(dead, make.claim()) == "won"
    assert await state(control.journal, make.claim(reentrant=reentrant)) == "in_flight"
    earlier = moments.now() - 3600 * moments.MICROSECONDS
    monkeypatch.setattr(moments, "now", lambda: earlier)

    assert await state(control.journal, make.claim(reentrant=reentrant)) == expected
    dead._timer.cancel()


@pytest.mark.parametrize(("reentrant", "expected"), [(True, "won"), (False, "lost")])
async def test_a_claim_that_is_left_open_goes_to_a_second_run_at_once(
    control: ControlPlane, make: Any, reentrant: bool, expected: str
) -> None:
    first = make.claim()
    assert await control.journal.claim(first) == ClaimOutcome(state="won")
    await control.journal.complete(Completion(audit=make.audit(outcome="timeout"), claim=first, is_open=True))

    assert await state(control.journal, make.claim(fingerprint=b"another")) == "mismatch"
    second = await control.journal.claim(make.claim(reentrant=reentrant))
    assert (second.state, second.is_second_run) == (expected, reentrant)


async def test_a_process_that_lives_keeps_its_claims_beyond_the_lease(control: ControlPlane, make: Any) -> None:
    alive = GroupCommitJournal(control.database, lease_seconds=0.1, heartbeat_seconds=0.03)
    running = make.claim()
    assert await state(alive, running) == "won"
    await asyncio.sleep(0.2)
    assert await state(control.journal, make.claim()) == "in_flight"
    await alive.complete(Completion(audit=make.audit(), claim=running, status=200, body=b"{}"))
    await alive.close()
    assert await state(control.journal, make.claim()) == "replay"
    found = sa.select(sa.func.count()).select_from(owners).where(owners.c.id == alive.owner)
    assert await control.database.run(lambda connection: connection.execute(found).scalar()) == 0


@pytest.mark.parametrize("end", ["release", "is_open"])
async def test_a_process_that_was_thought_dead_fails_with_what_its_successor_has_done(
    control: ControlPlane, make: Any, end: str
) -> None:
    slow = GroupCommitJournal(control.database, lease_seconds=0.0, heartbeat_seconds=60)
    lost, successor = make.claim(), make.claim()
    await slow.claim(lost)
    assert await state(control.journal, successor) == "won"
    with pytest.raises(ProviderError) as refused:
        await slow.complete(Completion(audit=make.audit(outcome="failed_precondition"), claim=lost, **{end: True}))
    assert (refused.value.code, refused.value.retryable) == ("conflict", True)
    assert await state(control.journal, make.claim()) == "in_flight"
    await control.journal.complete(Completion(audit=make.audit(), claim=successor, status=200, body=b"right"))
    assert (await control.journal.claim(make.claim())).body == b"right"
    await slow.close()


async def test_a_process_that_was_thought_dead_does_not_overwrite_its_successor(
    control: ControlPlane, make: Any
) -> None:
    slow = GroupCommitJournal(control.database, lease_seconds=0.0, heartbeat_seconds=60)
    lost, successor = make.claim(), make.claim()
    await slow.claim(lost)
    assert await state(control.journal, successor) == "won"
    late = Completion(audit=make.audit(), claim=lost, status=200, body=b"late", events=[make.event(id="late")])
    with pytest.raises(ProviderError) as refused:
        await slow.complete(late)
    assert (refused.value.code, refused.value.retryable) == ("conflict", True)
    assert await control.outbox.claim(limit=9, per_tenant=9, lease_seconds=60) == {}
    assert await state(GroupCommitJournal(control.database), make.claim()) == "in_flight"
    right = Completion(audit=make.audit(), claim=successor, status=200, body=b"right", events=[make.event(id="right")])
    await control.journal.complete(right)
    assert [due.event.id for due in (await control.outbox.claim(limit=9, per_tenant=9, lease_seconds=60))["acme"]] == [
        "right"
    ]
    assert (await control.journal.claim(make.claim())).body == b"right"
    await slow.close()


async def test_a_caller_that_goes_away_while_claiming_gives_the_key_back(control: ControlPlane, make: Any) -> None:
    for _ in range(5):
        caller = asyncio.create_task(control.journal.claim(make.claim()))
        await asyncio.sleep(random.SystemRandom().uniform(0, 0.002))
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        if not caller.cancelled():
            await control.journal.complete(Completion(audit=make.audit(), claim=_only(control), release=True))
        async with asyncio.timeout(30):
            while (taken := await state(control.journal, again := make.claim())) == "in_flight":  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        assert taken == "won"
        await control.journal.complete(Completion(audit=make.audit(), claim=again, release=True))


def _only(control: ControlPlane) -> Any:
    (claim,) = control.journal._running.values()
    return claim


async def test_a_completion_is_written_even_when_its_caller_goes_away(control: ControlPlane, make: Any) -> None:
    first = make.claim()
    await control.journal.claim(first)
    completion = Completion(audit=make.audit(), claim=first, status=200, body=b"{}")
    caller = asyncio.create_task(control.journal.complete(completion))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    async with asyncio.timeout(30):
        while await state(control.journal, make.claim()) != "replay":  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    assert len(await control.audit.chain("acme")) == 1


async def test_a_batch_that_cannot_be_written_fails_its_callers_and_nobody_after_them(
    control: ControlPlane, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = GroupCommitJournal(control.database, retry_seconds=0.02)
    claims = {name: make.claim(key=name) for name in ("done", "released", "new")}
    for name in ("done", "released"):
        await journal.claim(claims[name])

    async def full(_: object) -> None:
        raise ProviderError("unavailable", "The control plane's database does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(control.database, "transact", full)
        journal.note(make.audit(outcome="permission_denied"))
        results = await asyncio.gather(
            journal.claim(claims["new"]),
            journal.complete(Completion(audit=make.audit(), claim=claims["done"], status=200, body=b"{}")),
            journal.complete(Completion(audit=make.audit(), claim=claims["released"], release=True)),
            journal.complete(Completion(audit=make.audit(effect="read"))),
            return_exceptions=True,
        )
    codes = [error.code.value for error in results if isinstance(error, ProviderError)]
    assert codes == ["unavailable", "outcome_unknown", "unavailable", "unavailable"]
    assert await control.audit.chain("acme") == []

    assert await state(journal, make.claim(key="new", reentrant=False)) == "won"
    assert await state(journal, make.claim(key="done", reentrant=False)) == "lost"
    assert await state(journal, make.claim(key="done", reentrant=True)) == "won"
    assert await state(journal, make.claim(key="released", reentrant=False)) == "won"
    await journal.close()
    records, _ = await control.audit.search("acme")
    assert [record.outcome for record in records] == ["permission_denied"]


async def test_what_cannot_be_encoded_fails_its_own_caller_alone(control: ControlPlane, make: Any) -> None:
    first = make.claim()
    await control.journal.claim(first)
    bad = Completion(audit=make.audit(), events=[make.event(data={"x": object()})], claim=first, status=200, body=b"{}")
    good = Completion(audit=make.audit(), events=[make.event(id="a\0b", key="k\0")])
    results = await asyncio.gather(
        control.journal.complete(bad), control.journal.complete(good), return_exceptions=True
    )
    assert isinstance(results[0], ProviderError)
    assert (results[0].code, results[1]) == ("internal", None)
    assert await state(control.journal, make.claim(reentrant=False)) == "lost"
    assert len(await control.audit.chain("acme")) == 1


async def test_events_are_announced_when_they_are_durable(control: ControlPlane, make: Any) -> None:
    announced: list[str] = []
    control.journal.on_events = lambda: announced.append("events")
    await control.journal.complete(Completion(audit=make.audit()))
    assert announced == []
    await control.journal.complete(Completion(audit=make.audit(), events=[make.event()]))
    assert announced == ["events"]


async def test_a_note_is_written_without_waiting_and_before_closing_at_the_latest(
    open_control_plane: Any, make: Any
) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    here.journal.note(make.audit(outcome="permission_denied"))
    await here.journal.close()
    records, _ = await there.audit.search("acme")
    assert [record.outcome for record in records] == ["permission_denied"]


async def test_more_than_one_batch_at_once_is_written_whole(control: ControlPlane, make: Any) -> None:
    claims = [make.claim(key=f"c:{number}") for number in range(1200)]
    outcomes = await asyncio.gather(*(control.journal.claim(claim) for claim in claims))
    assert {outcome.state for outcome in outcomes} == {"won"}
    await asyncio.gather(
        *(
            control.journal.complete(Completion(audit=make.audit(), claim=claim, status=200, body=claim.key.encode()))
            for claim in claims
        )
    )
    replays = await asyncio.gather(*(control.journal.claim(make.claim(key=claim.key)) for claim in claims))
    assert [replay.body.decode() for replay in replays] == [claim.key for claim in claims]
    assert [link.seq for link in await control.audit.chain("acme", limit=5000)] == list(range(1, 1201))


@pytest.mark.parametrize("seed", [1, 2])
async def test_of_all_who_claim_a_key_in_all_processes_one_wins(open_control_plane: Any, make: Any, seed: int) -> None:
    chance = random.Random(seed)
    planes = [await open_control_plane() for _ in range(3)]
    won: dict[str, int] = {}

    async def call(plane: ControlPlane, key: str) -> None:
        await asyncio.sleep(chance.uniform(0, 0.05))
        claim = make.claim(key=key, reentrant=False)
        outcome = await plane.journal.claim(claim)
        assert outcome.state in {"won", "in_flight", "replay"}
        if outcome.state == "won":
            won[key] = won.get(key, 0) + 1
            await plane.journal.complete(
                Completion(audit=make.audit(), events=[make.event(id=key)], claim=claim, status=200, body=key.encode())
            )

    keys = [f"c:{number}" for number in range(20)]
    await asyncio.gather(*(call(plane, key) for plane in planes for key in keys * 3))
    assert won == dict.fromkeys(keys, 1)
    chain = await planes[0].audit.chain("acme")
    assert [link.seq for link in chain] == list(range(1, 21))
    assert all(later.prev_hash == earlier.hash for earlier, later in pairwise(chain))


async def test_claims_are_looked_up_by_index_however_many_there_are(empty_file: Path) -> None:
    control = await ControlPlane.open(empty_file.parent, pepper=b"p")
    text = control.journal._writer._claims._find._compile([("acme", "a"), ("acme", "b")])
    parameters = ("acme", "a", "acme", "b")

    def explained(connection: sa.Connection) -> list[str]:
        return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", parameters)]

    plan = await control.database.run(explained)
    assert "SEARCH idempotency USING PRIMARY KEY (tenant=? AND key=?)" in plan
    assert "SCAN idempotency" not in plan
    await control.close()
