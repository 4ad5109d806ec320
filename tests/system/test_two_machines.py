"""Two gateways with nothing in common but a PostgreSQL keep the promises of one: keys, limits, quotas, effects, changes."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.support.counting_peer import CountingPeer, counting_peer
from tests.support.process import Server
from tests.system.limited import CHECKS, EGRESS, Limited

pytestmark = pytest.mark.live

PAIR = 2
SEEN_SECONDS = 1.0
"""When a change at one gateway holds at the other, at the latest."""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """An empty database of its own."""
    server = os.environ.get("ERP_TEST_POSTGRES")
    if not server:
        pytest.skip("two machines need ERP_TEST_POSTGRES")
    name = f"erp_two_machines_{uuid.uuid4().hex[:12]}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name}"))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        asyncio.run(_execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def machines(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two gateways, each with a data directory of its own and the same secrets of the platform."""
    secrets = {name: base64.b64encode(os.urandom(32)).decode() for name in ("ERP_KEK", "ERP_PEPPER")}
    environment = {**secrets, **EGRESS, "ERP_DATABASE_URL": database, "ERP_PROCESSES": str(PAIR)}
    folders: list[Path] = [tmp_path_factory.mktemp(f"machine-{number}") for number in range(PAIR)]
    first = Server(folders[0], environment=environment).ready().furnish()
    second = Server(folders[1], environment=environment).ready()
    second.keys |= first.keys
    yield first, second
    for one in (first, second):
        one.kill()


def call(server: Server, path: str, params: dict[str, Any], **headers: str) -> httpx2.Response:
    own = {"Authorization": f"Bearer {server.keys['developer']}", **headers}
    return httpx2.post(f"{server.address}/providers/{path}", json={"params": params}, headers=own, timeout=30)


def at_once(count: int, work: Any) -> list[Any]:
    with ThreadPoolExecutor(12) as threads:
        return list(threads.map(work, range(count)))


def put_secret(server: Server, path: str, value: str, key: str) -> httpx2.Response:
    return call(server, "secrets/local/put", {"path": path, "value": value}, **{"Idempotency-Key": key})


def versions(server: Server, path: str) -> int:
    answer = call(server, "secrets/local/list_versions", {"path": path})
    return 0 if answer.status_code == 404 else len(answer.json()["data"]["versions"])


def test_the_second_machine_makes_no_tenants_keys_or_tables_anew(machines: tuple[Server, Server]) -> None:
    first, second = machines

    assert second.first_key is None
    with second.client("platform") as platform:
        assert "acme" in {one["id"] for one in platform.get("/tenants").json()["items"]}
    with first.client("developer") as one, second.client("developer") as other:
        assert one.get("/readyz").status_code == other.get("/readyz").status_code == 200


def test_one_key_has_one_effect_whichever_machine_is_asked(machines: tuple[Server, Server]) -> None:
    def send(number: int) -> tuple[int, int | None]:
        while True:
            answer = put_secret(machines[number % PAIR], "shared/effect", "v", "one-effect")
            if answer.status_code != 409:
                return answer.status_code, answer.json()["data"]["version"]
            time.sleep(0.02)

    assert set(at_once(24, send)) == {(200, 1)}
    assert versions(machines[1], "shared/effect") == 1


def test_a_key_of_one_machine_is_replayed_and_protected_by_the_other(machines: tuple[Server, Server]) -> None:
    first, second = machines
    assert put_secret(first, "shared/replay", "v", "replayed").status_code == 200

    again, other = (
        put_secret(second, "shared/replay", "v", "replayed"),
        put_secret(second, "shared/replay", "w", "replayed"),
    )

    assert (again.status_code, again.json()["meta"]["replayed"]) == (200, True)
    assert other.status_code == 422
    assert versions(first, "shared/replay") == 1


def test_changes_of_configuration_and_keys_are_seen_by_the_other_within_a_second(
    machines: tuple[Server, Server],
) -> None:
    first, second = machines
    named = {"X-Connection": "made-elsewhere"}
    assert call(second, "secrets/local/list", {}, **named).status_code == 404
    with first.client("admin") as admin:
        assert (
            admin.post("/providers/secrets/local/configure", json={"connection": "made-elsewhere"}).status_code == 200
        )
        targets = [{"provider": "local", "connection": "made-elsewhere"}]
        assert admin.put("/routes/secrets/main-vault", json={"kind": "single", "targets": targets}).status_code == 200
        made = admin.post("/keys", json={"role": "developer"}).json()
    time.sleep(SEEN_SECONDS)
    assert call(second, "secrets/local/list", {}, **named).status_code == 200
    assert call(second, "secrets/main-vault/list", {}).json()["meta"]["connection"] == "made-elsewhere"
    own = {"Authorization": f"Bearer {made['key']}"}
    assert call(second, "secrets/local/list", {}, **own).status_code == 200

    with first.client("admin") as admin:
        assert admin.delete(f"/keys/{made['id']}").status_code == 204
        assert admin.delete("/routes/secrets/main-vault").status_code == 204
        assert admin.delete("/providers/secrets/local/configure?connection=made-elsewhere").status_code == 204
    time.sleep(SEEN_SECONDS)

    assert call(second, "secrets/local/list", {}, **own).status_code == 401
    assert call(second, "secrets/local/list", {}, **named).status_code == 404
    assert call(second, "secrets/main-vault/list", {}).status_code == 404


