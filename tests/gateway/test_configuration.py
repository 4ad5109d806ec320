"""Connections: validated, opened once before they are kept, secrets never shown."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from tests.gateway.conftest import Site

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + "c2VjcmV0LXRoYXQtbm9ib2R5LW1heS1zZWU="
WEBHOOK = "/providers/integration/webhook/configure"


@pytest.fixture
async def operator(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    async with site.client("operator") as made:
        yield made


async def test_a_connection_is_created_changed_listed_and_removed(operator: httpx2.AsyncClient) -> None:
    path = "/providers/cache/memory/configure"
    first = await operator.post(path, json={"connection": "small", "config": {"max_bytes": 2_000_000}})
    assert first.status_code == 200, first.text
    second = await operator.post(path, json={"connection": "small", "config": {"max_bytes": 3_000_000}})
    assert second.json()["revision"] != first.json()["revision"]

    listed = (await operator.get(path)).json()["items"]
    assert [(item["connection"], item["config"]) for item in listed] == [
        ("default", {}),
        ("small", {"max_bytes": 3_000_000}),
    ]
    value = await operator.post(
        "/providers/cache/memory/get", json={"params": {"key": "k"}}, headers={"X-Connection": "small"}
    )
    assert value.status_code == 200

    assert (await operator.delete(path, headers={"X-Connection": "small"})).status_code == 204
    gone = await operator.post(
        "/providers/cache/memory/get", json={"params": {"key": "k"}}, headers={"X-Connection": "small"}
    )
    assert gone.status_code == 404
    assert (await operator.delete(path, headers={"X-Connection": "small"})).status_code == 404


async def test_every_error_of_a_configuration_is_named_and_nothing_is_kept(operator: httpx2.AsyncClient) -> None:
    path = "/providers/cache/memory/configure"
    response = await operator.post(path, json={"connection": "x", "config": {"max_bytes": "big", "colour": 1}})

    assert response.status_code == 400
    assert sorted(error["pointer"] for error in response.json()["errors"]) == ["/config/colour", "/config/max_bytes"]
    assert [item["connection"] for item in (await operator.get(path)).json()["items"]] == ["default"]


async def test_a_secret_is_kept_in_the_vault_and_shown_as_a_reference(
    site: Site, operator: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
    made = await operator.post(
        WEBHOOK, json={"config": {"url": "http://127.0.0.1:9/hook", "secret": SECRET}, "may_be_down": True}
    )

    assert made.status_code == 200, made.text
    assert made.json()["config"]["secret"].startswith("secret://connections/integration/webhook/default/secret#")
    assert SECRET not in made.text + (await operator.get(WEBHOOK)).text
    database = (site.layer.settings.data_dir / "control.db").read_bytes()
    assert SECRET.encode() not in database


async def test_a_configuration_that_cannot_open_is_refused_and_the_old_one_stays(
    operator: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
    kept = {"url": "http://127.0.0.1:9/hook", "secret": SECRET}
    first = await operator.post(WEBHOOK, json={"config": kept, "may_be_down": True})

    refused = await operator.post(WEBHOOK, json={"config": {"url": "http://10.0.0.1/hook", "secret": SECRET}})

    assert refused.status_code == 412, refused.text
    assert SECRET not in refused.text
    assert (await operator.get(WEBHOOK)).json()["items"][0]["revision"] == first.json()["revision"]


async def test_a_secret_of_the_wrong_form_is_refused_without_being_repeated(operator: httpx2.AsyncClient) -> None:
    response = await operator.post(
        WEBHOOK, json={"config": {"url": "https://example.com/", "secret": "hunter2-hunter2"}}
    )
    assert response.status_code in {400, 412}
    assert "hunter2" not in response.text


async def test_a_developer_may_not_configure(client: httpx2.AsyncClient) -> None:
    response = await client.post("/providers/cache/memory/configure", json={"connection": "x", "config": {}})
    assert response.status_code == 403


async def test_a_reference_is_held_to_the_form_of_what_it_stands_for(
    operator: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
    for path, value in (("hooks/good", SECRET), ("hooks/bad", "hunter2")):
        params = {"path": path, "value": value}
        stored = await operator.post("/providers/secrets/local/put", json={"params": params})
        assert stored.status_code == 200, stored.text

    async def configured(reference: str) -> httpx2.Response:
        config = {"url": "http://127.0.0.1:9/hook", "secret": reference}
        return await operator.post(WEBHOOK, json={"config": config, "may_be_down": True})

    bad = await configured("secret://tenant/hooks/bad")
    assert (bad.status_code, [error["pointer"] for error in bad.json()["errors"]]) == (400, ["/config/secret"])
    assert "hunter2" not in bad.text
    for missing in ("secret://tenant/hooks/none", "secret://tenant/hooks/good#9", "secret://tenant/hooks/good#first"):
        answer = await configured(missing)
        assert (answer.status_code, [error["pointer"] for error in answer.json()["errors"]]) == (
            400,
            ["/config/secret"],
        )

    good = await configured("secret://tenant/hooks/good")
    assert good.status_code == 200, good.text
    assert good.json()["config"]["secret"] == "secret://tenant/hooks/good"
