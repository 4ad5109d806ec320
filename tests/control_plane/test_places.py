from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from erp.control_plane import ControlPlane
from erp.control_plane.place_rows import Agreement, Claim, agree, shares
from erp.control_plane.places import ConnectionPlaces
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio

OWNER = ("acme", "integration/http_api#erp")
SECOND = 1_000_000


async def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)


class Crowd:
    """Callers of several processes, and how many of them are inside at a time."""

    def __init__(self) -> None:
        self.inside = self.most = self.served = 0

    async def call(self, places: ConnectionPlaces, seconds: float = 0.002) -> None:
        if not places.try_enter():
            await places.wait_to_enter()
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(seconds)
        self.inside -= 1
        self.served += 1
        places.leave()

    async def repeat(self, places: ConnectionPlaces, ends: float) -> int:
        count = 0
        while time.monotonic() < ends:
            await self.call(places)
            count += 1
        return count


async def entered(places: ConnectionPlaces, count: int) -> None:
    for _ in range(count):
        if not places.try_enter():
            await places.wait_to_enter()


async def test_processes_together_take_every_place_and_not_one_more(open_control_plane: Any) -> None:
    planes = [await open_control_plane() for _ in range(3)]
    await planes[0].tenants.create("acme")
    crowd = Crowd()
    shared = [plane.places.of(OWNER, 7) for plane in planes]
    await asyncio.gather(*(crowd.call(shared[number % 3]) for number in range(600)))
    assert (crowd.served, crowd.inside) == (600, 0)
    assert 5 <= crowd.most <= 7


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 5])
async def test_no_process_waits_for_ever_while_others_are_busy(open_control_plane: Any, limit: int) -> None:
    planes = [await open_control_plane() for _ in range(3)]
    await planes[0].tenants.create("acme")
    crowd = Crowd()
    ends = time.monotonic() + 2
    shared = [plane.places.of(OWNER, limit) for plane in planes for _ in range(10)]
    counts = await asyncio.gather(*(crowd.repeat(places, ends) for places in shared))
    by_process = [sum(counts[number * 10 : number * 10 + 10]) for number in range(3)]
    assert crowd.most <= limit
    assert min(by_process) > 0, by_process


