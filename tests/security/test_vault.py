from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from erp.control_plane import ControlPlane
from erp.control_plane.tables import secrets
from erp.errors import ProviderError
from erp.security.keyring import Keyring
from erp.security.vault import EnvelopeVault

pytestmark = pytest.mark.anyio


@pytest.fixture
def vault(control: ControlPlane, keyring: Keyring) -> EnvelopeVault:
    return EnvelopeVault(control.secrets, keyring)


async def states(vault: EnvelopeVault, path: str) -> list[tuple[int, str]]:
    return [(found.version, found.state) for found in await vault.versions("acme", path)]


async def refusal(vault: EnvelopeVault, tenant: str, path: str, version: int | None = None) -> str:
    with pytest.raises(ProviderError) as refused:
        await vault.get(tenant, path, version)
    return refused.value.code.value


async def test_a_new_version_leaves_the_earlier_ones_readable(vault: EnvelopeVault) -> None:
    assert await vault.put("acme", "db/password", "first") == 1
    assert await vault.put("acme", "db/password", "sécond") == 2
    assert await vault.get("acme", "db/password") == "sécond"
    assert await vault.get("acme", "db/password", 1) == "first"
    assert await states(vault, "db/password") == [(1, "previous"), (2, "current")]
    assert await refusal(vault, "acme", "db/password", 3) == "not_found"


async def test_tenants_do_not_see_each_others_secrets(vault: EnvelopeVault) -> None:
    await vault.put("acme", "db/password", "hunter2")
    assert await refusal(vault, "globex", "db/password") == "not_found"
    assert await vault.list("globex", "") == []
    assert await vault.delete("globex", "db/password") is False
    assert await vault.get("acme", "db/password") == "hunter2"
    with pytest.raises(ProviderError) as refused:
        await vault.put("nobody", "a", "b")
    assert refused.value.code == "not_found"


async def test_a_row_moved_to_another_tenant_does_not_open(control: ControlPlane, vault: EnvelopeVault) -> None:
    await vault.put("acme", "db/password", "hunter2")
    move = sa.update(secrets).values(tenant="globex")
    await control.database.transact(lambda connection: connection.execute(move))
    assert await refusal(vault, "globex", "db/password") == "internal"


async def test_what_is_stored_does_not_hold_the_secret(control: ControlPlane, vault: EnvelopeVault) -> None:
    await vault.put("acme", "db/password", "hunter2")
    row = await control.secrets.find("acme", "db/password", None)
    assert row is not None
    assert b"hunter2" not in (row.envelope or b"")


async def test_a_deleted_secret_is_destroyed_and_its_numbers_stay_used(vault: EnvelopeVault) -> None:
    await vault.put("acme", "a", "1")
    await vault.put("acme", "a", "2")
    assert await vault.delete("acme", "a") is True
    assert await vault.delete("acme", "a") is False
    assert await refusal(vault, "acme", "a") == "not_found"
    assert await refusal(vault, "acme", "a", 1) == "not_found"
    assert await vault.list("acme", "") == []
    assert await vault.put("acme", "a", "3") == 3
    assert await states(vault, "a") == [(1, "destroyed"), (2, "destroyed"), (3, "current")]
    assert await vault.get("acme", "a") == "3"


async def test_paths_are_listed_by_exact_prefix(vault: EnvelopeVault) -> None:
    for path in ("a/1", "a/2", "A/3", "a_/4", "b"):
        await vault.put("acme", path, "x")
    assert await vault.list("acme", "a/") == ["a/1", "a/2"]
    assert await vault.list("acme", "a_") == ["a_/4"]
    assert await vault.list("acme", "%") == []
    assert await vault.list("acme", "") == ["A/3", "a/1", "a/2", "a_/4", "b"]


async def test_versions_put_at_the_same_time_get_numbers_of_their_own(vault: EnvelopeVault) -> None:
    numbers = await asyncio.gather(*(vault.put("acme", "a", str(value)) for value in range(10)))
    assert sorted(numbers) == list(range(1, 11))
    values = await asyncio.gather(*(vault.get("acme", "a", number) for number in numbers))
    assert values == [str(value) for value in range(10)]


@pytest.mark.parametrize("path", ["", "a\0b", "a\nb", "x" * 513])
async def test_a_path_that_cannot_be_stored_is_refused(vault: EnvelopeVault, path: str) -> None:
    with pytest.raises(ProviderError) as refused:
        await vault.put("acme", path, "x")
    assert refused.value.code == "invalid_argument"
    assert await vault.list("acme", "") == []
