"""How often servers are killed and by which seed; servers and disks for tests of single faults."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.durability.effects import TENANT
from tests.durability.faults import Disk, Prober, small_disk
from tests.durability.processes import ServerProcess, Zygote


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("durability")
    group.addoption("--kills", type=int, default=None, help="SIGKILLs in tests/durability (default 200)")
    group.addoption("--seed", type=int, default=None, help="seed of their schedule (default 1)")


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Makes data directories and forks servers."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs Linux: processes are watched by pidfd")
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="session")
def template(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A furnished data directory to be copied, and its keys by tenant."""
    data_dir = tmp_path_factory.mktemp("template") / "data"
    return data_dir, zygote.furnish(data_dir)


@pytest.fixture
def keys(template: tuple[Path, dict[str, str]]) -> dict[str, str]:
    """The keys of every copy of the template."""
    return template[1]


@pytest.fixture
def start(zygote: Zygote, tmp_path: Path) -> Iterator[Callable[[Path], ServerProcess]]:
    """Starts a server on a data directory; it is killed at the end of the test."""
    started: list[ServerProcess] = []

    def started_on(data_dir: Path) -> ServerProcess:
        started.append(zygote.start(data_dir, tmp_path / "server.log"))
        return started[-1].ready()

    yield started_on
    for server in started:
        server.kill()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk."""
    with small_disk(tmp_path) as made:
        yield made


@pytest.fixture
def probe(keys: dict[str, str]) -> Iterator[Callable[[ServerProcess, Path], Prober]]:
    """Makes probers; they are closed at the end of the test."""
    with ExitStack() as probers:

        def made(server: ServerProcess, data_dir: Path) -> Prober:
            prober = Prober(server, keys[TENANT], data_dir)
            probers.callback(prober.close)
            return prober

        yield made
