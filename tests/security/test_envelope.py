from __future__ import annotations

from typing import Any

import pytest

from erp.errors import ProviderError
from erp.security import envelope
from erp.security.keyring import Keyring

pytestmark = pytest.mark.anyio

PLACE: dict[str, Any] = {"tenant": "acme", "path": "db/password", "version": 1}


async def test_a_sealed_value_opens_in_its_place(keyring: Keyring) -> None:
    key_id, sealed = await envelope.seal(keyring, b"hunter2", **PLACE)
    assert await envelope.unseal(keyring, key_id, sealed, **PLACE) == b"hunter2"
    assert b"hunter2" not in sealed
    assert len(sealed) == 1 + 12 + 48 + 12 + 7 + 16


async def test_the_same_value_is_never_sealed_the_same_way(keyring: Keyring) -> None:
    assert await envelope.seal(keyring, b"hunter2", **PLACE) != await envelope.seal(keyring, b"hunter2", **PLACE)


@pytest.mark.parametrize("other", [{"tenant": "globex"}, {"path": "db/passwor"}, {"version": 2}])
async def test_an_envelope_moved_to_another_place_does_not_open(keyring: Keyring, other: dict[str, Any]) -> None:
    key_id, sealed = await envelope.seal(keyring, b"hunter2", **PLACE)
    with pytest.raises(ProviderError) as refused:
        await envelope.unseal(keyring, key_id, sealed, **{**PLACE, **other})
    assert refused.value.code == "internal"
    assert "hunter2" not in str(refused.value)


async def test_names_cannot_be_shifted_into_each_other(keyring: Keyring) -> None:
    key_id, sealed = await envelope.seal(keyring, b"x", tenant="ab", path="c", version=1)
    with pytest.raises(ProviderError):
        await envelope.unseal(keyring, key_id, sealed, tenant="a", path="bc", version=1)


@pytest.mark.parametrize("position", [0, 1, 20, 61, 73, -1])
async def test_a_changed_byte_is_noticed(keyring: Keyring, position: int) -> None:
    key_id, sealed = await envelope.seal(keyring, b"hunter2", **PLACE)
    changed = bytearray(sealed)
    changed[position] ^= 1
    with pytest.raises(ProviderError):
        await envelope.unseal(keyring, key_id, bytes(changed), **PLACE)


@pytest.mark.parametrize("length", [0, 1, 13, 61, 73, 80])
async def test_a_truncated_envelope_does_not_open(keyring: Keyring, length: int) -> None:
    key_id, sealed = await envelope.seal(keyring, b"hunter2", **PLACE)
    with pytest.raises(ProviderError):
        await envelope.unseal(keyring, key_id, sealed[:length], **PLACE)


async def test_an_older_key_still_opens_and_a_missing_one_does_not(keyring: Keyring) -> None:
    key_id, sealed = await envelope.seal(keyring, b"hunter2", **PLACE)
    new, old = bytes(32), bytes(range(32))
    assert await envelope.unseal(Keyring(b"", (new, old)), key_id, sealed, **PLACE) == b"hunter2"
    with pytest.raises(ProviderError) as refused:
        await envelope.unseal(Keyring(b"", (new,)), key_id, sealed, **PLACE)
    assert refused.value.code == "failed_precondition"
