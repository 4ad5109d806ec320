from __future__ import annotations

import datetime

import pytest

from erp.control_plane import ControlPlane, key_text
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio


async def test_a_key_is_shown_once_and_stored_as_a_digest(control: ControlPlane) -> None:
    key, text = await control.api_keys.create("acme", role="developer", name="ci", scopes=["services:order:*"])
    record = await control.api_keys.find(key.id)
    assert record is not None
    assert record.digest == key_text.digest(b"pepper of the tests, 32 bytes...", text)
    assert (record.tenant, record.role, record.scopes) == ("acme", "developer", frozenset({"services:order:*"}))
    assert (await control.api_keys.list("acme")) == ([key], None)
    assert (await control.api_keys.list("globex")) == ([], None)
    assert key_text.key_id(text) == key.id
    assert await control.api_keys.find("00000000000") is None


async def test_all_that_is_wrong_with_a_key_is_said_at_once(control: ControlPlane) -> None:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    with pytest.raises(ProviderError) as refused:
        await control.api_keys.create(
            "acme", role="root", scopes=["providers:*:read", "everything"], expires_at=yesterday
        )
    assert refused.value.code == "invalid_argument"
    assert [error.pointer for error in refused.value.errors] == ["/scopes/1", "/role", "/expires_at"]
    with pytest.raises(ProviderError) as refused:
        await control.api_keys.create("nobody", role="admin")
    assert refused.value.code == "not_found"
    assert (await control.api_keys.list("acme")) == ([], None)


async def test_pages_of_keys_join_to_the_whole(control: ControlPlane) -> None:
    made = [(await control.api_keys.create("acme", role="admin", name=str(number)))[0] for number in range(5)]
    found, cursor = await control.api_keys.list("acme", limit=2)
    while cursor is not None:
        page, cursor = await control.api_keys.list("acme", limit=2, cursor=cursor)
        found += page
    assert [key.name for key in found] == [key.name for key in made]


async def test_a_key_is_revoked_once_and_only_by_its_tenant(control: ControlPlane) -> None:
    key, _ = await control.api_keys.create("acme", role="admin")
    assert await control.api_keys.revoke("globex", key.id) is False
    assert await control.api_keys.revoke("acme", key.id) is True
    assert await control.api_keys.revoke("acme", key.id) is False
    record = await control.api_keys.find(key.id)
    assert record is not None
    assert record.is_revoked is True
    assert (await control.api_keys.list("acme"))[0][0].revoked_at is not None
