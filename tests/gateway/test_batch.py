"""Several calls in one request."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.anyio

MEMORY = "cache/memory"


def item(action: str, target: str = MEMORY, **more: Any) -> dict[str, Any]:
    params = {name: value for name, value in more.items() if name in {"key", "value", "by", "sql"}}
    rest = {name: value for name, value in more.items() if name not in params}
    return {"target": f"{target}/{action}", "params": params, **rest}


async def run(client: httpx2.AsyncClient, *items: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    headers = more.pop("headers", {})
    answer = await client.post("/providers/batch", json={"items": list(items), **more}, headers=headers)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def outcomes(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["outcome"] for entry in entries]


async def test_answers_come_in_the_order_of_their_items(client: httpx2.AsyncClient) -> None:
    await run(client, *(item("set", key=f"k{number}", value=number) for number in range(20)))

    entries = await run(client, *(item("get", key=f"k{number}") for number in reversed(range(20))))

    assert [entry["data"]["value"] for entry in entries] == list(reversed(range(20)))
    assert {entry["meta"]["provider"] for entry in entries} == {MEMORY}
    assert len({entry["meta"]["request_id"] for entry in entries}) == 20


async def test_one_that_fails_does_not_concern_the_others(client: httpx2.AsyncClient) -> None:
    entries = await run(
        client,
        item("get", key="a"),
        item("get", key=""),
        item("query", "db/sqlite", sql="SELEKT"),
        item("get", key="b"),
    )

    assert outcomes(entries) == ["succeeded", "failed", "failed", "succeeded"]
    assert entries[1]["problem"]["errors"][0]["pointer"] == "/params/key"
    assert entries[2]["problem"]["status"] >= 400


async def test_with_stop_on_error_the_rest_is_left_out(client: httpx2.AsyncClient) -> None:
    entries = await run(
        client,
        item("set", key="a", value=1),
        item("get", key=""),
        item("set", key="b", value=1),
        stop_on_error=True,
    )

    assert outcomes(entries) == ["succeeded", "failed", "skipped"]
    assert outcomes(await run(client, item("get", key="b")))
    assert (await run(client, item("get", key="b")))[0]["data"] == {"found": False}


async def test_a_repeated_batch_replays_each_of_its_items(client: httpx2.AsyncClient) -> None:
    items = [item("increment", key="n"), item("increment", key="n", idempotency_key="own")]
    first = await run(client, *items, headers={"Idempotency-Key": "b1"}, stop_on_error=True)
    again = await run(client, *items, headers={"Idempotency-Key": "b1"}, stop_on_error=True)

    assert [entry["data"]["value"] for entry in first] == [1, 2]
    assert [entry["data"]["value"] for entry in again] == [1, 2]
    assert [entry["meta"].get("replayed") for entry in again] == [True, True]


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"target": "cache/memry/get"}, "/items/1/target"),
        ({"target": "cache/memory/got"}, "/items/1/target"),
        ({"target": "db/sqlite/stream", "params": {"sql": "SELECT 1"}}, "/items/1/target"),
        ({"target": "cache/memory"}, "/items/1/target"),
        ({"target": "cache/memory/get", "parms": {}}, "/items/1/parms"),
    ],
)
async def test_a_batch_that_cannot_be_right_is_refused_whole(
    client: httpx2.AsyncClient, wrong: dict[str, Any], pointer: str
) -> None:
    refused = await client.post("/providers/batch", json={"items": [item("set", key="a", value=1), wrong]})

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_argument")
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert (await run(client, item("get", key="a")))[0]["data"] == {"found": False}


@pytest.mark.parametrize("count", [0, 101])
async def test_a_batch_has_a_bounded_number_of_items(client: httpx2.AsyncClient, count: int) -> None:
    refused = await client.post("/providers/batch", json={"items": [item("get", key="a")] * count})

    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/items")


@pytest.mark.slow
async def test_the_patience_of_the_caller_is_for_the_whole_batch(client: httpx2.AsyncClient) -> None:
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n LIMIT 1"
    headers = {"Prefer": "wait=1"}

    entries = await run(
        client, *[item("query", "db/sqlite", sql=slow)] * 2, item("get", key="a"), headers=headers, stop_on_error=True
    )

    assert outcomes(entries) == ["failed", "skipped", "skipped"]
