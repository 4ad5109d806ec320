from __future__ import annotations

import asyncio

import pytest

from erp.control_plane import ControlPlane
from erp.control_plane.revisions import Revisions, Topic

pytestmark = pytest.mark.anyio


@pytest.fixture
def heard() -> list[str]:
    """Who was told that the catalog has changed."""
    return []


def process(control: ControlPlane, heard: list[str], name: str) -> Revisions:
    """Another process on the same control plane, which asks as often as it can."""
    made = Revisions(control.database, poll_seconds=0)
    made.watch(Topic.CATALOG, lambda: heard.append(name))
    return made


async def test_the_others_are_told_once_and_not_who_counted(control: ControlPlane, heard: list[str]) -> None:
    here, there = process(control, heard, "here"), process(control, heard, "there")
    for one in (here, there):
        await one.refresh()

    await here.count(Topic.CATALOG)
    for one in (here, there, here, there):
        await one.refresh()

    assert heard == ["there"]


async def test_who_counts_is_not_told_by_a_question_asked_meanwhile(control: ControlPlane, heard: list[str]) -> None:
    here = process(control, heard, "here")
    await here.refresh()

    async def ask() -> None:
        for _ in range(20):
            await here.refresh()

    for _ in range(20):
        await asyncio.gather(ask(), here.count(Topic.CATALOG))

    assert heard == []


async def test_who_counts_is_told_when_another_counted_just_before(control: ControlPlane, heard: list[str]) -> None:
    here, there = process(control, heard, "here"), process(control, heard, "there")
    for one in (here, there):
        await one.refresh()

    await there.count(Topic.CATALOG)
    await here.count(Topic.CATALOG)
    for one in (here, there):
        await one.refresh()

    assert heard == ["here", "there"]
