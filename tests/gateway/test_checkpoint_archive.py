"""Signed checkpoints leave for a storage connection by themselves, and nothing there is ever written again."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from tests.conformance.live import storage_s3
from tests.gateway.conftest import Site

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.tables import audit_checkpoints
from erp.errors import ProviderError
from erp.main import Settings, running
from erp.providers.storage.filesystem.provider import FileStorage
from erp.security.checkpoint_archive import ArchivePlace

pytestmark = pytest.mark.anyio

PLACE = "platform/filesystem#default"


async def grow(site: Site) -> None:
    async with site.client("admin") as admin:
        answer = await admin.post("/providers/cache/memory/set", json={"params": {"key": "a", "value": 1}})
        assert answer.status_code == 200


async def asked(client: httpx2.AsyncClient, action: str, **params: Any) -> Any:
    answer = await client.post(f"/providers/storage/filesystem/{action}", json={"params": params})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def kept(site: Site) -> dict[str, str]:
    """The objects of the archive."""
    async with site.client("platform") as platform:
        keys = [one["key"] for one in (await asked(platform, "list", prefix="audit/"))["objects"]]
        return {key: base64.b64decode((await asked(platform, "get", key=key))["content"]).decode() for key in keys}


async def test_each_checkpoint_is_copied_once_into_the_storage_of_another_tenant(site: Site) -> None:
    archive, control = site.layer.archive_at(PLACE), site.layer.control
    await grow(site)
    made = {one.tenant: one for one in await site.layer.audit_keeper.checkpoints.make_all()}
    assert await archive.send(control.checkpoints) == len(made)
    note = made["acme"].note
    assert (await kept(site))[f"audit/acme/{made['acme'].size:012}.txt"] == note
    assert await archive.notes("acme") == [note]
    assert await archive.send(control.checkpoints) == 0


async def test_a_log_that_grows_by_its_own_archiving_comes_to_rest(site: Site) -> None:
    archive, keeper = site.layer.archive_at(PLACE), site.layer.audit_keeper
    for _ in range(2):
        await keeper.checkpoints.make_all()
        await archive.send(site.layer.control.checkpoints)
    assert await keeper.checkpoints.make_all() == []
    await grow(site)
    assert [one.tenant for one in await keeper.checkpoints.make_all()] == ["acme"]


async def test_what_is_there_is_not_overwritten_and_holds_up_nobody(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await grow(site)
    made = {one.tenant: one for one in await site.layer.audit_keeper.checkpoints.make_all()}
    key = f"audit/acme/{made['acme'].size:012}.txt"
    async with site.client("platform") as platform:
        await asked(platform, "put", key=key, content=base64.b64encode(b"forged").decode())
    with caplog.at_level(logging.ERROR):
        sent = await site.layer.archive_at(PLACE).send(site.layer.control.checkpoints)
    objects = await kept(site)
    assert (sent, objects[key]) == (len(made) - 1, "forged")
    assert "the checkpoint of acme" in caplog.text
    assert [one.tenant for one in await site.layer.control.checkpoints.unarchived(("", 0), 10)] == ["acme"]


async def test_an_archive_may_be_a_bucket(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    address = os.environ.get(storage_s3.VARIABLE)
    if not address:
        pytest.skip(f"needs a server: set {storage_s3.VARIABLE}")
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
    await site.layer.control.tenants.create("notary")
    _, site.keys["notary"] = await site.layer.control.api_keys.create("notary", role="admin")
    config = storage_s3.config(address)
    async with site.client("notary") as notary:
        made = await notary.post(
            "/providers/storage/s3/configure", json={"config": config}, headers={"x-connection": "archive"}
        )
        assert made.status_code < 300, made.text
    await grow(site)
    (note,) = [one.note for one in await site.layer.audit_keeper.checkpoints.make_all() if one.tenant == "acme"]
    archive, stored = site.layer.archive_at("notary/s3#archive"), site.layer.control.checkpoints
    assert await archive.send(stored) > 0
    assert await archive.notes("acme") == [note]
    await site.layer.control.database.transact(
        partial(sa.Connection.execute, statement=sa.update(audit_checkpoints).values(archived_at=None))
    )
    assert await archive.send(stored) > 0  # what is there says the same
    assert await archive.notes("acme") == [note]


@pytest.mark.slow
async def test_an_archive_that_was_away_gets_everything_once_it_is_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, control, put = site.layer.archive_at(PLACE), site.layer.control, FileStorage.put
    await grow(site)
    made = await site.layer.audit_keeper.checkpoints.make_all()

    async def away(*_: Any) -> Any:
        raise ProviderError(ErrorCode.UNAVAILABLE, "The disk is away.")

    monkeypatch.setattr(FileStorage, "put", away)
    assert await archive.send(control.checkpoints) == 0
    monkeypatch.setattr(FileStorage, "put", put)
    for _ in range(600):  # the connection's breaker lets calls through again
        if await archive.send(control.checkpoints):
            break
        await asyncio.sleep(0.05)
    assert {one.note for one in made} <= set((await kept(site)).values())


async def test_the_layer_does_it_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_AUDIT_ARCHIVE", PLACE)
    monkeypatch.setenv("ERP_AUDIT_CHECKPOINT_SECONDS", "0.05")
    async with running(Settings(data_dir=tmp_path / "data", database_url=None, log_level="error")) as layer:
        site = Site(layer, {"platform": await layer.first_key() or ""})
        await layer.control.tenants.create("acme", name="Acme")
        _, site.keys["admin"] = await layer.control.api_keys.create("acme", role="admin")
        await grow(site)
        for _ in range(600):
            if any(key.startswith("audit/acme/") for key in await kept(site)):
                return
            await asyncio.sleep(0.05)
    raise AssertionError("nothing was archived")


@pytest.mark.parametrize("text", ["s3#archive", "platform/s3", "platform/s3#", "Platform/s3#a", "a/b#c\n"])
def test_a_place_that_names_no_connection_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ProviderError, match="platform/s3#archive"):
        ArchivePlace.parse(text)
