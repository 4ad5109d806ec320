"""SIGTERM and SIGINT: running calls end, nothing new begins, the process goes in time and says how."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
from tests.support.process import Server
from tests.support.wire import connected, request
from tests.system.conftest import DROP_IN, StartServer

PULL = "/providers/bus/log/pull"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def post(server: Server, path: str, params: dict[str, Any]) -> httpx2.Response:
    with server.client() as client:
        return client.post(path, json={"params": params})


def until_running(server: Server, calls: int) -> None:
    """Wait until the server is in the middle of so many calls."""
    with server.client("platform") as platform:
        while f"erp_calls_in_flight {calls}.0" not in platform.get("/metrics").text:
            assert server.process.poll() is None, server.log


def is_refused(server: Server) -> bool:
    """Whether nobody listens any more."""
    try:
        httpx2.get(f"{server.address}/healthz", trust_env=False)
    except (httpx2.ConnectError, httpx2.ReadError):  # reset: it was waiting to be accepted when the listening ended
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
        pull = pool.submit(post, server, PULL, {"topic": "demo.silence", "group": "g", "wait_seconds": 0.7})
        until_running(server, 1)

        server.signal(signal.SIGTERM)
        server.signal(signal.SIGTERM)  # as supervisors and the shells between them do
        until_refused(server)

        assert idle.ends()
        assert not pull.done()
        assert pull.result().json()["data"] == {"deliveries": []}
        assert pull.result().headers["connection"] == "close"
    assert server.ended() == 0
    assert "Traceback" not in server.log


def test_what_outlasts_the_limit_is_told_what_became_of_it(start_server: StartServer, furnished: Path) -> None:
    (furnished / "providers").symlink_to(DROP_IN)
    server = start_server(furnished, "--drain-seconds", "0")
    with ThreadPoolExecutor() as pool, connected(server.address) as stream:
        stream.send(request("/providers/db/paced/stream", server.keys["developer"], b'{"params":{"sql":"run"}}'))
        stream.head()
        pull = pool.submit(post, server, PULL, {"topic": "demo.silence", "group": "g", "wait_seconds": 20})
        count = pool.submit(post, server, "/providers/db/sqlite/query", {"sql": ENDLESS})
        until_running(server, 3)

        server.signal(signal.SIGTERM)

        problem = pull.result().json()
        assert (pull.result().status_code, problem["code"]) == (502, "outcome_unknown")
        assert "shutting down" in problem["detail"]
        assert (count.result().status_code, count.result().json()["retryable"]) == (503, True)
        assert count.result().headers["retry-after"] == "1"
        last = json.loads(stream.line())["problem"]
        assert (last["code"], last["detail"]) == ("unavailable", "The layer is shutting down.")
        assert stream.line() == b""
    assert server.ended() == 0
    assert [line["code"] for line in server.call_lines()] == ["cancelled"] * 3
    assert (furnished / "tenants" / "acme" / "db" / "paced" / "default" / "run.closed").exists()
    assert "Traceback" not in server.log


def test_interrupting_once_more_does_not_wait_for_running_calls(start_server: StartServer, furnished: Path) -> None:
    server = start_server(furnished)
    with ThreadPoolExecutor() as pool:
        pull = pool.submit(post, server, PULL, {"topic": "demo.silence", "group": "g", "wait_seconds": 20})
        until_running(server, 1)
        server.signal(signal.SIGINT)
        until_refused(server)
        assert not pull.done()

        server.signal(signal.SIGINT)

        assert pull.result().status_code == 502
    assert server.ended() == 0
    assert "Traceback" not in server.log