def test_a_limit_of_a_tenant_is_one_limit(machines: tuple[Server, Server]) -> None:
    first, second = machines
    rate = {"rate": {"requests": 20, "period_seconds": 1, "burst": 20}}
    with first.client("admin") as admin:
        assert admin.patch("/tenants/acme", json={"policy": rate}).status_code == 200
    time.sleep(SEEN_SECONDS + 1.0)  # for both, and until the bucket is as the new limit says
    began = time.monotonic()
    try:
        statuses = Counter(
            at_once(120, lambda number: call(machines[number % PAIR], "secrets/local/list", {}).status_code)
        )
        passed = time.monotonic() - began
    finally:
        time.sleep(SEEN_SECONDS)
        with second.client("admin") as admin:
            assert admin.patch("/tenants/acme", json={"policy": {}}).status_code == 200
        time.sleep(SEEN_SECONDS)

    assert set(statuses) <= {200, 429}
    assert 15 <= statuses[200] <= 20 + 20 * (passed + 0.3)


def test_a_quota_is_used_up_once(machines: tuple[Server, Server]) -> None:
    first, second = machines
    with first.client("platform") as platform:
        used = platform.put("/quotas/day?tenant=acme", json={"limit": 1_000_000}).json()["used"]
        limit = used + 10 + PAIR
        assert platform.put("/quotas/day?tenant=acme", json={"limit": limit}).status_code == 200
    time.sleep(SEEN_SECONDS)
    try:
        statuses = Counter(
            at_once(60, lambda number: call(machines[number % PAIR], "secrets/local/list", {}).status_code)
        )
    finally:
        with second.client("platform") as platform:
            assert platform.delete("/quotas/day?tenant=acme").status_code == 204
        time.sleep(SEEN_SECONDS)

    assert set(statuses) == {200, 429}
    assert 0 < statuses[200] <= 10 + PAIR
    assert call(first, "secrets/local/list", {}).status_code == 200


@pytest.mark.timeout(120)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_limit_of_a_connection_holds_for_both(
    machines: tuple[Server, Server], check: Callable[[Limited, CountingPeer], None]
) -> None:
    with counting_peer() as peer:
        check(Limited(machines, peer, check.__name__.replace("_", "-")), peer)


def test_the_other_goes_on_when_one_is_killed_and_nothing_confirmed_is_lost(
    machines: tuple[Server, Server], database: str, tmp_path: Path
) -> None:
    first, second = machines
    environment = {"ERP_DATABASE_URL": database, "ERP_PROCESSES": str(PAIR)}
    third = Server(tmp_path, environment={**environment, **_platform(first)}).ready()
    third.keys |= first.keys
    confirmed: list[str] = []

    def write(number: int) -> None:
        key = f"killed-{number}"
        try:
            if put_secret(third, f"killed/{number}", "v", key).status_code == 200:
                confirmed.append(key)
        except httpx2.HTTPError:
            return

    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(write, number) for number in range(80)]
        while len(confirmed) < 10:
            time.sleep(0.01)
        third.signal(signal.SIGKILL)
        for one in sent:
            one.result()
    third.kill()

    assert 10 <= len(confirmed) < 80
    for number in range(80):
        answer = repeated(second, number)
        if f"killed-{number}" in confirmed:
            assert (answer.status_code, answer.json()["meta"].get("replayed")) == (200, True)
        assert answer.status_code == 200 or answer.json()["code"] == "outcome_unknown", answer.text
        assert versions(second, f"killed/{number}") in ({1} if answer.status_code == 200 else {0, 1})


def repeated(server: Server, number: int) -> httpx2.Response:
    """Send the write again; while the claim of the dead has not ended, it waits."""
    ends = time.monotonic() + 60
    while True:
        answer = put_secret(server, f"killed/{number}", "v", f"killed-{number}")
        if answer.status_code != 409 or time.monotonic() > ends:
            return answer
        time.sleep(0.2)


def _platform(server: Server) -> dict[str, str]:
    """The secrets that all gateways share."""
    raw = Path(f"/proc/{server.process.pid}/environ").read_bytes().split(b"\0")
    entries = dict(one.decode().partition("=")[::2] for one in raw if one)
    return {name: entries[name] for name in ("ERP_KEK", "ERP_PEPPER")}
