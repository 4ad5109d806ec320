"""Of two changes meant for the same state one is made; the other is told, on every database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from tests.conftest import OpenControlPlane

from erp.control_plane import ControlPlane, moments
from erp.control_plane.expected import ABSENT, expect
from erp.errors import ProviderError
from erp.runtime.ports import Connection, Route, RouteTarget

pytestmark = pytest.mark.anyio

CONNECTION = Connection(
    tenant="acme", domain="cache", provider="memory", name="main", revision="", config={}, secrets={}, policy={}
)
ROUTE = Route(
    tenant="acme", domain="cache", name="a-b", kind="single", revision="", targets=[RouteTarget(provider="memory")]
)


async def conflict(changing: Awaitable[Any]) -> None:
    with pytest.raises(ProviderError) as refused:
        await changing
    assert refused.value.code == "conflict"


@pytest.mark.parametrize(
    ("wanted", "present", "said"),
    [("a", "b", "was changed"), ("a", None, "was removed"), (ABSENT, "b", "was created")],
)
async def test_the_message_says_what_happened(wanted: str, present: str | None, said: str) -> None:
    with pytest.raises(ProviderError, match=said):
        expect("thing", wanted, present)
    expect("thing", None, present)
    expect("thing", present or ABSENT, present)


Put = Callable[[ControlPlane, str | None], Awaitable[Any]]


async def put_connection(plane: ControlPlane, revision: str | None) -> Any:
    return await plane.connections.put(msgspec.structs.replace(CONNECTION), revision=revision)


async def put_route(plane: ControlPlane, revision: str | None) -> Any:
    return await plane.routes.put(ROUTE, revision=revision)


async def put_tenant(plane: ControlPlane, revision: str | None) -> Any:
    return await plane.tenants.update("acme", revision=revision, region="eu")


@pytest.mark.parametrize("put", [put_connection, put_route, put_tenant])
async def test_of_concurrent_changes_of_one_revision_one_is_made(
    open_control_plane: OpenControlPlane, put: Put
) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await here.tenants.create("acme")
    first = await put(here, None)

    changes = [put(plane, first.revision) for plane in (here, there, here, there)]
    answers = await asyncio.gather(*changes, return_exceptions=True)

    refused = [answer for answer in answers if isinstance(answer, ProviderError)]
    assert [error.code for error in refused] == ["conflict"] * 3
    [made] = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert (await put(there, made.revision)).revision != made.revision


async def put_quota(plane: ControlPlane, revision: str | None) -> Any:
    return await plane.quotas.set("acme", "day", 5, revision=revision)


@pytest.mark.parametrize("put", [put_connection, put_route, put_quota])
async def test_of_concurrent_first_ones_one_is_made(open_control_plane: OpenControlPlane, put: Put) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await here.tenants.create("acme")

    answers = await asyncio.gather(*(put(plane, ABSENT) for plane in (here, there) * 2), return_exceptions=True)

    assert sorted(getattr(answer, "code", "made") for answer in answers) == ["conflict"] * 3 + ["made"]


async def test_of_concurrent_keys_that_must_be_the_first_one_is_made(open_control_plane: OpenControlPlane) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await here.tenants.create("acme")

    made = [plane.api_keys.create("acme", role="admin", name="ci", revision=ABSENT) for plane in (here, there) * 2]
    answers = await asyncio.gather(*made, return_exceptions=True)

    assert sum(isinstance(answer, ProviderError) and answer.code == "conflict" for answer in answers) == 3
    [key], _ = await here.api_keys.list("acme")
    await here.api_keys.revoke("acme", key.id)
    await here.api_keys.create("acme", role="admin", name="ci", revision=ABSENT)


async def test_the_facts_of_a_key_change_under_its_revision_alone(control: ControlPlane) -> None:
    key, _ = await control.api_keys.create("acme", role="developer", name="ci")
    changed = await control.api_keys.update("acme", key.id, revision=key.revision, scopes=["admin:*:*"])

    await conflict(control.api_keys.update("acme", key.id, revision=key.revision, role="admin"))
    await conflict(control.api_keys.revoke("acme", key.id, revision=key.revision))
    with pytest.raises(ProviderError, match="There is no API key"):
        await control.api_keys.update("globex", key.id, role="admin")

    assert await control.api_keys.get("acme", key.id) == changed
    assert (changed.role, changed.scopes) == ("developer", ["admin:*:*"])
    assert await control.api_keys.revoke("acme", key.id, revision=changed.revision) is True


async def test_a_tenant_gets_a_new_revision_while_the_clock_stands_still_or_goes_back(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = moments.now()
    monkeypatch.setattr(moments, "now", lambda: present - 3_600_000_000)

    revisions = {(await control.tenants.update("acme", region=region)).revision for region in ("a", "b", "c")}

    assert len(revisions) == 3


async def test_a_quota_is_set_and_removed_under_its_revision_alone(control: ControlPlane) -> None:
    quota = await control.quotas.set("acme", "day", 5, revision=ABSENT)
    await conflict(control.quotas.set("acme", "day", 6, revision=ABSENT))
    await control.quotas.set("acme", "day", 6, revision=quota.revision)

    await conflict(control.quotas.delete("acme", "day", revision=quota.revision))

    assert [item.limit for item in await control.quotas.list("acme")] == [6]
    assert await control.quotas.delete("acme", "day", revision="6") is True


async def test_a_default_is_cleared_by_the_one_that_has_it(control: ControlPlane) -> None:
    await control.connections.set_domain_default("acme", "cache", "memory", "main")
    await control.connections.clear_domain_default("acme", "cache", "memory", "other")
    assert await control.connections.domain_default("acme", "cache") == ("memory", "main")

    await control.connections.clear_domain_default("acme", "cache", "memory", "main")

    assert await control.connections.domain_default("acme", "cache") is None
