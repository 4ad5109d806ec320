"""SIGKILL in the middle of effectful calls, and what callers and auditors find after the restart."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.process import Server

from erp.control_plane import ControlPlane
from erp.security.audit import Verdict, Verification

EXECUTE, QUERY, SUBMIT = "/providers/db/sqlite/execute", "/providers/db/sqlite/query", "/services/order/submit"
CALLERS = 3
ENOUGH = 40


@dataclass
class Requests:
    """What was sent before the kill, by idempotency key, and the answers that came."""

    sent: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    answered: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to(self, path: str, *, answered: bool) -> list[str]:
        """The keys of the requests to ``path`` that were answered, or were not."""
        return [key for key, (where, _) in self.sent.items() if where == path and (key in self.answered) is answered]


@dataclass
class Survivor:
    """The server after its restart, and what was asked of it in its first life."""

    server: Server
    requests: Requests

    def repeat(self, key: str) -> httpx2.Response:
        """Send the request of ``key`` again."""
        path, params = self.requests.sent[key]
        with self.server.client() as client:
            return client.post(path, json={"params": params}, headers={"idempotency-key": key})

    def counts(self, column: str, table: str) -> Counter[str]:
        """How many rows hold each value."""
        with self.server.client() as client:
            answer = client.post(QUERY, json={"params": {"sql": f"SELECT {column} FROM {table}", "max_rows": 10_000}})
        return Counter(row[0] for row in answer.json()["data"]["rows"])

    def marks(self) -> Counter[str]:
        """The rows of insertions."""
        return self.counts("mark", "marks")

    def orders(self) -> Counter[str]:
        """The rows of orders."""
        return self.counts("customer_reference", "orders")


def insertion(key: str) -> tuple[str, dict[str, Any]]:
    return EXECUTE, {"sql": "INSERT INTO marks (mark) VALUES (?)", "parameters": [key]}


def order(key: str) -> tuple[str, dict[str, Any]]:
    line = {"sku": "S-1", "quantity": "2", "unit_price": "19.90"}
    facts = {"currency": "EUR", "order_date": "2026-11-23", "lines": [line], "total": "39.80"}
    return SUBMIT, {"customer_reference": key, "customer": {"id": "C-1", "name": "Ada"}, **facts}


def keep_calling(server: Server, requests: Requests, caller: int) -> None:
    """Send effectful requests, each with its own key, until the server is gone."""
    make = order if caller == 0 else insertion
    with server.client() as client:
        for number in itertools.count():
            key = f"k-{caller}-{number}"
            path, params = requests.sent[key] = make(key)
            try:
                answer = client.post(path, json={"params": params}, headers={"idempotency-key": key})
            except httpx2.TransportError:
                return
            assert answer.status_code == 200, answer.text
            requests.answered[key] = answer.json()["data"]


def kill_amid_calls(server: Server) -> Requests:
    """Kill the server while callers are in the middle of requests."""
    requests = Requests()
    with server.client() as client:
        made = client.post(EXECUTE, json={"params": {"sql": "CREATE TABLE marks (mark TEXT)"}})
        assert made.status_code == 200, made.text
    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(keep_calling, server, requests, caller) for caller in range(CALLERS)]
        while len(requests.answered) < ENOUGH and not any(caller.done() for caller in callers):
            time.sleep(0.001)
        server.kill()
        for caller in callers:
            caller.result()
    return requests


def let_leases_lapse(data_dir: Path) -> None:
    """Do what fifteen seconds do: nobody believes any more that the killed process still runs its calls."""
    with sqlite3.connect(data_dir / "control.db") as control:
        control.execute("UPDATE owners SET alive_until = 0")
    control.close()


@pytest.fixture(scope="module")
def survivor(first_keys: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survivor]:
    """A server that was killed amid calls and started again on what it left."""
    data_dir = tmp_path_factory.mktemp("crash") / "data"
    shutil.copytree(first_keys[0], data_dir)
    server = Server(data_dir)
    try:
        server.keys |= first_keys[1]
        requests = kill_amid_calls(server.ready())
    finally:
        server.kill()
    let_leases_lapse(data_dir)
    server = Server(data_dir)
    try:
        server.keys |= first_keys[1]
        yield Survivor(server.ready(), requests)
    finally:
        server.kill()


def test_the_same_key_replays_the_stored_answer(survivor: Survivor) -> None:
    for key in survivor.requests.to(EXECUTE, answered=True)[:5] + survivor.requests.to(SUBMIT, answered=True)[:5]:
        again = survivor.repeat(key)
        assert (again.status_code, again.json()["meta"]["replayed"]) == (200, True)
        assert again.json()["data"] == survivor.requests.answered[key]


def test_a_key_is_still_refused_for_another_request(survivor: Survivor) -> None:
    key = survivor.requests.to(EXECUTE, answered=True)[0]
    with survivor.server.client() as client:
        path, params = insertion("another")
        refused = client.post(path, json={"params": params}, headers={"idempotency-key": key})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_argument")
    assert survivor.marks()["another"] == 0


def test_what_was_answered_is_there_exactly_once(survivor: Survivor) -> None:
    marks, orders = survivor.marks(), survivor.orders()
    assert {marks[key] for key in survivor.requests.to(EXECUTE, answered=True)} == {1}
    assert {orders[key] for key in survivor.requests.to(SUBMIT, answered=True)} == {1}
    assert {*marks.values(), *orders.values()} == {1}


def test_an_unanswered_insertion_is_never_doubled_by_repeating_it(survivor: Survivor) -> None:
    """It cannot be known to have happened, so it is not run again: the caller is told to look."""
    keys = survivor.requests.to(EXECUTE, answered=False)
    assert len(keys) == CALLERS - 1
    for key in keys:
        before = survivor.marks()[key]
        first, second = survivor.repeat(key), survivor.repeat(key)
        if first.status_code == 200:
            assert second.json()["meta"]["replayed"] is True
            assert survivor.marks()[key] == 1
        else:
            assert [first.json()["code"], second.json()["code"]] == ["outcome_unknown", "outcome_unknown"]
            assert survivor.marks()[key] == before <= 1


def test_an_unanswered_order_is_taken_in_once_by_repeating_it(survivor: Survivor) -> None:
    (key,) = survivor.requests.to(SUBMIT, answered=False)

    first, second = survivor.repeat(key), survivor.repeat(key)

    assert (first.status_code, second.status_code) == (200, 200), first.text
    assert second.json()["meta"]["replayed"] is True
    assert second.json()["data"] == first.json()["data"]
    assert survivor.orders()[key] == 1


def test_the_audit_chain_is_whole_and_knows_every_answered_call(survivor: Survivor) -> None:
    records = audit_records(survivor.server)

    assert [record["seq"] for record in records] == list(range(len(records), 0, -1))
    assert records[-1]["prev_hash"] == "00" * 32
    for later, earlier in itertools.pairwise(records):
        assert later["prev_hash"] == earlier["hash"]
    done = [record["target"] for record in records if record["outcome"] == "ok"]
    assert done.count("db/sqlite.execute") >= 1 + len(survivor.requests.to(EXECUTE, answered=True))
    assert done.count("order.submit") >= len(survivor.requests.to(SUBMIT, answered=True))
    verdict = asyncio.run(verified(survivor.server.data_dir))
    assert (verdict.is_whole, verdict.checked >= len(records)) == (True, True), verdict.reason


def audit_records(server: Server) -> list[dict[str, Any]]:
    """All records of acme, newest first, by the pages a caller gets."""
    found: list[dict[str, Any]] = []
    query: dict[str, str] = {"limit": "200"}
    with server.client("admin") as admin:
        while True:
            page = admin.get("/audit", params=query).json()
            found += page["items"]
            if "next_cursor" not in page:
                return found
            query["cursor"] = page["next_cursor"]


async def verified(data_dir: Path) -> Verdict:
    """Check the hashes themselves, while the server runs."""
    control = await ControlPlane.open(data_dir, pepper=b"pepper of nobody, 32 bytes long.")
    try:
        return await Verification(control, "acme", [], []).run()
    finally:
        await control.close()
