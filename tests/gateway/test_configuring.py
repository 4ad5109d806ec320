"""A configuration is taken into use when it has proven itself; whatever happens, calls go on and nothing half done is left."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.runtime.conformance.scaffold import write_provider

pytestmark = pytest.mark.anyio

PATH = "/providers/cache/guarded/configure"
CONFIG = """\
    password:
      type: string
      title: Password
      description: Opens the cache.
      maxLength: 100
      x-erp-secret: true
    open_seconds:
      type: number
      title: Time to open
      description: How long it takes.
      minimum: 0
      maximum: 60
      default: 0
"""


@pytest.fixture
async def operator(site: Site) -> Any:
    async with site.client("operator") as made:
        yield made


@pytest.fixture(autouse=True)
async def guarded(site: Site) -> Path:
    """``cache/guarded``: opens after a while unless the password is ``wrong``, and is down with the password ``dead``."""
    folder = write_provider("cache/guarded", site.layer.settings.drop_in_dir)
    manifest, module = folder / "provider.yaml", folder / "provider.py"
    text = manifest.read_text()
    manifest.write_text(text.replace("  properties:\n", "  properties:\n" + CONFIG))
    code = module.read_text()
    code = code.replace(
        '        """Acquire connections here, not in the constructor."""',
        '        """Knock."""\n        import asyncio\n        await asyncio.sleep(self._config["open_seconds"])\n'
        '        if self._config.get("password") == "wrong":\n'
        '            raise ProviderError(ErrorCode.UNAUTHENTICATED, "The password is not right.")',
    )
    code = code.replace("self._context = context", "self._context = context\n        self._config = config")
    code = code.replace(
        'return Health(status="ok")',
        'return Health(status="down" if self._config.get("password") == "dead" else "ok", message="the light is off")',
    )
    code = code.replace("GetResult(found=False)", 'GetResult(found=True, value=self._config.get("password"))')
    module.write_text(code)
    [change] = await site.layer.hot_swap.reload()
    assert change.outcome == "added", change
    return folder


async def configure(client: httpx2.AsyncClient, prefer: str = "", **body: Any) -> httpx2.Response:
    config = {name: body.pop(name) for name in ("password", "open_seconds") if name in body}
    return await client.post(PATH, json={"config": config, **body}, headers={"Prefer": prefer} if prefer else {})


async def password(client: httpx2.AsyncClient) -> Any:
    answer = await client.post("/providers/cache/guarded/get", json={"params": {"key": "k"}})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["value"]


async def connection(client: httpx2.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(PATH)).json()["items"][0]
    return found


async def secrets_left(site: Site) -> list[str]:
    """Return the versions of the password that can still be read."""
    path = "connections/cache/guarded/default/password"
    versions = await site.layer.vault.versions("acme", path)
    return [await site.layer.vault.get("acme", path, one.version) for one in versions if one.state != "destroyed"]


async def until(condition: Any) -> None:
    ends = time.monotonic() + 30
    while not await condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("bad", "status", "words"), [("wrong", 401, "The password is not right"), ("dead", 503, "the light is off")]
)
async def test_a_bad_configuration_is_refused_with_its_reason_and_leaves_nothing(
    site: Site, operator: httpx2.AsyncClient, bad: str, status: int, words: str
) -> None:
    first = await configure(operator, password="one")

    refused = await configure(operator, password=bad)

    assert (refused.status_code, words in refused.json()["detail"]) == (status, True), refused.text
    assert await password(operator) == "one"
    now = await connection(operator)
    assert (now["revision"], now["last_operation"]["state"]) == (first.json()["revision"], "failed")
    assert words in now["last_operation"]["description"]
    assert await secrets_left(site) == ["one"]


async def test_a_first_configuration_that_fails_makes_no_connection(site: Site, operator: httpx2.AsyncClient) -> None:
    assert (await configure(operator, password="wrong")).status_code == 401

    assert await site.layer.control.connections.list("acme", domain="cache") == []
    assert await secrets_left(site) == []


async def test_what_is_down_is_stored_when_that_was_said(operator: httpx2.AsyncClient) -> None:
    answer = await configure(operator, password="dead", may_be_down=True)

    assert answer.status_code == 200, answer.text
    assert await password(operator) == "dead"


@pytest.mark.slow
async def test_not_one_call_fails_while_configurations_follow_each_other(operator: httpx2.AsyncClient) -> None:
    await configure(operator, password="0", open_seconds=0.02)
    is_over = False
    statuses: list[int] = []

    async def caller() -> None:
        while not is_over:
            answer = await operator.post("/providers/cache/guarded/get", json={"params": {"key": "k"}})
            statuses.append(answer.status_code)
            await asyncio.sleep(0.001)

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    for number in range(1, 11):
        assert (await configure(operator, password=f"{number}", open_seconds=0.02)).status_code == 200
        assert await password(operator) == f"{number}", "an answered change is in force"
    is_over = True
    await asyncio.gather(*callers)

    assert set(statuses) == {200}


async def test_what_takes_long_is_answered_with_its_operation(operator: httpx2.AsyncClient) -> None:
    answer = await configure(operator, "respond-async", password="slow", open_seconds=0.2)

    assert answer.status_code == 202, answer.text
    path = answer.headers["location"]
    assert (await connection(operator))["connection"] == "default"
    operation = (await operator.get(path, headers={"Prefer": "wait=5"})).json()
    assert (operation["state"], operation["target"]) == ("succeeded", "cache/guarded.configure")
    assert await password(operator) == "slow"
    assert (await connection(operator))["last_operation"] == {"id": operation["id"], "state": "succeeded"}


async def test_a_second_change_meanwhile_is_a_conflict_and_leaves_no_secret(
    site: Site, operator: httpx2.AsyncClient
) -> None:
    first = await configure(operator, "respond-async", password="one", open_seconds=0.3)

    second = await configure(operator, password="two")

    assert (second.status_code, second.json()["code"]) == (409, "conflict")
    assert first.json()["id"] in second.json()["detail"]
    await operator.get(first.headers["location"], headers={"Prefer": "wait=5"})
    assert await password(operator) == "one"
    assert await secrets_left(site) == ["one"]


@pytest.mark.slow
async def test_of_many_changes_at_once_one_wins_and_the_others_are_conflicts(operator: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(*(configure(operator, password=f"{n}", open_seconds=2) for n in range(6)))

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]


async def test_a_cancelled_change_leaves_everything_as_it_was(site: Site, operator: httpx2.AsyncClient) -> None:
    await configure(operator, password="one")
    begun = await configure(operator, "respond-async", password="two", open_seconds=30)

    await operator.delete(begun.headers["location"])

    operation = (await operator.get(begun.headers["location"], headers={"Prefer": "wait=5"})).json()
    assert operation["state"] == "cancelled"
    assert await password(operator) == "one"
    assert await secrets_left(site) == ["one"]
    assert (await configure(operator, password="three")).status_code == 200


async def test_no_secret_is_in_what_is_kept_of_an_operation(site: Site, operator: httpx2.AsyncClient) -> None:
    begun = await configure(operator, "respond-async", password="a secret to be found", open_seconds=0.05)
    shown = await operator.get(begun.headers["location"], headers={"Prefer": "wait=5"})

    kept = b"".join(path.read_bytes() for path in site.layer.settings.data_dir.glob("control.db*"))
    assert b"a secret to be found" not in kept + begun.content + shown.content


async def rotate(site: Site, value: str) -> None:
    await site.layer.vault.put("acme", "shared/password", value)


async def test_a_rotated_secret_reaches_the_connections_that_follow_it_without_a_failed_call(
    site: Site, operator: httpx2.AsyncClient
) -> None:
    await rotate(site, "first")
    assert (await configure(operator, password="secret://shared/password")).status_code == 200
    is_over = False
    statuses: set[int] = set()

    async def caller() -> None:
        while not is_over:
            answer = await operator.post("/providers/cache/guarded/get", json={"params": {"key": "k"}})
            statuses.add(answer.status_code)
            await asyncio.sleep(0.001)

    callers = [asyncio.create_task(caller()) for _ in range(4)]
    await rotate(site, "second")

    async def has_followed() -> bool:
        return bool(await password(operator) == "second")

    await until(has_followed)
    is_over = True
    await asyncio.gather(*callers)
    assert statuses == {200}


async def test_a_rotated_secret_that_does_not_open_is_refused_and_shown(
    site: Site, operator: httpx2.AsyncClient
) -> None:
    await rotate(site, "first")
    await configure(operator, password="secret://shared/password")
    await rotate(site, "wrong")

    async def is_shown() -> bool:
        return bool((await connection(operator))["last_operation"]["state"] == "failed")

    await until(is_shown)
    assert await password(operator) == "first"
    await rotate(site, "third")

    async def has_followed() -> bool:
        return bool(await password(operator) == "third")

    await until(has_followed)


async def test_a_connection_that_names_a_version_stays_with_it(site: Site, operator: httpx2.AsyncClient) -> None:
    await rotate(site, "first")
    await configure(operator, password="secret://shared/password#1")
    await rotate(site, "second")
    await asyncio.sleep(0.1)

    assert await password(operator) == "first"
