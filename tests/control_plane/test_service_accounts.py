from __future__ import annotations

import pytest

from erp.control_plane import ControlPlane
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio


async def test_the_keys_of_a_disabled_or_removed_account_are_invalid(control: ControlPlane) -> None:
    await control.service_accounts.create("acme", "bot", role="developer", scopes=["services:order:*"])
    key, _ = await control.api_keys.create("acme", role="developer", service_account="bot")
    assert key.scopes == ["services:order:*"]
    states = []
    for disabled in (True, False):
        await control.service_accounts.disable("acme", "bot", disabled=disabled)
        record = await control.api_keys.find(key.id)
        assert record is not None
        states.append(record.is_revoked)
    await control.service_accounts.delete("acme", "bot")
    record = await control.api_keys.find(key.id)
    assert record is not None
    assert [*states, record.is_revoked] == [True, False, True]


async def test_pages_of_accounts_join_to_the_whole(control: ControlPlane) -> None:
    for name in ("c", "a", "b"):
        await control.service_accounts.create("acme", name, role="agent")
    first, cursor = await control.service_accounts.list("acme", limit=2)
    rest, end = await control.service_accounts.list("acme", limit=2, cursor=cursor)
    assert ([one.name for one in first + rest], end) == (["a", "b", "c"], None)
    assert await control.service_accounts.list("globex") == ([], None)


async def test_a_rotated_key_is_the_newest_of_its_name_and_shares_no_text(control: ControlPlane) -> None:
    old, old_text = await control.api_keys.create("acme", role="developer", name="ci", rate={"requests": 7})
    new, text = await control.api_keys.rotate("acme", old.id, overlap_seconds=60)
    assert (new.replaces, new.rate and new.rate.requests, text != old_text) == (old.id, 7, True)
    assert (await control.api_keys.get("acme", old.id)).expires_at is not None
    with pytest.raises(ProviderError, match="was changed meanwhile"):
        await control.api_keys.create("acme", role="developer", name="ci", revision="other")
    with pytest.raises(ProviderError, match="no API key"):
        await control.api_keys.rotate("globex", new.id, overlap_seconds=60)