async def test_what_a_process_does_not_need_the_others_get(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await here.tenants.create("acme")
    mine, theirs = here.places.of(OWNER, 4), there.places.of(OWNER, 4)
    await entered(mine, 4)
    waiting = asyncio.create_task(theirs.wait_to_enter())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    mine.leave()
    async with asyncio.timeout(30):
        await waiting
        for _ in range(3):
            mine.leave()
        await entered(theirs, 3)
    assert mine.try_enter() is False


async def test_entering_asks_no_database_while_there_is_room(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = control.places.of(OWNER, 3)
    await entered(places, 2)
    places.leave()
    with monkeypatch.context() as silenced:
        silenced.setattr(control.database, "count", None)
        assert places.try_enter() is True
        assert places.try_enter() is False
    places.leave()
    places.leave()


async def test_what_is_given_back_at_the_end_is_free_at_once(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await here.tenants.create("acme")
    await entered(here.places.of(OWNER, 2), 2)
    await here.places.close()
    async with asyncio.timeout(5):
        await entered(there.places.of(OWNER, 2), 2)


async def test_a_caller_that_leaves_the_queue_takes_no_place(control: ControlPlane) -> None:
    places = control.places.of(OWNER, 1)
    await entered(places, 1)
    gone = asyncio.create_task(places.wait_to_enter())
    await asyncio.sleep(0.05)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    places.leave()
    async with asyncio.timeout(30):
        await entered(places, 1)
    places.leave()


async def test_without_the_database_whoever_waits_is_told(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = control.places.of(OWNER, 1)

    async def silent(work: Any) -> Any:
        raise ProviderError("unavailable", "Silent.")

    with monkeypatch.context() as silenced:
        silenced.setattr(control.database, "count", silent)
        with pytest.raises(ProviderError) as refused:
            await places.wait_to_enter()
    assert refused.value.code == "unavailable"
    async with asyncio.timeout(30):
        await entered(places, 1)
    places.leave()


async def test_a_limit_that_is_lowered_counts_for_those_who_are_inside(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await here.tenants.create("acme")
    mine = here.places.of(OWNER, 5)
    await entered(mine, 5)
    assert here.places.of(OWNER, 2) is mine
    theirs = asyncio.create_task(there.places.of(OWNER, 2).wait_to_enter())
    for _ in range(3):
        mine.leave()
        await asyncio.sleep(0.1)
        assert (mine.try_enter(), theirs.done()) == (False, False)
    mine.leave()
    async with asyncio.timeout(30):
        await theirs


async def test_where_too_many_are_inside_nobody_enters_until_there_is_room(control: ControlPlane) -> None:
    """A process that was stopped for longer than its places were its own finds others in them."""

    async def agreed(name: str, inside: int, wanted: int) -> Agreement:
        return await control.database.count(partial(agree, *OWNER, 3, Claim(name, inside, wanted)))

    assert await agreed("new", 0, 3) == Agreement(3, 3)
    assert await agreed("stopped", 3, 3) == Agreement(3, 0)
    assert await agreed("new", 3, 3) == Agreement(3, 0)
    assert await agreed("new", 1, 1) == Agreement(1, 0)
    assert await agreed("stopped", 1, 3) == Agreement(2, 2)
    assert await agreed("new", 1, 1) == Agreement(1, 1)


# -- shares --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "wanted", "expected"),
    [
        (10, {"a": 20, "b": 20}, {"a": 5, "b": 5}),
        (10, {"a": 20, "b": 2}, {"a": 8, "b": 2}),
        (7, {"a": 9, "b": 9}, {"a": 4, "b": 3}),
        (10, {"a": 3, "b": 4}, {"a": 3, "b": 4}),
        (2, {"a": 9, "b": 0}, {"a": 2, "b": 0}),
    ],
)
def test_a_share_is_what_is_needed_or_as_much_as_others_have(
    limit: int, wanted: dict[str, int], expected: dict[str, int]
) -> None:
    assert shares(limit, [Claim(name, 1, count, 0) for name, count in wanted.items()], SECOND) == expected


def test_fewer_places_than_processes_go_round() -> None:
    begun = Claim("begun", 1, 5, 10 * SECOND)
    old = Claim("old", 1, 5, 1 * SECOND)
    first, second = Claim("first", 0, 5, 2 * SECOND), Claim("second", 0, 5, 3 * SECOND)
    given = shares(2, [old, second, first, begun], 10 * SECOND + 1)
    assert given == {"begun": 1, "first": 1, "second": 0, "old": 0}


# -- killed and stopped --------------------------------------------------------------------------

PROCESS = """
import asyncio, pathlib, sys
from erp.control_plane import ControlPlane

async def main():
    control = await ControlPlane.open(pathlib.Path(sys.argv[1]), sys.argv[2] or None, pepper=b"p")
    places = control.places.of(("acme", "integration/http_api#erp"), 3)
    for _ in range(3):
        await places.wait_to_enter()
    print("inside", flush=True)
    while True:
        await asyncio.sleep(0.1)
        while sys.argv[3] == "turns":
            places.leave()
            if places.try_enter():
                print("entered", flush=True)
                await asyncio.sleep(0.01)
                continue
            await places.wait_to_enter()
            print("waited", flush=True)

asyncio.run(main())
"""


async def process(folder: Path, url: str | None, mode: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-c", PROCESS, str(folder), url or "", mode)
    made = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert made.stdout is not None
    assert await made.stdout.readline() == b"inside\n"
    return made


@pytest.mark.slow  # waits until the lease of another process is over
@pytest.mark.timeout(120)
async def test_places_of_a_killed_process_are_free_again(
    control: ControlPlane, control_plane_url: str | None, tmp_path: Path
) -> None:
    victim = await process(tmp_path, control_plane_url, "stay")
    places = control.places.of(OWNER, 3)
    waiting = [asyncio.create_task(places.wait_to_enter()) for _ in range(3)]
    await asyncio.sleep(1.0)
    assert not any(item.done() for item in waiting)
    victim.kill()
    await victim.wait()
    killed_at = time.monotonic()
    async with asyncio.timeout(40):
        await asyncio.gather(*waiting)
    assert time.monotonic() - killed_at > 8


@pytest.mark.slow  # waits until the lease of another process is over
@pytest.mark.timeout(120)
async def test_a_process_that_was_stopped_lets_nobody_in_where_others_are(
    control: ControlPlane, control_plane_url: str | None, tmp_path: Path
) -> None:
    stopped = await process(tmp_path, control_plane_url, "turns")
    assert stopped.stdout is not None
    await stopped.stdout.readline()
    stopped.send_signal(signal.SIGSTOP)
    places = control.places.of(OWNER, 3)
    try:
        async with asyncio.timeout(60):
            await entered(places, 3)
        while True:  # what it wrote before it was stopped
            try:
                async with asyncio.timeout(0.5):
                    await stopped.stdout.readline()
            except TimeoutError:
                break
        stopped.send_signal(signal.SIGCONT)
        lines = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                while line := await stopped.stdout.readline():
                    lines.append(line)
        # The step it was stopped in may have been over already.
        assert len(lines) <= 1, lines
    finally:
        stopped.kill()
        await stopped.wait()
