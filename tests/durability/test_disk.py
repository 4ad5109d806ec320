"""A disk that is full or cannot be written: clear errors, nothing half done, and no restart once it works again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.durability import invariants
from tests.durability.campaign import let_leases_lapse
from tests.durability.effects import KINDS
from tests.durability.faults import REFUSALS, Disk, Prober
from tests.durability.processes import ServerProcess
from tests.support.process import erp

Start = Callable[[Path], ServerProcess]
Probe = Callable[[ServerProcess, Path], Prober]
LEFT = (0, 16 * 1024, 64 * 1024)


@pytest.fixture(params=["everything", "tenants"])
def data_dir(request: pytest.FixtureRequest, disk: Disk, template: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """A furnished data directory that is on the small disk, wholly or but for the control plane."""
    is_all = request.param == "everything"
    data_dir = Path(shutil.copytree(template[0], (disk.path if is_all else tmp_path) / "data"))
    if not is_all:
        shutil.move(data_dir / "tenants", disk.path / "tenants")
        (data_dir / "tenants").symlink_to(disk.path / "tenants")
    disk.sync()
    return data_dir


@pytest.mark.parametrize("left", LEFT)
def test_a_full_disk_refuses_effects_and_takes_them_again_when_there_is_room(
    disk: Disk, data_dir: Path, start: Start, probe: Probe, left: int
) -> None:
    server = start(data_dir)
    prober = probe(server, data_dir)
    assert prober.probe() == {"ok": len(KINDS)}

    disk.fill(leave=left)
    told = sum((prober.probe() for _ in range(2)), start=prober.probe())
    assert set(told) <= REFUSALS | {"ok"}, told
    assert REFUSALS & set(told), told
    disk.empty()

    assert prober.violations() == []
    assert_recovered(prober, server)
    assert list(invariants.intact(data_dir)) == []


def assert_recovered(prober: Prober, server: ServerProcess) -> None:
    """What was refused succeeds with its key, unless it may have happened; everything new succeeds; no restart."""
    assert prober.all_settled() == []
    assert prober.probe() == {"ok": len(KINDS)}
    assert prober.violations() == []
    assert not server.is_gone()


def test_directories_that_cannot_be_written_refuse_effects_and_take_them_again(
    disk: Disk, data_dir: Path, start: Start, probe: Probe
) -> None:
    server = start(data_dir)
    prober = probe(server, data_dir)

    with disk.read_only():
        told = prober.probe()
    assert set(told) <= REFUSALS | {"ok"}, told
    assert REFUSALS & set(told), told

    assert prober.violations() == []
    assert_recovered(prober, server)
    assert list(invariants.intact(data_dir)) == []


def test_a_disk_that_the_kernel_has_given_up_loses_nothing_that_was_answered(
    disk: Disk, data_dir: Path, start: Start, probe: Probe
) -> None:
    first = start(data_dir)
    prober = probe(first, data_dir)
    assert prober.probe() == {"ok": len(KINDS)}
    disk.give_up()
    told = prober.probe() + prober.probe()
    assert set(told) <= REFUSALS | {"ok"}, told
    assert REFUSALS & set(told), told
    first.kill()
    disk.mount_again()

    second = start(data_dir)
    let_leases_lapse(data_dir / "control.db")
    prober.reconnect(second)

    assert prober.violations() == []
    assert_recovered(prober, second)
    assert list(invariants.intact(data_dir)) == []


def test_a_server_does_not_start_where_it_cannot_write_and_says_why(
    disk: Disk, template: tuple[Path, dict[str, str]], start: Start
) -> None:
    data_dir = Path(shutil.copytree(template[0], disk.path / "data"))
    with disk.read_only():
        ended = erp("serve", "--port", "0", "--data-dir", str(data_dir))

    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    reason = "The control plane's database cannot be opened: its directory is missing or cannot be written."
    assert ended.stderr.startswith(f"erp: {reason}"), ended.stderr
    assert not start(data_dir).is_gone()
