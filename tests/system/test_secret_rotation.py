"""What a rotation has promised is kept by the next process when one is killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.process import Server
from tests.support.vault_double import Double
from tests.system.conftest import StartServer


def call(server: Server, action: str, provider: str = "local", **params: Any) -> Any:
    with server.client("admin") as admin:
        answer = admin.post(f"/providers/secrets/{provider}/{action}", json={"params": {"path": "crm", **params}})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


def states(server: Server, provider: str = "local") -> list[str]:
    return [one["state"] for one in call(server, "list_versions", provider)["versions"]]


def until(wanted: list[str], server: Server, provider: str = "local") -> None:
    ends = time.monotonic() + 60
    while (found := states(server, provider)) != wanted:
        assert time.monotonic() < ends, found
        time.sleep(0.5)


def records(server: Server, action: str) -> list[dict[str, Any]]:
    with server.client("admin") as admin:
        found: list[dict[str, Any]] = admin.get("/audit", params={"action": action}).json()["items"]
        return found


@pytest.fixture
def double() -> Iterator[Double]:
    made = Double()
    yield made
    made.close()


@pytest.mark.parametrize(("provider", "target"), [("local", "tenant/crm#1"), ("vault", "secrets/vault/default/crm#1")])
def test_the_version_before_is_destroyed_once_by_one_of_those_that_come_after_a_killed_process(
    furnished: Path, start_server: StartServer, double: Double, provider: str, target: str
) -> None:
    reachable = {"ERP_EGRESS_ALLOW": "127.0.0.0/8"}
    first = start_server(furnished, environment=reachable)
    if provider == "vault":
        config = {"address": double.address, "token": double.vault.root_token}
        with first.client("admin") as admin:
            assert admin.post("/providers/secrets/vault/configure", json={"config": config}).status_code == 200
    call(first, "put", provider, value="one")
    call(first, "rotate", provider, value="two", overlap_seconds=1)
    first.kill()

    both = [start_server(furnished, environment={"ERP_PROCESSES": "2", **reachable}) for _ in range(2)]
    assert states(both[0], provider) == ["previous", "current"]
    until(["destroyed", "current"], both[1], provider)

    assert [one["target"] for one in records(both[0], "secrets.destroy_version")] == [target]


def test_a_planned_rotation_survives_a_killed_process_and_is_done_once(
    furnished: Path, start_server: StartServer
) -> None:
    first = start_server(furnished)
    call(first, "put", value="one")
    with first.client("admin") as admin:
        plan = {"path": "crm", "every_days": 30, "value": {"from": "random"}}
        assert admin.put("/secret-schedules/crm-key", json=plan).status_code == 200
    first.kill()

    both = [start_server(furnished, environment={"ERP_PROCESSES": "2"}) for _ in range(2)]
    with both[0].client("admin") as admin:
        assert admin.post("/secret-schedules/crm-key:run").status_code == 200
    until(["previous", "current"], both[1])
    time.sleep(6)

    assert states(both[0]) == ["previous", "current"]
    assert len(records(both[1], "secrets.rotate_now")) == 1
    with both[1].client("admin") as admin:
        assert admin.get("/secret-schedules/crm-key").json()["reference"] == "secret://tenant/crm#2"
