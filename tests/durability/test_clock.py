"""A clock that is set forward and back while the layer works: nothing is doubled, lost or stuck, without a restart."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.durability import invariants, shifted_clock
from tests.durability.effects import KINDS, Evidence
from tests.durability.faults import Prober
from tests.durability.processes import ServerProcess, Zygote

Probe = Callable[[ServerProcess, Path], Prober]
HOUR = 3600.0
SOON_SECONDS = 30.0


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that shifts the clock of ``shifted`` servers."""
    file = tmp_path_factory.mktemp("clock") / "shift"
    shifted_clock.make(file)
    return file


@pytest.fixture(scope="module")
def shifted(clock: Path) -> Iterator[Zygote]:
    """Forks servers whose clock a test moves."""
    made = Zygote({shifted_clock.VARIABLE: str(clock)})
    yield made
    made.close()


@pytest.fixture
def start(
    shifted: Zygote, clock: Path, template: tuple[Path, dict[str, str]], tmp_path: Path
) -> Iterator[Callable[[], ServerProcess]]:
    """Starts servers on ``tmp_path/data``; the clock is right again at the end of the test."""
    started: list[ServerProcess] = []
    if not shifted.is_warm:
        shifted.furnish(tmp_path / "warm")
    shutil.copytree(template[0], tmp_path / "data")

    def begun() -> ServerProcess:
        started.append(shifted.start(tmp_path / "data", tmp_path / "server.log"))
        return started[-1].ready()

    yield begun
    for server in started:
        server.kill()
    shifted_clock.shift(clock, 0.0)


def wait_until(holds: Callable[[], bool]) -> bool:
    """Whether it holds soon."""
    deadline = time.monotonic() + SOON_SECONDS
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def undelivered(data_dir: Path) -> int:
    """How many events wait for delivery."""
    return int(Evidence(data_dir).control("SELECT count(*) FROM outbox WHERE state = 'due'")[0][0])


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_clock_that_jumps_and_jumps_back_disturbs_no_call(
    start: Callable[[], ServerProcess], probe: Probe, clock: Path, tmp_path: Path, jump: float
) -> None:
    server = start()
    prober = probe(server, tmp_path / "data")
    for seconds in (0.0, jump, 0.0, -jump, 0.0):
        shifted_clock.shift(clock, seconds)
        assert prober.probe() == {"ok": len(KINDS)}
        assert prober.all_settled() == []

    assert wait_until(lambda: not undelivered(tmp_path / "data"))
    assert prober.violations() == []
    assert list(invariants.events(Evidence(tmp_path / "data"), prober.sent)) == []
    assert not server.is_gone()


def test_what_a_killed_process_had_leased_in_the_future_is_free_soon_after_the_clock_was_set_back(
    start: Callable[[], ServerProcess], probe: Probe, clock: Path, tmp_path: Path
) -> None:
    shifted_clock.shift(clock, HOUR)
    first = start()
    prober = probe(first, tmp_path / "data")
    prober.probe()
    first.kill()
    as_if_killed_in_the_middle(tmp_path / "data" / "control.db", time.time() + HOUR)
    for sent in prober.sent:
        sent.state, sent.heard = "pending", []

    shifted_clock.shift(clock, 0.0)
    prober.reconnect(start())

    told = {sent.kind: prober.send(sent).code for sent in prober.sent}
    assert told == {kind: "ok" if kind.idempotent else "outcome_unknown" for kind in KINDS.values()}
    assert list(invariants.effects(Evidence(tmp_path / "data"), prober.sent)) == []
    assert prober.probe() == {"ok": len(KINDS)}
    assert wait_until(lambda: not undelivered(tmp_path / "data"))


def as_if_killed_in_the_middle(control_file: Path, moment: float) -> None:
    """Leave what a process leaves that runs calls and delivers events at ``moment`` and is killed."""
    lease_end, lapse = (int((moment + seconds) * 1_000_000) for seconds in (15, 60))
    with closing(sqlite3.connect(control_file, isolation_level=None)) as control:
        control.execute("INSERT OR REPLACE INTO owners VALUES ('killed', ?)", (lease_end,))
        control.execute("UPDATE idempotency SET status = 0, owner = 'killed', body = NULL WHERE key LIKE 'c:%'")
        control.execute("UPDATE outbox SET state = 'due', due_at = ?, settled_at = NULL", (lapse,))
