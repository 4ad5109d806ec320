"""A call over HTTP, from credential to answer, and every way it can be refused."""

from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

pytestmark = pytest.mark.anyio

GET = "/providers/cache/memory/get"
SET = "/providers/cache/memory/set"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def put(client: httpx2.AsyncClient, key: str, value: Any, **headers: str) -> httpx2.Response:
    return await client.post(SET, json={"params": {"key": key, "value": value}}, headers=headers)


async def read(client: httpx2.AsyncClient, key: str) -> dict[str, Any]:
    response = await client.post(GET, json={"params": {"key": key}})
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code), body
    assert body["correlation_id"] == response.headers["x-request-id"]
    return body


async def test_what_is_set_is_read_back(client: httpx2.AsyncClient) -> None:
    response = await put(client, "price", {"amount": "19.90"})
    assert response.status_code == 200

    assert (await read(client, "price"))["value"] == {"amount": "19.90"}
    assert (await read(client, "other")) == {"found": False}


async def test_an_answer_says_who_served_it_and_how_long_it_took(client: httpx2.AsyncClient) -> None:
    response = await client.post(
        GET, json={"params": {"key": "k"}}, headers={"X-Request-Id": "order-17", "traceparent": TRACE}
    )

    meta = response.json()["meta"]
    assert meta["request_id"] == response.headers["x-request-id"] == "order-17"
    assert (meta["provider"], meta["connection"]) == ("cache/memory", "default")
    assert meta["duration_ms"] > 0
    assert response.headers["traceparent"][:35] == TRACE[:35]
    assert response.headers["traceparent"] != TRACE
    assert "layer;dur=" in response.headers["server-timing"]
    assert "provider;dur=" in response.headers["server-timing"]
    assert response.headers["ratelimit"].startswith('"tenant";r=')
    assert response.headers["ratelimit-policy"].startswith('"tenant";q=')


@pytest.mark.parametrize(
    ("_case", "headers"),
    [
        ("none", {}),
        ("nonsense", {"authorization": "Bearer nonsense"}),
        ("well-formed but unknown", {"authorization": "Bearer erpk_live_" + "a" * 50}),
        ("basic", {"authorization": "Basic YTpi"}),
    ],
)
async def test_without_a_valid_credential_nothing_is_answered(site: Site, _case: str, headers: dict[str, str]) -> None:
    async with site.client(None) as anonymous:
        response = await anonymous.post(SET, json={"params": {"key": "k", "value": 1}}, headers=headers)
        problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"] == 'Bearer realm="erp"'
    async with site.client() as client:
        assert (await read(client, "k"))["found"] is False


async def test_a_key_works_in_either_header(site: Site) -> None:
    async with site.client(None) as anonymous:
        response = await anonymous.post(
            GET, json={"params": {"key": "k"}}, headers={"X-API-Key": site.keys["developer"]}
        )
        assert response.status_code == 200


async def test_the_tenant_header_must_agree_with_the_credential(client: httpx2.AsyncClient) -> None:
    refused = await put(client, "k", 1, **{"X-Tenant-Id": "other"})
    problem(refused, 403, "permission_denied")

    agreed = await put(client, "k", 2, **{"X-Tenant-Id": "acme"})
    assert agreed.status_code == 200


async def test_every_error_of_a_request_is_listed_with_its_pointer(client: httpx2.AsyncClient) -> None:
    response = await client.post(SET, json={"params": {"key": "", "ttl_seconds": -1, "colour": 3}, "extra": 1})

    body = problem(response, 400, "invalid_argument")
    pointers = sorted(error["pointer"] for error in body["errors"])
    assert pointers == ["/extra", "/params/colour", "/params/key", "/params/ttl_seconds", "/params/value"]


