"""Every endpoint beside the calls, asked by another tenant's administrator with the victim's names."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from tests.hostile.conftest import Scene
from tests.hostile.plants import CONTENT, MARK, VICTIM
from tests.hostile.probing import requests

from erp.contracts.loading import document

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

OPENAPI: dict[str, Any] = json.loads(document("openapi.json"))


def _resolved(node: Any, depth: int = 0) -> Any:
    """A schema with its references replaced by what they refer to."""
    if isinstance(node, dict) and "$ref" in node and depth < DEEPEST:
        target: Any = OPENAPI
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return _resolved(target, depth + 1)
    if isinstance(node, dict):
        return {key: _resolved(value, depth) for key, value in node.items()}
    return [_resolved(value, depth) for value in node] if isinstance(node, list) else node


def _described(method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"method": method.upper(), "path": path}
    found["query"] = [one["name"] for one in operation.get("parameters", []) if one.get("in") == "query"]
    content = operation.get("requestBody", {}).get("content", {})
    for kind in ("application/json", "application/scim+json"):
        if kind in content:
            found["request"] = _resolved(content[kind]["schema"])
    return found


DEEPEST = 12
OPERATIONS: dict[str, dict[str, Any]] = {
    operation["operationId"]: _described(method, path, operation)
    for path, methods in OPENAPI["paths"].items()
    for method, operation in methods.items()
    if method != "parameters" and not re.fullmatch(r"/providers/\w+/\{name\}/\w+|/services/\w+/\w+", path)
}
PATHS = {
    "domain": ["cache", "db"],
    "name": ["memory", "main-cache", "sqlite"],
    "period": ["month"],
    "purpose": ["marketing"],
}
"""Path parameters that name what everybody has."""
OWN = {"setQuota", "deleteQuota", "putPolicy", "configureProvider"}
"""What changes the attacker's own things when it is not refused."""


def urls(path: str, scene: Scene) -> Iterator[str]:
    names = re.findall(r"\{(\w+)\}", path)
    choices = [PATHS.get(name) or [*scene.loot.by_name.get(name, []), VICTIM] for name in names]
    for chosen in itertools.islice(itertools.product(*choices), 60):
        url = path
        for name, value in zip(names, chosen, strict=True):
            url = url.replace("{" + name + "}", quote(value, safe=""))
        yield url


async def tried(attacker: httpx2.AsyncClient, method: str, url: str, body: Any, query: dict[str, str]) -> str:
    answer = await attacker.request(method, url, json=body, params=query, timeout=10.0)
    assert answer.status_code < 500 or answer.status_code in {501, 503}, f"{method} {url}: {answer.text}"
    return answer.text


@pytest.mark.parametrize("name", sorted(OPERATIONS))
async def test_no_endpoint_gives_or_changes_anything_of_another_tenant(scene: Scene, name: str) -> None:
    operation = OPERATIONS[name]
    method, path = operation["method"], operation["path"]
    if path.endswith("/events"):
        pytest.skip("a stream: see test_channels.py")
    bodies = list(requests(operation["request"], scene.loot))[:20] if "request" in operation else [None]
    if name in OWN:
        bodies = bodies[:1]
    found = []
    async with scene.client("attacker admin") as attacker:
        for url in itertools.islice(urls(path, scene), 60 if bodies == [None] else 8):
            for query, body in [({}, bodies[0]), ({"tenant": VICTIM}, bodies[0]), *(({}, one) for one in bodies[1:])]:
                text = await tried(attacker, method, url, body, query)
                if MARK in text or CONTENT in text:
                    found.append((method, url, query, body))
        await _own_things_back(attacker)

    assert found == []
    assert await scene.now() == scene.before


async def _own_things_back(attacker: httpx2.AsyncClient) -> None:
    for period in ("minute", "hour", "day", "month"):
        await attacker.delete(f"/quotas/{period}")


async def test_the_victims_tenant_is_neither_listed_nor_administered(scene: Scene) -> None:
    async with scene.client("attacker admin") as attacker:
        listed = (await attacker.get("/tenants")).json()["items"]
        assert [item["id"] for item in listed] == ["attacker"]
        for method, body in (("GET", None), ("PATCH", {"name": "mine"}), ("DELETE", None)):
            refused = await attacker.request(method, f"/tenants/{VICTIM}", json=body)
            unknown = await attacker.request(method, "/tenants/nobody", json=body)
            assert refused.status_code == unknown.status_code == 403
            assert refused.json()["detail"] == unknown.json()["detail"]


async def test_every_administrative_page_refuses_to_act_for_the_victim(scene: Scene) -> None:
    acting = [one for one in OPERATIONS.values() if "tenant" in one["query"]]
    assert len(acting) >= 10
    async with scene.client("attacker admin") as attacker:
        for operation in acting:
            for url in itertools.islice(urls(operation["path"], scene), 3):
                body = next(requests(operation["request"], scene.loot)) if "request" in operation else None
                answer = await attacker.request(operation["method"], url, params={"tenant": VICTIM}, json=body)
                assert answer.status_code in {400, 403, 404}, f"{operation['method']} {url}: {answer.text}"
    assert await scene.now() == scene.before


async def test_metrics_tell_nothing_of_another_tenant(scene: Scene) -> None:
    async with scene.client("attacker admin") as attacker:
        texts = [(await attacker.get(path)).text for path in ("/metrics", "/providers/cache/memory/metrics")]

    assert [VICTIM in text for text in texts] == [False, False]


async def test_calls_in_a_batch_and_for_later_are_as_confined(scene: Scene) -> None:
    calls = [
        {"target": "cache/memory/get", "params": {"key": "vault"}},
        {"target": "storage/filesystem/get", "params": {"key": "vault/contract.txt"}},
    ]
    async with scene.client("attacker") as attacker:
        batch = await attacker.post("/providers/batch", json={"items": calls})
        later = await attacker.post(
            "/providers/storage/filesystem/get",
            json={"params": {"key": "vault/contract.txt"}},
            headers={"Prefer": "respond-async"},
        )
        operation = later.json()
        for _ in range(3000):
            if operation.get("state") not in {"waiting", "running"}:
                break
            await asyncio.sleep(0.01)
            operation = (await attacker.get(f"/operations/{operation['id']}")).json()

    assert batch.status_code == 200
    assert MARK not in batch.text
    assert CONTENT not in batch.text
    assert CONTENT not in str(operation)
