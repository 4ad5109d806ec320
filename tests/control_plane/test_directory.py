from __future__ import annotations

import asyncio
from typing import Any

import pytest

from erp.control_plane import ControlPlane, moments
from erp.control_plane.directory import Standing
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio


async def test_a_person_has_the_roles_of_its_groups_while_it_is_active(control: ControlPlane) -> None:
    directory = control.directory
    ada = await directory.create("acme", "User", {"userName": "Ada", "externalId": "e1"})
    await directory.create("acme", "Group", {"displayName": "Buyers", "members": [{"value": ada.id}]})
    await directory.set_roles("acme", {"Buyers": "developer", "Others": "admin"})
    assert await directory.standing("acme", "ADA") == Standing(is_active=True, roles=frozenset({"developer"}))
    assert await directory.standing("globex", "ada") is None
    await directory.change("acme", "User", ada.id, lambda facts: {**facts, "active": False}, None)
    assert await directory.standing("acme", "e1") == Standing(is_active=False, roles=frozenset({"developer"}))


async def test_of_changes_made_at_the_same_time_none_is_lost(control: ControlPlane) -> None:
    ada = await control.directory.create("acme", "User", {"userName": "ada", "tags": []})

    async def tag(number: int) -> None:
        def tagged(facts: dict[str, Any]) -> dict[str, Any]:
            return {**facts, "tags": [*facts["tags"], number]}

        await control.directory.change("acme", "User", ada.id, tagged, None)

    await asyncio.gather(*(tag(number) for number in range(8)))
    found = await control.directory.get("acme", "User", ada.id)
    assert (sorted(found.facts["tags"]), found.version) == (list(range(8)), 9)


async def test_a_refused_change_leaves_everything_as_it_was(control: ControlPlane) -> None:
    group = await control.directory.create("acme", "Group", {"displayName": "g", "members": []})
    changed = {"displayName": "h", "members": [{"value": "nobody"}]}
    with pytest.raises(ProviderError, match="no user of this directory"):
        await control.directory.change("acme", "Group", group.id, lambda _: changed, None)
    with pytest.raises(ProviderError, match="changed meanwhile"):
        await control.directory.delete("acme", "Group", group.id, 7)
    assert await control.directory.get("acme", "Group", group.id) == group


async def test_an_assertion_is_used_once_and_forgotten_when_it_could_not_be_used_any_more(
    control: ControlPlane,
) -> None:
    def use(tenant: str, ends: int) -> asyncio.Future[bool]:
        return asyncio.ensure_future(control.saml.use(tenant, "https://idp", "_1", ends))

    later = moments.after(60)
    assert sorted(await asyncio.gather(*(use("acme", later) for _ in range(5)))) == [False] * 4 + [True]
    assert await use("globex", moments.after(-1)) is True
    assert await use("globex", later) is True
