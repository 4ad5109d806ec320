"""What the layer says about its providers."""

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.contracts.loading import catalog

pytestmark = pytest.mark.anyio


async def test_providers_are_listed_page_by_page_without_gap_or_repetition(client: httpx2.AsyncClient) -> None:
    everything = [item["ref"] for item in (await client.get("/providers", params={"limit": 200})).json()["items"]]
    seen, cursor = [], None
    while True:
        params = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/providers", params=params)).json()
        seen += [item["ref"] for item in page["items"]]
        cursor = page.get("next_cursor")
        if cursor is None:
            break

    assert seen == everything == sorted(everything)
    assert {"cache/memory", "db/sqlite", "bus/log", "storage/filesystem"} <= set(everything)


PROVIDERS = catalog()["providers"]
OF_CACHE = [ref for ref in PROVIDERS if ref.startswith("cache/")]
WITH_TTI = [ref for ref, manifest in PROVIDERS.items() if "tti" in manifest["capabilities"]]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"domain": "cache"}, OF_CACHE),
        ({"capability": "tti"}, WITH_TTI),
        ({"text": "WEBHOOK"}, ["integration/webhook"]),
    ],
)
async def test_the_list_can_be_narrowed(
    client: httpx2.AsyncClient, params: dict[str, str], expected: list[str]
) -> None:
    found = [item["ref"] for item in (await client.get("/providers", params=params)).json()["items"]]
    assert found == expected
    assert len(found) < len(PROVIDERS)


async def test_a_cursor_that_was_made_up_is_refused(client: httpx2.AsyncClient) -> None:
    response = await client.get("/providers", params={"cursor": "%%%"})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/query/cursor")


async def test_a_provider_shows_its_schemas_and_how_each_capability_is_proven(client: httpx2.AsyncClient) -> None:
    found = (await client.get("/providers/cache/memory")).json()

    assert found["config_schema"]["type"] == "object"
    assert set(found["proof"]) == set(found["capabilities"])
    get = next(action for action in found["actions"] if action["name"] == "get")
    assert get["effect"] == "read"
    assert get["params"]["required"] == ["key"]


async def test_internal_actions_are_not_offered(client: httpx2.AsyncClient) -> None:
    found = (await client.get("/providers/secrets/local")).json()
    assert "get" not in [action["name"] for action in found["actions"]]


async def test_a_domain_shows_its_contract_and_its_providers(client: httpx2.AsyncClient) -> None:
    found = (await client.get("/providers/cache")).json()
    assert [item["ref"] for item in found["providers"]] == OF_CACHE
    assert "cache/memory" in OF_CACHE
    assert "ttl" in found["capabilities"]


async def test_health_asks_the_connection_now(client: httpx2.AsyncClient) -> None:
    found = (await client.get("/providers/cache/memory/health")).json()
    assert (found["status"], found["connection"], found["breaker"]) == ("ok", "default", "closed")


async def test_metrics_of_a_provider_show_the_callers_tenant_alone(site: Site) -> None:
    await site.layer.control.tenants.create("globex")
    _, site.keys["globex"] = await site.layer.control.api_keys.create("globex", role="operator")
    async with site.client() as acme, site.client("globex") as globex:
        for _ in range(3):
            await acme.post("/providers/cache/memory/get", json={"params": {"key": "k"}})
        ours = (await acme.get("/providers/cache/memory/metrics")).text
        theirs = (await globex.get("/providers/cache/memory/metrics")).text

    line = 'erp_calls_total{action="get",code="ok",target="cache/memory"} 3.0'
    assert line in ours
    assert line not in theirs
    assert ours.rstrip().endswith("# EOF")


async def test_only_health_and_readiness_answer_without_a_credential(site: Site) -> None:
    async with site.client(None) as anonymous:
        assert (await anonymous.get("/healthz")).json()["status"] == "ok"
        assert (await anonymous.get("/readyz")).json()["status"] == "ok"
        for path in (
            "/providers",
            "/metrics",
            "/openapi.json",
            "/asyncapi.json",
            "/tenants",
            "/providers/cache/memory",
        ):
            assert (await anonymous.get(path)).status_code == 401, path


async def test_the_layer_is_not_ready_while_it_drains(site: Site) -> None:
    async with site.client(None) as anonymous:
        site.layer.calls.is_draining = True
        response = await anonymous.get("/readyz")
        assert (response.status_code, response.json()["status"]) == (503, "down")
        site.layer.calls.is_draining = False
        assert (await anonymous.get("/readyz")).status_code == 200
