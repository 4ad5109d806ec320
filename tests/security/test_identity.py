from __future__ import annotations

import asyncio
import datetime
import time
from typing import Any

import pytest
import sqlalchemy as sa

from erp.control_plane import ControlPlane, key_text
from erp.control_plane.tables import api_keys
from erp.errors import ProviderError
from erp.runtime.context import Actor
from erp.security.identity import KeyIdentity

pytestmark = pytest.mark.anyio

PEPPER = b"pepper of the tests, 32 bytes..."


@pytest.fixture
def identity(control: ControlPlane) -> KeyIdentity:
    return KeyIdentity(control.api_keys, PEPPER)


async def refusal(identity: KeyIdentity, credential: str) -> tuple[str, int, str]:
    with pytest.raises(ProviderError) as refused:
        await identity.authenticate(credential)
    return refused.value.code.value, refused.value.status, refused.value.message


REFUSED = ("unauthenticated", 401, "The credential is not valid.")


async def test_a_key_names_its_actor(control: ControlPlane, identity: KeyIdentity) -> None:
    key, text = await control.api_keys.create("acme", role="developer", scopes=["services:order:*"])
    expected = Actor(
        id=f"key_{key.id}",
        tenant="acme",
        roles=frozenset({"developer"}),
        scopes=frozenset({"services:order:*"}),
        kind="key",
    )
    assert await identity.authenticate(text) == expected
    assert await identity.authenticate(text) is await identity.authenticate(text)


async def test_every_refusal_sounds_the_same(control: ControlPlane, identity: KeyIdentity) -> None:
    key, text = await control.api_keys.create("acme", role="admin")
    body = text[:21] + "0" * 33
    right_id_wrong_secret = body + key_text._checksum(body)
    revoked_key, revoked = await control.api_keys.create("acme", role="admin")
    await control.api_keys.revoke("acme", revoked_key.id)
    credentials = ("", "x", "\ud800", text[:-1], text + "0", key_text.mint().text, right_id_wrong_secret, revoked)
    assert [await refusal(identity, credential) for credential in credentials] == [REFUSED] * len(credentials)
    assert (await identity.authenticate(text)).id == f"key_{key.id}"


async def test_a_key_of_another_pepper_is_refused(control: ControlPlane) -> None:
    _, text = await control.api_keys.create("acme", role="admin")
    assert await refusal(KeyIdentity(control.api_keys, b"another"), text) == REFUSED


async def test_what_cannot_be_a_key_is_refused_without_the_database(
    control: ControlPlane, identity: KeyIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = key_text.mint().text
    control.revisions.trusted_until = time.monotonic() + 60
    monkeypatch.setattr(control.database, "run", None)
    assert await refusal(identity, text[:-1] + ("0" if text[-1] != "0" else "1")) == REFUSED


async def test_a_known_key_is_answered_without_the_database(
    control: ControlPlane, identity: KeyIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = await control.api_keys.create("acme", role="admin")
    actor = await identity.authenticate(text)
    control.revisions.trusted_until = time.monotonic() + 60
    monkeypatch.setattr(control.database, "run", None)
    assert await identity.authenticate(text) is actor
    assert text.encode() not in b"".join(identity._known)


async def test_a_revoked_key_is_refused_at_once(control: ControlPlane, identity: KeyIdentity) -> None:
    key, text = await control.api_keys.create("acme", role="admin")
    await identity.authenticate(text)
    await control.api_keys.revoke("acme", key.id)
    assert await refusal(identity, text) == REFUSED


async def test_a_key_made_and_revoked_by_another_process_counts_within_a_second(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await there.tenants.create("acme")
    identity = KeyIdentity(here.api_keys, PEPPER)
    await refusal(identity, key_text.mint().text)
    key, text = await there.api_keys.create("acme", role="admin")
    assert (await identity.authenticate(text)).tenant == "acme"

    await there.api_keys.revoke("acme", key.id)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = (await asyncio.gather(identity.authenticate(text), return_exceptions=True))[0]
        if isinstance(answer, ProviderError):
            break
        await asyncio.sleep(0.02)
    assert time.monotonic() < deadline
    assert await refusal(identity, text) == REFUSED


async def test_the_key_of_a_removed_tenant_is_refused(control: ControlPlane, identity: KeyIdentity) -> None:
    _, text = await control.api_keys.create("acme", role="admin")
    await identity.authenticate(text)
    await control.tenants.delete("acme")
    assert await refusal(identity, text) == REFUSED


async def test_a_key_expires_also_while_it_is_remembered(control: ControlPlane, identity: KeyIdentity) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=0.15)
    _, text = await control.api_keys.create("acme", role="admin", expires_at=soon)
    assert (await identity.authenticate(text)).tenant == "acme"
    await asyncio.sleep(0.16)
    assert await refusal(identity, text) == REFUSED


async def test_a_credential_that_cannot_be_checked_is_not_accepted(
    control: ControlPlane, identity: KeyIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = await control.api_keys.create("acme", role="admin")
    await identity.authenticate(text)

    async def away(_: object) -> None:
        raise ProviderError("unavailable", "The control plane's database does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(control.database, "run", away)
        control.revisions.trusted_until = 0.0
        with pytest.raises(ProviderError) as refused:
            await identity.authenticate(text)
        assert refused.value.code == "unavailable"
    assert (await identity.authenticate(text)).tenant == "acme"


async def test_a_key_read_before_its_revocation_is_not_remembered_after_it(
    control: ControlPlane, identity: KeyIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, text = await control.api_keys.create("acme", role="admin")
    find = control.api_keys.find

    async def slow_find(id_: str) -> Any:
        record = await find(id_)
        await control.api_keys.revoke("acme", id_)
        return record

    with monkeypatch.context() as patch:
        patch.setattr(control.api_keys, "find", slow_find)
        await identity.authenticate(text)
    assert await refusal(identity, text) == REFUSED
    found = sa.select(api_keys.c.revoked_at).where(api_keys.c.id == key.id)
    assert await control.database.run(lambda connection: connection.execute(found).scalar()) is not None
