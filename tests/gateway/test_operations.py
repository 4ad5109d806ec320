"""Calls that nobody waits for: accepted, looked at, cancelled, ended."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.runtime.conformance.scaffold import write_provider

pytestmark = pytest.mark.anyio

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
async def slow(site: Site) -> str:
    """The provider ``cache/slow``: ``get`` takes as long as its key says, and says how far it is."""
    folder = write_provider("cache/slow", site.layer.settings.drop_in_dir)
    module = folder / "provider.py"
    line = "if request.key not in self._entries:"
    wait = 'import asyncio; context.report(0.5, "half way"); await asyncio.sleep(float(request.key))\n        '
    module.write_text(module.read_text().replace(line, wait + line))
    await site.layer.hot_swap.reload()
    return "cache/slow"


async def begin(client: httpx2.AsyncClient, path: str, params: dict[str, Any], **headers: str) -> httpx2.Response:
    return await client.post(path, json={"params": params}, headers=ASYNC | headers)


async def ended(client: httpx2.AsyncClient, id_: str) -> dict[str, Any]:
    answer = await client.get(f"/operations/{id_}", headers={"Prefer": "wait=5"})
    found: dict[str, Any] = answer.json()
    assert "ended_at" in found, found
    return found


async def until_running(client: httpx2.AsyncClient, id_: str) -> dict[str, Any]:
    ends = time.monotonic() + 30
    while True:
        found: dict[str, Any] = (await client.get(f"/operations/{id_}")).json()
        if found["state"] == "running" and "progress" in found:
            return found
        assert time.monotonic() < ends, found
        await asyncio.sleep(0.02)


async def test_a_call_is_accepted_and_its_result_is_there_later(client: httpx2.AsyncClient) -> None:
    accepted = await begin(client, "/providers/cache/memory/set", {"key": "a", "value": 1})

    assert accepted.status_code == 202
    assert accepted.headers["preference-applied"] == "respond-async"
    id_ = accepted.json()["id"]
    assert accepted.headers["location"] == f"/operations/{id_}"
    operation = await ended(client, id_)
    assert (operation["state"], operation["target"], operation["attempts"]) == ("succeeded", "cache/memory.set", 1)
    assert operation["result"]["meta"]["provider"] == "cache/memory"
    read = await client.post("/providers/cache/memory/get", json={"params": {"key": "a"}})
    assert read.json()["data"]["value"] == 1


async def test_a_call_that_ends_soon_enough_is_answered_as_usual(client: httpx2.AsyncClient) -> None:
    answer = await begin(client, "/providers/cache/memory/get", {"key": "a"}, Prefer="respond-async, wait=5")

    assert (answer.status_code, answer.json()["data"]) == (200, {"found": False})
    assert "location" in answer.headers


async def test_a_call_that_fails_soon_enough_is_answered_with_its_problem(client: httpx2.AsyncClient) -> None:
    params = {"sql": "SELECT * FROM nowhere"}

    answer = await begin(client, "/providers/db/sqlite/query", params, Prefer="respond-async, wait=5")

    assert answer.status_code >= 400
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_failure_is_kept_as_a_problem(client: httpx2.AsyncClient) -> None:
    accepted = await begin(client, "/providers/db/sqlite/query", {"sql": "SELECT * FROM nowhere"})

    operation = await ended(client, accepted.json()["id"])

    assert operation["state"] == "failed"
    assert operation["problem"]["code"] in {"not_found", "failed_precondition", "invalid_argument"}
    assert "result" not in operation


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        ("/providers/cache/memory/set", {"key": ""}, 400),
        ("/providers/cache/no_such/get", {"key": "a"}, 404),
        ("/providers/cache/no-such/get", {"key": "a"}, 404),
        ("/providers/db/sqlite/stream", {"sql": "SELECT 1"}, 400),
    ],
)
async def test_what_cannot_be_run_is_refused_at_once_and_not_kept(
    client: httpx2.AsyncClient, path: str, params: dict[str, Any], status: int
) -> None:
    refused = await begin(client, path, params)

    assert refused.status_code == status, refused.text
    assert (await client.get("/operations")).json() == {"items": []}


@pytest.mark.slow
async def test_the_progress_of_a_running_operation_is_shown(client: httpx2.AsyncClient, slow: str) -> None:
    accepted = await begin(client, f"/providers/{slow}/get", {"key": "2"})

    running = await until_running(client, accepted.json()["id"])

    assert running["progress"] == {"fraction": 0.5, "message": "half way"}
    await client.delete(f"/operations/{running['id']}")


@pytest.mark.slow
async def test_a_running_operation_is_cancelled(client: httpx2.AsyncClient, slow: str) -> None:
    accepted = await begin(client, f"/providers/{slow}/get", {"key": "60"})
    id_ = accepted.json()["id"]
    await until_running(client, id_)

    answer = await client.delete(f"/operations/{id_}")

    assert (answer.status_code, answer.json()["cancel_wanted"]) == (202, True)
    operation = await ended(client, id_)
    assert (operation["state"], operation["problem"]["code"]) == ("cancelled", "cancelled")
    again = await client.delete(f"/operations/{id_}")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


async def test_one_key_is_one_operation(client: httpx2.AsyncClient) -> None:
    first, second = [
        await begin(client, "/providers/cache/memory/increment", {"key": "n"}, **{"Idempotency-Key": "k1"})
        for _ in range(2)
    ]
    other = await begin(client, "/providers/cache/memory/increment", {"key": "m"}, **{"Idempotency-Key": "k1"})

    assert first.json()["id"] == second.json()["id"]
    assert other.status_code == 422
    assert (await ended(client, first.json()["id"]))["result"]["data"]["value"] == 1
    at_once = await client.post(
        "/providers/cache/memory/increment", json={"params": {"key": "n"}}, headers={"Idempotency-Key": "k1"}
    )
    assert (at_once.json()["data"]["value"], at_once.json()["meta"]["replayed"]) == (1, True)


async def test_callers_see_their_own_operations_and_administrators_all(site: Site, client: httpx2.AsyncClient) -> None:
    mine = (await begin(client, "/providers/cache/memory/get", {"key": "a"})).json()["id"]
    async with site.client("admin") as admin, site.client("platform") as stranger:
        theirs = (await begin(admin, "/providers/cache/memory/get", {"key": "a"})).json()["id"]

        assert [item["id"] for item in (await client.get("/operations")).json()["items"]] == [mine]
        assert [item["id"] for item in (await admin.get("/operations")).json()["items"]] == [theirs, mine]
        assert (await client.get(f"/operations/{theirs}")).status_code == 404
        assert (await client.delete(f"/operations/{theirs}")).status_code == 404
        assert (await stranger.get(f"/operations/{mine}")).status_code == 404
        assert (await ended(admin, theirs))["state"] == "succeeded"


async def test_operations_are_listed_by_state_and_page(client: httpx2.AsyncClient) -> None:
    ids = [(await begin(client, "/providers/cache/memory/get", {"key": "a"})).json()["id"] for _ in range(3)]
    for id_ in ids:
        await ended(client, id_)

    first = (await client.get("/operations?state=succeeded&limit=2")).json()
    rest = (await client.get(f"/operations?state=succeeded&limit=2&cursor={first['next_cursor']}")).json()

    assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
    assert "next_cursor" not in rest
    assert (await client.get("/operations?state=failed")).json() == {"items": []}
    assert (await client.get("/operations?state=done")).status_code == 400


async def test_services_are_called_later_too(site: Site) -> None:
    async with site.client("admin") as admin:
        order = {"external_id": "x"}
        refused = await begin(admin, "/services/order/submit", order)
        assert refused.status_code == 400
