"""Secrets go in, references come out, and nothing crosses tenants or spaces."""

from __future__ import annotations

from typing import Any

import pytest

from erp.contracts.models import secrets as api
from erp.errors import ProviderError
from erp.providers.secrets.local.provider import LocalSecrets
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio


@pytest.fixture
def secrets(open_context: OpenContext) -> LocalSecrets:
    return LocalSecrets({"overlap_seconds": 86_400}, open_context)


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


async def test_a_secret_is_stored_under_a_reference_and_read_by_the_layer(
    secrets: LocalSecrets, ctx: CallContext
) -> None:
    stored = await secrets.put(api.PutRequest(path="crm/key", value="s3cret"), ctx)
    assert (stored.version, stored.reference) == (1, "secret://tenant/crm/key#1")
    assert (await secrets.get(api.GetRequest(path="crm/key"), ctx)).value == "s3cret"


async def test_rotating_keeps_the_version_before_and_announces_the_new_one(
    secrets: LocalSecrets, ctx: CallContext
) -> None:
    await secrets.put(api.PutRequest(path="k", value="one"), ctx)
    rotated = await secrets.rotate(api.RotateRequest(path="k", value="two"), ctx)

    assert rotated.version == 2
    assert (await secrets.get(api.GetRequest(path="k", version=1), ctx)).value == "one"
    assert (await secrets.get(api.GetRequest(path="k"), ctx)).value == "two"
    versions = (await secrets.list_versions(api.ListVersionsRequest(path="k"), ctx)).versions
    assert [(item.version, item.state) for item in versions] == [(1, "previous"), (2, "current")]
    assert [event.data for event in ctx.emitted] == [{"path": "k", "version": 2}]


async def test_what_does_not_exist_is_not_rotated_or_read(secrets: LocalSecrets, ctx: CallContext) -> None:
    for call in (
        secrets.rotate(api.RotateRequest(path="nope", value="x"), ctx),
        secrets.get(api.GetRequest(path="nope"), ctx),
        secrets.list_versions(api.ListVersionsRequest(path="nope"), ctx),
    ):
        with pytest.raises(ProviderError) as refused:
            await call
        assert refused.value.code == "not_found"
    assert (await secrets.list(api.ListRequest(), ctx)).paths == []


async def test_paths_come_in_pages_and_only_from_the_tenants_own_space(
    secrets: LocalSecrets, ctx: CallContext, open_context: OpenContext
) -> None:
    await open_context.vault.put("acme", "connections/x/secret", "hidden")
    await open_context.vault.put("other", "tenant/a", "theirs")
    for path in ("a", "b/c", "b/d"):
        await secrets.put(api.PutRequest(path=path, value="x"), ctx)

    first = await secrets.list(api.ListRequest(limit=2), ctx)
    second = await secrets.list(api.ListRequest(limit=2, cursor=first.next_cursor), ctx)
    assert (first.paths, second.paths) == (["a", "b/c"], ["b/d"])
    assert (await secrets.list(api.ListRequest(prefix="b/"), ctx)).paths == ["b/c", "b/d"]
    with pytest.raises(ProviderError):
        await secrets.get(api.GetRequest(path="connections/x/secret"), ctx)


async def test_a_deleted_secret_is_gone(secrets: LocalSecrets, ctx: CallContext) -> None:
    await secrets.put(api.PutRequest(path="k", value="one"), ctx)
    assert (await secrets.delete(api.DeleteRequest(path="k"), ctx)).deleted is True
    assert (await secrets.delete(api.DeleteRequest(path="k"), ctx)).deleted is False
    assert (await secrets.health()).status == "ok"
