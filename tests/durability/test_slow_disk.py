"""A disk that answers late: another process holds the files, or the machine stands still now and then."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from tests.durability import invariants
from tests.durability.effects import KINDS, Evidence
from tests.durability.faults import REFUSALS, Prober
from tests.durability.processes import ServerProcess

Start = Callable[[Path], ServerProcess]
Probe = Callable[[ServerProcess, Path], Prober]
SHORT_SECONDS, LONG_SECONDS = 1.0, 20.0
"""Shorter and longer than the layer waits for a file: SQLite adds up its naps of 0.1 s, whatever they took."""
FILES = ("control_file", "database_file", "log_file")


@pytest.fixture
def data_dir(template: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """A furnished data directory."""
    return Path(shutil.copytree(template[0], tmp_path / "data"))


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Write to a file and do not come to an end, for the length of a block."""
    with closing(sqlite3.connect(file, isolation_level=None, timeout=10)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def pulses(server: ServerProcess, seconds: float) -> Iterator[None]:
    """Let the server stand still again and again for the length of a block."""
    is_over = threading.Event()

    def stop_and_go() -> None:
        while not is_over.wait(seconds / 4):
            server.pause(seconds)

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(stop_and_go)
        try:
            yield
        finally:
            is_over.set()
            running.result()


def test_calls_wait_for_a_file_that_another_process_holds_for_a_moment(
    data_dir: Path, start: Start, probe: Probe
) -> None:
    server = start(data_dir)
    prober = probe(server, data_dir)
    assert prober.probe() == {"ok": len(KINDS)}
    evidence = Evidence(data_dir)
    with ThreadPoolExecutor(1) as thread:
        for file in FILES:
            with held(getattr(evidence, file)):
                probed = thread.submit(prober.probe)
                time.sleep(SHORT_SECONDS)
                assert not probed.done()
            assert probed.result() == {"ok": len(KINDS)}

    assert prober.violations() == []


def test_files_that_another_process_holds_for_long_refuse_effects_and_take_them_again(
    data_dir: Path, start: Start, probe: Probe
) -> None:
    server = start(data_dir)
    probers = [probe(server, data_dir) for _ in range(2)]
    for number, prober in enumerate(probers):
        prober.caller = f"c{number}"
    evidence = Evidence(data_dir)
    with ExitStack() as locks, ThreadPoolExecutor(len(probers)) as threads:
        for file in FILES:
            locks.enter_context(held(getattr(evidence, file)))
        probed = [threads.submit(prober.probe) for prober in probers]
        time.sleep(LONG_SECONDS)
        locks.close()
        told = sum((found.result() for found in probed), start=Counter[str]())

    assert set(told) <= REFUSALS | {"ok"}, told
    assert REFUSALS & set(told), told
    for prober in probers:
        assert prober.all_settled() == []
        assert prober.probe() == {"ok": len(KINDS)}
        assert prober.violations() == []
    assert list(invariants.intact(data_dir)) == []


def test_a_machine_that_stands_still_now_and_then_breaks_no_promise(data_dir: Path, start: Start, probe: Probe) -> None:
    server = start(data_dir)
    prober = probe(server, data_dir)
    with pulses(server, 0.05):
        for _ in range(5):
            assert prober.probe() == {"ok": len(KINDS)}

    assert prober.all_delivered()
    assert prober.violations() == []
    assert list(invariants.events(Evidence(data_dir), prober.sent)) == []
