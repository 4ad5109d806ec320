"""Two servers on one PostgreSQL keep the promises of one, also when one of them is killed amid calls."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.conftest import _execute
from tests.support.process import Server

INSERT = "INSERT INTO marks (mark) VALUES (?)"
EXECUTE, QUERY = "/providers/db/sqlite/execute", "/providers/db/sqlite/query"
PATIENCE_SECONDS = 60.0

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    """A database of its own on the PostgreSQL that ``ERP_TEST_POSTGRES`` names."""
    server = os.environ.get("ERP_TEST_POSTGRES")
    if not server:
        pytest.skip("needs PostgreSQL: set ERP_TEST_POSTGRES")
    name = f"erp_two_servers_{uuid.uuid4().hex[:12]}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name}"))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="module")
def servers(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two servers with one data directory and one control plane; the second may be killed by the last test."""
    data_dir: Path = tmp_path_factory.mktemp("two") / "data"
    environment = {"ERP_DATABASE_URL": database_url, "ERP_PROCESSES": "2"}
    made = [Server(data_dir, environment=environment).ready()]
    try:
        made[0].furnish()
        made.append(Server(data_dir, environment=environment).ready())
        made[1].keys |= made[0].keys
        answer = call(made[0], EXECUTE, {"sql": "CREATE TABLE marks (mark TEXT)"})
        assert answer.status_code == 200, answer.text
        yield made
    finally:
        for server in made:
            server.kill()


def call(server: Server, path: str, params: dict[str, Any], **headers: str) -> httpx2.Response:
    own = {"Authorization": f"Bearer {server.keys['developer']}", **headers}
    return httpx2.post(f"{server.address}{path}", json={"params": params}, headers=own, timeout=30)


def marked(server: Server, like: str) -> list[str]:
    found = call(server, QUERY, {"sql": "SELECT mark FROM marks WHERE mark LIKE ? ORDER BY mark", "parameters": [like]})
    return [row[0] for row in found.json()["data"]["rows"]]


def until_answered(server: Server, path: str, params: dict[str, Any], key: str) -> httpx2.Response:
    """Repeat a call with its key while it is said to be running or the server cannot take it."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = call(server, path, params, **{"Idempotency-Key": key})
        if answer.json().get("code") not in {"conflict", "unavailable"} or time.monotonic() > ends:
            return answer
        time.sleep(0.05)


def test_a_key_that_one_server_answered_is_replayed_by_the_other(servers: list[Server]) -> None:
    params = {"sql": INSERT, "parameters": ["replayed"]}
    first, second = (call(server, EXECUTE, params, **{"Idempotency-Key": "one"}) for server in servers)

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.json()["meta"]["replayed"] is True
    assert first.json()["data"] == second.json()["data"]
    assert marked(servers[1], "replayed") == ["replayed"]


def test_calls_with_one_key_at_both_take_effect_once(servers: list[Server]) -> None:
    def insert(number: int) -> int:
        key = f"both-{number % 10}"
        params = {"sql": INSERT, "parameters": [key]}
        return until_answered(servers[number % 2], EXECUTE, params, key).status_code

    with ThreadPoolExecutor(16) as threads:
        assert Counter(threads.map(insert, range(60))) == {200: 60}
    assert marked(servers[0], "both-%") == [f"both-{number}" for number in range(10)]


def test_events_of_both_are_delivered_once_and_in_order_of_their_key(servers: list[Server]) -> None:
    topic = "provider.events.secrets.local.rotated"
    with servers[0].client("admin") as admin:
        assert (
            admin.post("/providers/secrets/local/put", json={"params": {"path": "p", "value": "0"}}).status_code == 200
        )
    for number in range(20):
        with servers[number % 2].client("admin") as admin:
            rotated = admin.post(
                "/providers/secrets/local/rotate", json={"params": {"path": "p", "value": str(number)}}
            )
            assert rotated.status_code == 200, rotated.text

    received: list[tuple[str, int]] = []
    ends = time.monotonic() + PATIENCE_SECONDS
    while len(received) < 20 and time.monotonic() < ends:
        pulled = call(servers[1], "/providers/bus/log/pull", {"topic": topic, "group": "g", "wait_seconds": 1})
        deliveries = pulled.json()["data"]["deliveries"]
        received += [(item["event"]["id"], item["event"]["data"]["version"]) for item in deliveries]
        call(
            servers[1], "/providers/bus/log/ack", {"ack_ids": [item["ack_id"] for item in deliveries]}
        ) if deliveries else None

    assert [version for _, version in received] == list(range(2, 22))
    assert len({id_ for id_, _ in received}) == 20


def test_what_lives_in_one_process_is_refused_with_the_remedy(servers: list[Server]) -> None:
    for server in servers:
        refused = call(server, "/providers/cache/memory/get", {"key": "k"})
        assert (refused.status_code, refused.json()["code"]) == (412, "failed_precondition")
        assert "this layer runs 2" in refused.json()["detail"]


def test_the_rate_limit_of_a_tenant_holds_for_both_together(servers: list[Server]) -> None:
    with servers[0].client("admin") as admin:
        rate = {"rate": {"requests": 20, "period_seconds": 1, "burst": 20}}
        assert admin.patch("/tenants/acme", json={"policy": rate}).status_code == 200
        time.sleep(2.5)  # both have noticed
        began = time.monotonic()
        with ThreadPoolExecutor(16) as threads:
            answers = threads.map(
                lambda n: call(servers[n % 2], "/providers/storage/filesystem/head", {"key": "k"}), range(150)
            )
            statuses = Counter(answer.status_code for answer in answers)
        most = 20 + 20 * (time.monotonic() - began + 0.3)
        time.sleep(2)
        assert admin.patch("/tenants/acme", json={"policy": {}}).status_code == 200
    assert set(statuses) <= {200, 429}
    assert 15 <= statuses[200] <= most


def test_calls_of_a_server_that_was_killed_are_ended_by_the_other(servers: list[Server]) -> None:
    time.sleep(2.5)  # the limit of the test before is no more
    victim, survivor = servers[1], servers[0]
    told: dict[int, str] = {}

    def insert(number: int) -> None:
        try:
            answer = call(
                victim,
                EXECUTE,
                {"sql": INSERT, "parameters": [f"killed-{number:02}"]},
                **{"Idempotency-Key": f"killed-{number}"},
            )
        except httpx2.TransportError:
            return
        told[number] = answer.json().get("code", "ok")

    with ThreadPoolExecutor(16) as threads:
        sent = [threads.submit(insert, number) for number in range(64)]
        while not told:
            time.sleep(0.001)
        victim.kill()
        for each in sent:
            each.result()
    assert set(told.values()) == {"ok"}

    for number in range(64):
        params = {"sql": INSERT, "parameters": [f"killed-{number:02}"]}
        ended = until_answered(survivor, EXECUTE, params, f"killed-{number}")
        told[number] = "replayed" if ended.json().get("meta", {}).get("replayed") else ended.json().get("code", "ok")
    counted = Counter(marked(survivor, "killed-%"))
    assert set(counted.values()) == {1}
    assert set(told.values()) <= {"ok", "replayed", "outcome_unknown"}
    certain = [number for number, code in told.items() if code != "outcome_unknown"]
    assert all(counted[f"killed-{number:02}"] == 1 for number in certain)
