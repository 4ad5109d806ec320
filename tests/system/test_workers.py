"""Several processes behind one address keep the promises of one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.counting_peer import CountingPeer, counting_peer
from tests.support.process import Server, erp
from tests.system.conftest import StartServer
from tests.system.limited import CHECKS, EGRESS, Limited

INSERT = "INSERT INTO t (n) VALUES (?)"


@pytest.fixture(scope="module")
def server(first_keys: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, for tests that leave them as they are."""
    data_dir = shutil.copytree(first_keys[0], tmp_path_factory.mktemp("workers") / "data")
    made = Server(data_dir, "--workers", "2", environment=EGRESS)
    made.keys |= first_keys[1]
    yield made.ready()
    made.kill()


def call(server: Server, path: str, params: dict[str, Any], **headers: str) -> httpx2.Response:
    """Send a call over a connection of its own, so that any worker may get it."""
    own = {"Authorization": f"Bearer {server.keys['developer']}", **headers}
    return httpx2.post(f"{server.address}{path}", json={"params": params}, headers=own, timeout=8)


def workers(server: Server) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def at_once(count: int, work: Any) -> list[Any]:
    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(work, range(count)))


def test_keys_limits_and_data_are_those_of_one_process(server: Server) -> None:
    assert len(workers(server)) == 2
    made = call(server, "/providers/db/sqlite/execute", {"sql": "CREATE TABLE t (n INTEGER)"})
    assert made.status_code == 200, made.text

    def insert(number: int) -> int:
        key = {"Idempotency-Key": f"k{number % 10}"}
        while True:
            answer = call(server, "/providers/db/sqlite/execute", {"sql": INSERT, "parameters": [number % 10]}, **key)
            if answer.status_code != 409:
                return answer.status_code
            time.sleep(0.02)

    assert Counter(at_once(60, insert)) == {200: 60}
    counted = call(server, "/providers/db/sqlite/query", {"sql": "SELECT count(*), count(DISTINCT n) FROM t"})
    assert counted.json()["data"]["rows"] == [[10, 10]]

    with server.client("admin") as admin:
        rate = {"rate": {"requests": 20, "period_seconds": 1, "burst": 20}}
        assert admin.patch("/tenants/acme", json={"policy": rate}).status_code == 200
    time.sleep(2.5)  # both processes have noticed
    began = time.monotonic()
    statuses = Counter(
        at_once(150, lambda _: call(server, "/providers/storage/filesystem/head", {"key": "k"}).status_code)
    )
    most = 20 + 20 * (time.monotonic() - began + 0.3)
    assert set(statuses) <= {200, 429}
    assert 15 <= statuses[200] <= most

    with server.client("admin") as admin:
        assert admin.patch("/tenants/acme", json={"policy": {}}).status_code == 200
    ends = time.monotonic() + 30  # until both have noticed; one answer may be what is left of the rate
    while 429 in at_once(80, lambda _: call(server, "/providers/storage/filesystem/head", {"key": "k"}).status_code):
        assert time.monotonic() < ends


@pytest.mark.timeout(120)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_limit_of_a_connection_holds_for_all_workers(
    server: Server, check: Callable[[Limited, CountingPeer], None]
) -> None:
    with counting_peer() as peer:
        check(Limited([server], peer, check.__name__.replace("_", "-")), peer)


def test_what_lives_in_one_process_is_refused_with_the_remedy(server: Server) -> None:
    refused = call(server, "/providers/cache/memory/get", {"key": "k"})

    assert (refused.status_code, refused.json()["code"]) == (412, "failed_precondition")
    assert "this layer runs 2" in refused.json()["detail"]
    with server.client("admin") as admin:
        configured = admin.post("/providers/cache/memory/configure", json={"connection": "x"})
        assert configured.status_code == 412


def test_an_address_in_use_is_explained(server: Server) -> None:
    port = server.address.rpartition(":")[2]

    ended = erp("serve", "--workers", "2", "--port", port, "--data-dir", str(server.data_dir))

    assert ended.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in ended.stderr


@pytest.mark.parametrize("text", ["0", "many", "1000"])
def test_a_wrong_number_of_processes_is_explained(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_PROCESSES", text)

    ended = erp("serve", "--port", "0", "--data-dir", str(tmp_path))

    assert ended.returncode == 1
    assert "ERP_PROCESSES is" in ended.stderr


def test_a_worker_that_dies_is_replaced_and_all_end_when_told(furnished: Path, start_server: StartServer) -> None:
    server = start_server(furnished, "--workers", "2")
    victim, other = workers(server)
    os.kill(victim, signal.SIGKILL)

    statuses = Counter[int]()
    ends = time.monotonic() + 15
    while len(set(workers(server)) - {victim}) < 2 or statuses[200] < 30:
        assert time.monotonic() < ends, server.log
        try:
            statuses[call(server, "/providers/storage/filesystem/head", {"key": "k"}).status_code] += 1
        except httpx2.TransportError:
            statuses[0] += 1  # what the killed one had accepted
    assert other in workers(server)
    assert statuses[200] >= 30
    assert statuses[0] <= 1
    assert f"worker {victim} ended with -9; starting another" in server.log

    pids = workers(server)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(25) == 0, server.log
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_end_when_the_process_that_started_them_was_killed(furnished: Path, start_server: StartServer) -> None:
    server = start_server(furnished, "--workers", "2")
    pids = workers(server)

    server.process.kill()

    ends = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < ends
        time.sleep(0.05)
