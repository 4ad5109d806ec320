"""A deprecated action says so in every answer it gives over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from tests.system.serving import serving

from erp.contracts.loading import catalog
from erp.main import Settings, running
from erp.runtime.catalog import ProviderCatalog

pytestmark = pytest.mark.anyio

DEPRECATED = {"since": "2026-01-02", "sunset": "2027-03-04", "use": "cache.get_many"}
HEADERS = {"deprecation": "@1767312000", "sunset": "Thu, 04 Mar 2027 00:00:00 GMT"}


def deprecate(monkeypatch: pytest.MonkeyPatch, domain: str, action: str) -> None:
    """Let layers started from now on know ``action`` as deprecated."""
    load = ProviderCatalog.load

    def loaded(drop_in: Path | None = None) -> ProviderCatalog:
        plain = load(drop_in)
        contract = catalog()["domains"][domain]
        marked = {**contract["actions"], action: {**contract["actions"][action], "deprecated": DEPRECATED}}
        domains = {**plain.domains, domain: {**contract, "actions": marked}}
        return ProviderCatalog(domains, plain.services, plain.providers.values())

    monkeypatch.setattr(ProviderCatalog, "load", loaded)


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A developer of acme in a layer where ``cache.get`` and ``db.stream`` are deprecated, over a socket."""
    deprecate(monkeypatch, "cache", "get")
    deprecate(monkeypatch, "db", "stream")
    async with running(Settings(data_dir=tmp_path / "data", database_url=None, log_level="error")) as layer:
        await layer.control.tenants.create("acme")
        _, key = await layer.control.api_keys.create("acme", role="developer")
        headers = {"authorization": f"Bearer {key}"}
        async with (
            serving(layer.application()) as address,
            httpx2.AsyncClient(base_url=address, headers=headers, trust_env=False) as made,
        ):
            yield made


def said(answer: httpx2.Response) -> dict[str, str]:
    """What the answer says about deprecation."""
    return {name: answer.headers[name] for name in HEADERS if name in answer.headers}


async def test_its_answers_carry_deprecation_and_sunset(client: httpx2.AsyncClient) -> None:
    """RFC 9745, section 2: a structured date; RFC 8594, section 3: an HTTP date."""
    answer = await client.post("/providers/cache/memory/get", json={"params": {"key": "a"}})

    assert (answer.status_code, said(answer)) == (200, HEADERS)


async def test_its_refusals_carry_them_too(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/providers/cache/memory/get", json={"params": {}})

    assert (answer.status_code, said(answer)) == (400, HEADERS)


async def test_its_streams_carry_them_too(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/providers/db/sqlite/stream", json={"params": {"sql": "select 1"}})

    assert (answer.status_code, said(answer)) == (200, HEADERS)


async def test_other_actions_carry_neither(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/providers/cache/memory/set", json={"params": {"key": "a", "value": 1}})

    assert (answer.status_code, said(answer)) == (200, {})


async def test_discovery_says_what_to_use_instead(client: httpx2.AsyncClient) -> None:
    shown = (await client.get("/providers/cache/memory")).json()["actions"]

    assert {action["name"]: action.get("deprecated") for action in shown if "deprecated" in action} == {
        "get": DEPRECATED
    }
