"""Providers come, change and go while calls go on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.runtime.conformance.scaffold import write_provider

pytestmark = pytest.mark.anyio

GET = "if request.key not in self._entries:"


@pytest.fixture
def folder(site: Site) -> Path:
    """A provider dropped in after the start."""
    return write_provider("cache/fresh", site.layer.settings.drop_in_dir)


def changed(folder: Path, version: str, old: str = "", new: str = "") -> None:
    """Write another version of the provider, with ``old`` replaced in its code."""
    manifest, module = folder / "provider.yaml", folder / "provider.py"
    before = next(line for line in manifest.read_text().splitlines() if line.startswith("version: "))
    manifest.write_text(manifest.read_text().replace(before, f"version: {version}"))
    assert old in module.read_text()
    module.write_text(module.read_text().replace(old, new) if old else module.read_text())


async def reloaded(site: Site, role: str = "platform") -> list[dict[str, Any]]:
    async with site.client(role) as client:
        answer = await client.post("/providers:reload")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def put(client: httpx2.AsyncClient, key: str, value: Any) -> httpx2.Response:
    return await client.post("/providers/cache/fresh/set", json={"params": {"key": key, "value": value}})


async def found(client: httpx2.AsyncClient, key: str) -> Any:
    answer = await client.post("/providers/cache/fresh/get", json={"params": {"key": key}})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def test_a_folder_dropped_in_can_be_called_after_a_reload(
    site: Site, client: httpx2.AsyncClient, folder: Path
) -> None:
    assert (await put(client, "a", 1)).status_code == 404

    assert await reloaded(site) == [{"ref": "cache/fresh", "outcome": "added", "version": "0.1.0", "connections": 0}]

    assert (await put(client, "a", 1)).status_code == 200
    assert (await found(client, "a"))["value"] == 1
    assert await reloaded(site) == []


@pytest.mark.slow
async def test_a_new_version_takes_over_and_the_old_one_ends_its_calls(
    site: Site, client: httpx2.AsyncClient, folder: Path
) -> None:
    changed(folder, "0.1.1", GET, "import asyncio; await asyncio.sleep(1)\n        " + GET)
    await reloaded(site)
    await put(client, "a", "old")
    slow = asyncio.create_task(found(client, "a"))
    await asyncio.sleep(0.3)
    changed(
        folder,
        "0.2.0",
        "import asyncio; await asyncio.sleep(1)\n        ",
        'return GetResult(found=True, value="new")\n        ',
    )

    assert await reloaded(site) == [{"ref": "cache/fresh", "outcome": "changed", "version": "0.2.0", "connections": 1}]

    assert (await found(client, "a"))["value"] == "new"
    assert (await slow)["value"] == "old"
    assert (await client.get("/providers/cache/fresh")).json()["version"] == "0.2.0"


async def test_not_one_call_fails_while_versions_follow_each_other(
    site: Site, client: httpx2.AsyncClient, folder: Path
) -> None:
    await reloaded(site)
    is_over = False
    statuses: list[int] = []

    async def caller() -> None:
        while not is_over:
            statuses.append((await put(client, "a", 1)).status_code)

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    for number in range(10):
        changed(folder, f"0.1.{number + 1}")
        assert [item["outcome"] for item in await reloaded(site)] == ["changed"]
    is_over = True
    await asyncio.gather(*callers)

    assert set(statuses) == {200}
    assert len(statuses) > 10


def break_code(folder: Path) -> None:
    changed(folder, "0.2.0", "async def open(self) -> None:", "async def open(self -> None:")


def break_manifest(folder: Path) -> None:
    (folder / "provider.yaml").write_text("ref: [")


def break_opening(folder: Path) -> None:
    text = '"""Acquire connections here, not in the constructor."""'
    changed(folder, "0.2.0", text, 'raise ConnectionError("no way in")')


def break_health(folder: Path) -> None:
    changed(folder, "0.2.0", 'Health(status="ok")', 'Health(status="down", message="the belt is torn")')


@pytest.mark.parametrize(
    ("breaking", "reason"),
    [
        (break_code, "provider:FreshCache cannot be loaded"),
        (break_manifest, "not valid YAML"),
        (break_opening, "no way in"),
        (break_health, "the belt is torn"),
    ],
)
async def test_a_bad_new_version_is_refused_with_its_reason_and_calls_go_on(
    site: Site, client: httpx2.AsyncClient, folder: Path, breaking: Callable[[Path], None], reason: str
) -> None:
    await reloaded(site)
    await put(client, "a", 1)
    good = folder.with_name("good")
    shutil.copytree(folder, good)
    breaking(folder)

    [change] = [item for item in await reloaded(site) if item["ref"] == "cache/fresh"]

    assert (change["outcome"], change["version"]) == ("refused", "0.1.0")
    assert reason in change["reason"]
    assert (await found(client, "a"))["value"] == 1
    assert (await client.get("/providers/cache/fresh/health")).json()["status"] == "ok"
    shutil.rmtree(folder)
    shutil.move(good, folder)
    assert await reloaded(site) == []  # as it was


async def test_a_removed_provider_is_gone_and_comes_back(
    site: Site, client: httpx2.AsyncClient, folder: Path, tmp_path: Path
) -> None:
    await reloaded(site)
    await put(client, "a", 1)
    shutil.move(folder, tmp_path / "aside")

    assert await reloaded(site) == [{"ref": "cache/fresh", "outcome": "removed", "connections": 1}]

    gone = await put(client, "a", 1)
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    assert "cache/fresh" not in (await client.get("/providers?domain=cache")).text
    assert len(site.layer.pool) == 0
    shutil.move(tmp_path / "aside", folder)
    await reloaded(site)
    assert (await put(client, "a", 1)).status_code == 200


async def test_a_folder_that_never_worked_is_refused_and_a_mended_one_taken(
    site: Site, client: httpx2.AsyncClient, folder: Path
) -> None:
    text = (folder / "provider.py").read_text()
    (folder / "provider.py").write_text("import nothing from")

    [change] = await reloaded(site)

    assert change["outcome"] == "refused"
    assert "version" not in change
    assert (await put(client, "a", 1)).status_code == 404
    (folder / "provider.py").write_text(text)
    assert [item["outcome"] for item in await reloaded(site)] == ["added"]


@pytest.mark.parametrize("role", ["admin", "operator", "developer"])
async def test_only_the_platform_may_reload(site: Site, role: str, folder: Path) -> None:
    async with site.client(role) as refused:
        answer = await refused.post("/providers:reload")

    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert "cache/fresh" not in site.layer.catalog.providers


async def test_what_was_reloaded_is_in_the_audit_trail(site: Site, folder: Path) -> None:
    await reloaded(site)

    async with site.client("platform") as platform:
        entries = (await platform.get("/audit")).json()["items"]

    assert ("catalog.added", "cache/fresh") in {(entry["action"], entry["target"]) for entry in entries}
