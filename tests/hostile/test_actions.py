"""Every action of every provider and service, called by another tenant with the victim's names: nothing comes out, nothing changes.

Actions are taken from the catalog and requests made from their schemas: a new action is attacked without a line here.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from typing import Any

import httpx2
import pytest
from tests.hostile.conftest import Scene
from tests.hostile.plants import CONTENT, MARK
from tests.hostile.probing import requests

from erp.runtime.catalog import ProviderCatalog

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

CATALOG = ProviderCatalog.load()
EMBEDDED = [manifest for manifest in CATALOG.providers.values() if not manifest.needs_configuration]
ACTIONS = [
    *(
        (f"/providers/{manifest.ref}/{action.name}", manifest.domain, action.name, "domains")
        for manifest in EMBEDDED
        for action in CATALOG.actions_of(manifest)
        if not action.internal
    ),
    *(
        (f"/services/{name}/{action}", name, action, "services")
        for name, one in CATALOG.services.items()
        for action in one["actions"]
    ),
]
READS_BY_NAME = (
    ("/providers/storage/filesystem/head", "key", "vault/contract.txt"),
    ("/providers/secrets/local/list_versions", "path", "vault/pin"),
    ("/providers/cache/memory/get", "key", "vault"),
)


def schema(kind: str, group: str, action: str) -> dict[str, Any]:
    groups = CATALOG.domains if kind == "domains" else CATALOG.services
    found: dict[str, Any] = groups[group]["actions"][action]["params"]
    return found


async def asked(attacker: httpx2.AsyncClient, path: str, params: Any) -> httpx2.Response:
    is_endless = path.rpartition("/")[2] == "subscribe"
    async with asyncio.timeout(0.2 if is_endless else 60.0):
        return await attacker.post(path, json={"params": params})


@pytest.mark.parametrize(("path", "group", "action", "kind"), ACTIONS, ids=[path for path, *_ in ACTIONS])
async def test_no_action_gives_or_changes_anything_of_another_tenant(
    scene: Scene, path: str, group: str, action: str, kind: str
) -> None:
    found = []
    async with scene.client("attacker") as attacker:
        for params in requests(schema(kind, group, action), scene.loot):
            try:
                answer = await asked(attacker, path, params)
            except TimeoutError:  # a stream that goes on, and has told nothing yet
                continue
            assert answer.status_code < 500 or answer.status_code in {501, 503, 504}, answer.text
            if MARK in answer.text or CONTENT in answer.text:
                found.append((params, answer.text))

    assert found == []
    assert await scene.now() == scene.before


def test_every_embedded_provider_and_service_is_attacked() -> None:
    attacked = {path for path, *_ in ACTIONS}

    assert {f"/providers/{manifest.ref}" for manifest in EMBEDDED} <= {path.rpartition("/")[0] for path in attacked}
    assert len(attacked) >= 60


@pytest.mark.parametrize(("path", "member", "name"), READS_BY_NAME)
async def test_a_name_of_another_tenant_is_answered_as_one_that_does_not_exist(
    scene: Scene, path: str, member: str, name: str
) -> None:
    async with scene.client("attacker") as attacker:
        theirs = await asked(attacker, path, {member: name})
        nobodys = await asked(attacker, path, {member: name + "-none"})

    assert theirs.status_code == nobodys.status_code
    assert _told(theirs, name) == _told(nobodys, name + "-none")


def _told(answer: httpx2.Response, name: str) -> str:
    """The answer without the name that was asked for, and without what differs between any two answers."""
    text = re.sub(r'"(request_id|correlation_id)":"[^"]*"|"duration_ms":[\d.]+', "", answer.text)
    return text.replace(name, "NAME")


@pytest.mark.parametrize(("path", "member", "name"), READS_BY_NAME)
async def test_a_name_of_another_tenant_takes_no_longer_than_one_that_does_not_exist(
    scene: Scene, path: str, member: str, name: str
) -> None:
    took: dict[bool, list[float]] = {True: [], False: []}
    async with scene.client("attacker") as attacker:
        for number in range(300):
            is_theirs = number % 2 == 0
            asked_for = name if is_theirs else name[:-1] + "0"
            began = time.perf_counter()
            await attacker.post(path, json={"params": {member: asked_for}})
            took[is_theirs].append(time.perf_counter() - began)

    theirs, nobodys = (statistics.median(took[key]) for key in (True, False))
    assert abs(theirs - nobodys) < 0.5 * nobodys


async def test_another_tenants_idempotency_key_replays_nothing(scene: Scene) -> None:
    path, params = "/providers/db/sqlite/execute", {"sql": "CREATE TABLE ledger (id TEXT PRIMARY KEY, note TEXT)"}
    async with scene.client("attacker") as attacker:
        answer = await attacker.post(path, json={"params": params}, headers={"Idempotency-Key": "victim 3"})

    assert "replayed" not in answer.json().get("meta", {})
    assert MARK not in answer.text


async def test_the_tenant_of_a_call_is_that_of_the_credential_alone(scene: Scene) -> None:
    body = {"params": {"key": "vault"}, "metadata": {"tenant": "victim"}}
    async with scene.client("attacker") as attacker:
        for headers in ({"X-Tenant-Id": "victim"}, {"x-tenant-id": "victim", "X-User-Id": "root"}):
            refused = await attacker.post("/providers/cache/memory/get", json=body, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
        answer = await attacker.post("/providers/cache/memory/get?tenant=victim", json=body)

    assert answer.json()["data"] == {"found": False}
