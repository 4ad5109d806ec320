"""A version that is kept elsewhere is destroyed there once: after its overlap, and when nothing uses it any more."""

from __future__ import annotations

from typing import Any

import pytest
from tests.security.test_secret_retirement import DAY, Site

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import ControlPlane, moments
from erp.errors import ProviderError
from erp.security.keyring import Keyring

pytestmark = pytest.mark.anyio

ELSEWHERE = "secrets/vault/main/crm"
FIRST, SECOND = "1 2026-01-01T00:00:00Z", "2 2026-02-01T00:00:00Z"


@pytest.fixture
def site(control: ControlPlane, keyring: Keyring) -> Site:
    return Site(control, keyring)


async def test_a_version_that_is_kept_elsewhere_is_destroyed_there_once_after_its_overlap(site: Site) -> None:
    await site.replace({1: FIRST})
    planned = (await site.overlaps.of("crm"))[FIRST]
    assert moments.of(planned.ends_at) == pytest.approx(moments.after(DAY), abs=30_000_000)
    assert planned.is_over is False

    assert await site.pass_(DAY - 60) == []
    assert await site.pass_(61) == [FIRST]
    assert site.destroyed == [("acme", ELSEWHERE, FIRST)]
    assert (await site.overlaps.of("crm"))[FIRST].is_over is True
    [record] = await site.records()
    assert (record["target"], record["outcome"]) == (f"{ELSEWHERE}#1", "ok")
    assert await site.pass_(DAY) == [FIRST]
    assert await site.control.retirements.waiting(limit=10) == []


@pytest.mark.parametrize(
    ("reference", "versions"),
    [
        (f"secret://{ELSEWHERE}#1", {}),
        (f"secret://{ELSEWHERE}", {f"secret://{ELSEWHERE}": FIRST}),
        (f"secret://{ELSEWHERE}", {}),
    ],
)
async def test_what_a_connection_uses_elsewhere_is_kept_until_it_changes(
    site: Site, reference: str, versions: dict[str, str]
) -> None:
    await site.connect(reference, versions)
    await site.replace({1: FIRST}, overlap_seconds=3600)
    assert await site.pass_(2 * 3600) == []
    assert site.still_used == [("acme", ELSEWHERE)]

    site.clocks.wall_seconds = 0  # it is the database that says when a connection changes
    await site.connect(f"secret://{ELSEWHERE}", {f"secret://{ELSEWHERE}": SECOND})
    await site.retirement.round()
    assert await site.pass_(3600 - 60) == []
    assert await site.pass_(61) == [FIRST]


async def test_what_a_provider_was_opened_with_from_elsewhere_is_kept(site: Site) -> None:
    site.open.add(("acme", (ELSEWHERE, FIRST)))
    await site.replace({1: FIRST})
    assert await site.pass_(DAY + 60) == []
    site.open.clear()
    assert await site.pass_(61) == [FIRST]


async def test_other_connections_and_versions_hinder_nothing(site: Site) -> None:
    await site.connect(f"secret://{ELSEWHERE}", {f"secret://{ELSEWHERE}": SECOND})
    site.open |= {("acme", ("secrets/vault/other/crm", FIRST)), ("globex", (ELSEWHERE, FIRST))}
    await site.replace({1: FIRST})
    assert await site.pass_(DAY + 60) == [FIRST]


async def test_a_rotation_that_failed_without_effect_plans_nothing(site: Site) -> None:
    with pytest.raises(ProviderError):
        async with site.overlaps.replacing("crm", {1: FIRST}, DAY):
            raise ProviderError(ErrorCode.CONFLICT, "Somebody else was faster.")
    assert await site.overlaps.of("crm") == {}


async def test_a_failed_rotation_leaves_what_an_earlier_one_has_planned(site: Site) -> None:
    await site.replace({1: FIRST})
    with pytest.raises(ProviderError):
        async with site.overlaps.replacing("crm", {1: FIRST, 2: SECOND}, DAY):
            raise ProviderError(ErrorCode.CONFLICT, "Somebody else was faster.")
    assert set(await site.overlaps.of("crm")) == {FIRST}


async def test_a_rotation_whose_answer_was_lost_destroys_the_version_before_unless_that_is_still_the_current_one(
    site: Site,
) -> None:
    with pytest.raises(ProviderError):
        async with site.overlaps.replacing("crm", {1: FIRST}, DAY):
            raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, "The answer was lost.")
    site.answers = [False]
    await site.retirement.round()
    await site.pass_(DAY + 60)
    assert await site.overlaps.of("crm") == {}
    assert await site.records() == []


async def test_a_version_that_cannot_be_destroyed_is_tried_more_and_more_seldom_and_given_up_on_record(
    site: Site,
) -> None:
    gone = ProviderError(ErrorCode.NOT_FOUND, "There is no connection 'main'.")
    await site.replace({1: FIRST})
    site.answers = [gone] * 500
    tries = []
    for _ in range(60 * 24 + 1):
        before = len(site.answers)
        await site.pass_(3600)
        tries.append(before - len(site.answers))

    assert (sum(tries[:72]), sum(tries[72 : 14 * 24]), max(tries[40:])) == (6, 11, 1)
    assert sum(tries[32 * 24 :]) == 0
    assert site.destroyed == []
    [record] = await site.records()
    assert (record["target"], record["outcome"]) == (f"{ELSEWHERE}#1", "not_found")
    assert record["reason"] == "given up, it is still there: There is no connection 'main'."
    assert (await site.overlaps.of("crm"))[FIRST].is_over is True
    assert await site.control.retirements.waiting(limit=10) == []


async def test_a_system_that_refuses_is_asked_again_and_the_version_is_recorded_when_it_is_gone(site: Site) -> None:
    await site.replace({1: FIRST})
    site.answers = [ProviderError(ErrorCode.PERMISSION_DENIED, "The policies do not let this token do that.")]
    assert await site.pass_(DAY + 60) == []
    assert (await site.overlaps.of("crm"))[FIRST].is_over is True
    assert await site.pass_(60) == []
    assert await site.records() == []
    assert await site.pass_(300) == [FIRST]
    assert len(await site.records()) == 1


async def test_a_secret_that_was_made_anew_is_planned_anew(site: Site) -> None:
    await site.replace({1: FIRST})
    await site.pass_(DAY + 60)
    again = "1 2026-03-01T00:00:00Z"
    site.clocks.wall_seconds = 0
    await site.replace({1: again})
    assert set(await site.overlaps.of("crm")) == {again}
    assert await site.pass_(DAY + 60) == [FIRST, again]


async def test_a_secret_that_is_gone_is_forgotten(site: Site) -> None:
    await site.replace({1: FIRST})
    await site.overlaps.forget("crm")
    assert await site.pass_(DAY + 60) == []


async def test_what_a_killed_process_has_destroyed_elsewhere_the_next_one_records(site: Site) -> None:
    class Killed(Exception):  # noqa: N818  (a signal, not an error)
        pass

    class Dying:
        async def complete(self, _: Any) -> None:
            raise Killed

    await site.replace({1: FIRST})
    site.clocks.pass_(DAY + 60)
    with pytest.raises(Killed):
        await site.process(Dying()).round()
    assert site.destroyed == [("acme", ELSEWHERE, FIRST)]
    assert await site.pass_(61) == [FIRST, FIRST]  # destroying twice does no harm
    assert len(await site.records()) == 1
    assert await site.control.retirements.waiting(limit=10) == []
