"""SIGTERM and SIGINT: running calls end, nothing new begins, the process goes in time and says how."""

from __future__ import annotations

import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.process import Server
from tests.support.wire import connected, request
from tests.system.conftest import StartServer

PULL = "/providers/bus/log/pull"


def pulling(server: Server, pool: ThreadPoolExecutor, seconds: float) -> Future[httpx2.Response]:
    """Begin a call that waits ``seconds`` for an event that never comes; return when it is running."""
    params = {"topic": "demo.silence", "group": "g", "wait_seconds": seconds}

    def pull() -> httpx2.Response:
        with server.client() as client:
            return client.post(PULL, json={"params": params})

    begun = pool.submit(pull)
    with server.client("platform") as platform:
        while "erp_calls_in_flight 1.0" not in platform.get("/metrics").text:
            assert not begun.done(), begun.result().text
    return begun


def is_refused(server: Server) -> bool:
    """Whether nobody listens any more."""
    try:
        httpx2.get(f"{server.address}/healthz", trust_env=False)
    except httpx2.ConnectError:
        return True
    return False


def until_refused(server: Server) -> None:
    """Wait until the server takes no new connections."""
    while not is_refused(server):
        assert server.process.poll() is None, server.log
        time.sleep(0.02)


def test_a_running_call_gets_its_answer_while_new_connections_are_refused(
    start_server: StartServer, furnished: Path
) -> None:
    server = start_server(furnished)
    with ThreadPoolExecutor() as pool, connected(server.address) as idle:
        idle.send(request("/healthz", method="GET"))
        assert idle.answer().status == 200
        begun = pulling(server, pool, 1.0)

        server.signal(signal.SIGTERM)
        server.signal(signal.SIGTERM)  # as supervisors and the shells between them do
        until_refused(server)

        assert idle.ends()
        assert not begun.done()
        assert begun.result().json()["data"] == {"deliveries": []}
        assert begun.result().headers["connection"] == "close"
    assert server.ended() == 0
    assert "Traceback" not in server.log


def test_a_call_that_outlasts_the_limit_is_told_that_its_outcome_is_unknown(
    start_server: StartServer, furnished: Path
) -> None:
    server = start_server(furnished, "--drain-seconds", "0")
    with ThreadPoolExecutor() as pool:
        begun = pulling(server, pool, 20)

        server.signal(signal.SIGTERM)

        problem: dict[str, Any] = begun.result().json()
        assert (begun.result().status_code, problem["code"]) == (502, "outcome_unknown")
        assert "shutting down" in problem["detail"]
    assert server.ended() == 0
    assert server.call_lines()[-1]["code"] == "cancelled"
    assert "Traceback" not in server.log


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_interrupting_once_more_does_not_wait_for_running_calls(
    start_server: StartServer, furnished: Path, first: int
) -> None:
    server = start_server(furnished)
    with ThreadPoolExecutor() as pool:
        begun = pulling(server, pool, 20)
        server.signal(first)
        until_refused(server)

        server.signal(signal.SIGINT)

        assert begun.result().status_code == 502
    assert server.ended() == 0
    assert "Traceback" not in server.log


def test_a_statement_that_never_ends_does_not_keep_the_process(start_server: StartServer, furnished: Path) -> None:
    server = start_server(furnished, "--drain-seconds", "0")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def count() -> httpx2.Response:
        with server.client() as client:
            return client.post("/providers/db/sqlite/query", json={"params": {"sql": endless}})

    with ThreadPoolExecutor() as pool:
        begun = pool.submit(count)
        with server.client("platform") as platform:
            while "erp_calls_in_flight 1.0" not in platform.get("/metrics").text:
                assert not begun.done()

        server.signal(signal.SIGTERM)

        assert begun.result().status_code == 503
        assert begun.result().json()["retryable"] is True
        assert begun.result().headers["retry-after"] == "1"
    assert server.ended() == 0
