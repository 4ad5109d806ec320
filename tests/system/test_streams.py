"""Streaming answers of a running server: row by row, to the end, to a failure, to nobody."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.process import Server
from tests.support.wire import Wire, connected, request

STREAM, QUERY = "/providers/db/paced/stream", "/providers/db/paced/query"
PATIENCE_SECONDS = 30.0


class Pace:
    """Lets the steps of one run of ``db/paced`` happen."""

    def __init__(self, server: Server, run: str) -> None:
        self._folder = server.data_dir / "tenants" / "acme" / "db" / "paced" / "default"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = run
        self._number = 0

    def step(self, what: str) -> None:
        """Let the next step be ``row``, ``fail`` or ``end``."""
        draft = self._folder / f"{self._run}.draft"
        draft.write_text(what)
        draft.rename(self._folder / f"{self._run}.{self._number}")
        self._number += 1

    def wait_until_closed(self) -> None:
        """Wait until the provider's generator has ended."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not (self._folder / f"{self._run}.closed").exists():
            assert time.monotonic() < until, "the provider's generator was not closed"
            time.sleep(0.01)


@pytest.fixture
def pace(shared: Server, request: pytest.FixtureRequest) -> Pace:
    return Pace(shared, request.node.originalname)


@pytest.fixture
def stream(shared: Server, request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A connection on which the run named like the test streams as NDJSON."""
    with connected(shared.address) as wire:
        begin(wire, shared.keys["developer"], request.node.originalname)
        yield wire


def begin(wire: Wire, key: str, run: str, **headers: str) -> None:
    body = json.dumps({"params": {"sql": run}}).encode()
    wire.send(request(STREAM, key, body, **headers))


def problem_item(line: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line)["problem"]
    return found


def assert_free(client: httpx2.Client) -> None:
    """The only place of ``db/paced`` is not taken."""
    answer = client.post(QUERY, json={"params": {"sql": "free"}}, headers={"prefer": "wait=5"})
    assert answer.status_code == 200, answer.text


def test_rows_arrive_one_by_one_as_ndjson(pace: Pace, stream: Wire, client: httpx2.Client) -> None:
    status, headers = stream.head()
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    for number in range(3):
        pace.step("row")
        assert stream.line() == b'{"rows":[[%d]]}\n' % number
    pace.step("end")
    assert stream.line() == b""
    pace.wait_until_closed()
    assert_free(client)


def test_rows_arrive_one_by_one_as_server_sent_events(pace: Pace, shared: Server, client: httpx2.Client) -> None:
    with connected(shared.address) as wire:
        run = "test_rows_arrive_one_by_one_as_server_sent_events"
        begin(wire, shared.keys["developer"], run, Accept="text/event-stream")
        status, headers = wire.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        for number in range(2):
            pace.step("row")
            assert wire.line() == b'event: item\ndata: {"rows":[[%d]]}\n\n' % number
        pace.step("fail")
        kind, data, *_ = wire.line().split(b"\n")
        assert kind == b"event: problem"
        assert problem_item(data.removeprefix(b"data: "))["code"] == "unavailable"
        assert wire.line() == b""
    assert_free(client)


def test_a_failure_in_the_middle_is_the_last_item(
    pace: Pace, stream: Wire, shared: Server, client: httpx2.Client
) -> None:
    status, headers = stream.head()
    pace.step("row")
    assert (status, stream.line()) == (200, b'{"rows":[[0]]}\n')

    pace.step("fail")

    problem = problem_item(stream.line())
    assert (problem["code"], problem["detail"]) == ("unavailable", "The paced database went away.")
    assert problem["correlation_id"] == headers["x-request-id"]
    assert stream.line() == b""
    pace.wait_until_closed()
    assert_free(client)
    stream.send(request(QUERY, shared.keys["developer"], b'{"params":{"sql":"x"}}'))
    assert stream.answer().status == 200, "the connection can be used on"


def test_a_caller_that_goes_away_ends_the_provider_and_frees_its_place(
    pace: Pace, stream: Wire, client: httpx2.Client
) -> None:
    stream.head()
    pace.step("row")
    assert stream.line() == b'{"rows":[[0]]}\n'

    stream.close()

    pace.wait_until_closed()
    assert_free(client)


def test_a_caller_that_goes_away_before_the_first_row_leaves_nothing_open(
    pace: Pace, stream: Wire, client: httpx2.Client
) -> None:
    stream.head()
    stream.close()
    pace.wait_until_closed()
    assert_free(client)


def test_rows_of_a_real_table_arrive_in_the_items_asked_for(client: httpx2.Client) -> None:
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT i FROM n"
    body = {"params": {"sql": sql, "rows_per_item": 2}}
    with client.stream("POST", "/providers/db/sqlite/stream", json=body) as answer:
        items = [json.loads(line) for line in answer.iter_lines()]
    assert items == [{"columns": [{"name": "i"}]}, {"rows": [[1], [2]]}, {"rows": [[3], [4]]}, {"rows": [[5]]}]


def test_a_stream_of_a_wrong_statement_says_so(client: httpx2.Client) -> None:
    answer = client.post("/providers/db/sqlite/stream", json={"params": {"sql": "select * from nowhere"}})

    assert problem_item(answer.content)["code"] in {"not_found", "failed_precondition", "invalid_argument"}
    refused = client.post("/providers/db/sqlite/stream", json={"params": {}})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/params/sql")


def test_a_stream_that_has_nothing_to_say_shows_that_it_is_alive(pace: Pace, stream: Wire) -> None:
    stream.head()
    assert stream.line() == b"\n"  # after fifteen seconds; an empty line is no item
    pace.step("row")
    assert stream.line() == b'{"rows":[[0]]}\n'
    pace.step("end")
    assert stream.line() == b""
    pace.wait_until_closed()


def test_a_reader_that_does_not_read_makes_the_provider_wait_and_costs_no_memory(
    shared: Server, client: httpx2.Client
) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, hex(zeroblob(500)) FROM n"
    body = json.dumps({"params": {"sql": endless, "rows_per_item": 100}}).encode()
    with connected(shared.address) as wire:
        wire.send(request("/providers/db/sqlite/stream", shared.keys["developer"], body))
        wire.head()
        wire.line()
        before = resident_bytes(shared)
        used = cpu_ticks(shared)
        time.sleep(3)
        assert resident_bytes(shared) - before < 20_000_000
        assert cpu_ticks(shared) - used < 100, "a provider that waits does not work for a second of three"
        rows = [json.loads(wire.line())["rows"] for _ in range(50)]
    numbers = [row[0] for page in rows for row in page]
    assert numbers == list(range(1, 5001))
    found = client.post("/providers/db/sqlite/query", json={"params": {"sql": "SELECT 1"}})
    assert found.status_code == 200


def resident_bytes(server: Server) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def cpu_ticks(server: Server) -> int:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