@pytest.mark.parametrize(
    ("_case", "content"),
    [
        ("empty", b""),
        ("truncated", b'{"params": {"key": "k"'),
        ("not utf-8", b'{"params": {"key": "\xff"}}'),
        ("two documents", b'{"params": {"key": "k"}} {}'),
        ("a bomb of brackets", b"[" * 50_000),
    ],
)
async def test_malformed_json_is_explained(client: httpx2.AsyncClient, _case: str, content: bytes) -> None:
    response = await client.post(GET, content=content, headers={"content-type": "application/json"})
    problem(response, 400, "invalid_argument")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/providers/cash/memory/get", "cache"),
        ("/providers/cache/memori/get", "memory"),
        ("/providers/cache/memory/gett", "get"),
        ("/services/ordr/submit", "order"),
        ("/services/order/submitt", "submit"),
    ],
)
async def test_an_unknown_name_is_answered_with_the_nearest_ones(
    client: httpx2.AsyncClient, path: str, hint: str
) -> None:
    response = await client.post(path, json={"params": {}})
    assert f"Did you mean {hint}" in problem(response, 404, "not_found")["detail"]


async def test_an_unknown_connection_is_answered_with_how_to_create_it(client: httpx2.AsyncClient) -> None:
    response = await client.post(GET, json={"params": {"key": "k"}}, headers={"X-Connection": "second"})
    assert "POST /providers/cache/memory/configure" in problem(response, 404, "not_found")["detail"]


async def test_a_repeated_key_replays_the_stored_answer(client: httpx2.AsyncClient) -> None:
    first = await client.post(
        "/providers/cache/memory/increment", json={"params": {"key": "n"}}, headers={"Idempotency-Key": "k-1"}
    )
    again = await client.post(
        "/providers/cache/memory/increment", json={"params": {"key": "n"}}, headers={"Idempotency-Key": "k-1"}
    )

    assert first.status_code == again.status_code == 200
    assert again.json()["data"] == first.json()["data"]
    assert "replayed" not in first.json()["meta"]
    assert again.json()["meta"]["replayed"] is True
    assert (await read(client, "n"))["value"] == 1


async def test_a_key_used_for_another_request_is_refused_and_changes_nothing(client: httpx2.AsyncClient) -> None:
    await put(client, "a", 1, **{"Idempotency-Key": "k-2"})

    problem(await put(client, "a", 2, **{"Idempotency-Key": "k-2"}), 422, "invalid_argument")

    assert (await read(client, "a"))["value"] == 1


async def test_tenants_never_share_idempotency_keys_or_values(site: Site) -> None:
    await site.layer.control.tenants.create("other")
    _, key = await site.layer.control.api_keys.create("other", role="developer")
    site.keys["other"] = key
    async with site.client() as ours, site.client("other") as theirs:
        await put(ours, "shared", "ours", **{"Idempotency-Key": "same"})
        response = await put(theirs, "shared", "theirs", **{"Idempotency-Key": "same"})

        assert response.status_code == 200
        assert "replayed" not in response.json()["meta"]
        assert (await read(ours, "shared"))["value"] == "ours"
        assert (await read(theirs, "shared"))["value"] == "theirs"


async def test_every_effect_leaves_an_audit_record_before_its_answer(
    client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    await put(client, "k", 1, **{"X-Request-Id": "audited-1", "X-User-Id": "ana"})

    found = (await admin.get("/audit", params={"target": "cache/memory.set"})).json()["items"]
    assert [(item["request_id"], item["outcome"], item["detail"]) for item in found] == [
        ("audited-1", "ok", {"user": "ana"})
    ]


async def test_an_internal_action_is_refused_through_the_gateway(admin: httpx2.AsyncClient) -> None:
    response = await admin.post("/providers/secrets/local/get", json={"params": {"path": "x"}})
    problem(response, 404, "not_found")


async def test_a_body_that_is_too_large_is_413_and_one_of_another_type_415(client: httpx2.AsyncClient) -> None:
    large = b'{"params": {"key": "' + b"k" * (16 * 1024 * 1024) + b'"}}'
    problem(
        await client.post(GET, content=large, headers={"content-type": "application/json"}), 413, "invalid_argument"
    )
    problem(await client.post(GET, content=b"<a/>", headers={"content-type": "text/xml"}), 415, "invalid_argument")


async def test_an_undocumented_path_is_answered_with_where_to_look(client: httpx2.AsyncClient) -> None:
    response = await client.get("/nothing/here")
    assert "/openapi.json" in problem(response, 404, "not_found")["detail"]


async def test_a_wrong_method_names_the_right_one(client: httpx2.AsyncClient) -> None:
    response = await client.delete("/providers")
    problem(response, 405, "invalid_argument")
    assert "GET" in response.headers["allow"]
