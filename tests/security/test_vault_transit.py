"""A key of a transit engine wraps data keys: for one place, by whatever token is good, and never one that is not there."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import hvac
import pytest
from tests.support.vault_double import Double

from erp.errors import ProviderError
from erp.security.vault_transit import VaultTransitKey
from erp.security.wrapping import Place

pytestmark = pytest.mark.anyio

PLACE = Place("acme", "db/password", 1)


@pytest.fixture
def double() -> Iterator[Double]:
    made = Double()
    independent(made).secrets.transit.create_key("erp")
    yield made
    made.close()


def independent(double: Double) -> hvac.Client:
    return hvac.Client(url=double.address, token=double.vault.root_token)


def url(double: Double, key: str = "erp", *, more: str = "") -> str:
    return f"vault+transit://{double.address.removeprefix('http://')}/transit/{key}?tls=off{more}"


async def opened(double: Double, **environment: str) -> VaultTransitKey:
    return await VaultTransitKey.open(url(double), {"VAULT_TOKEN": double.vault.root_token, **environment})


async def refused(work: object) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await work  # type: ignore[misc]
    return caught.value


async def test_what_is_wrapped_opens_at_its_place_alone(double: Double) -> None:
    key = await opened(double)
    wrapped = await key.wrap(bytes(range(32)), PLACE)
    assert wrapped.startswith(b"vault:v1:")
    assert await key.unwrap(wrapped, PLACE) == bytes(range(32))
    for other in (PLACE._replace(tenant="globex"), PLACE._replace(path="x"), PLACE._replace(version=2)):
        assert (await refused(key.unwrap(wrapped, other))).code == "internal"
    for damaged in (wrapped[:-4] + b"AAAA", b"\xff", b"vault:v1:?"):
        assert (await refused(key.unwrap(damaged, PLACE))).code == "internal"
    assert key.id == f"vault+transit://{double.address.removeprefix('http://')}/transit/erp"
    await key.close()


async def test_an_independent_client_opens_what_was_wrapped_here(double: Double) -> None:
    key = await opened(double)
    wrapped = (await key.wrap(bytes(32), PLACE)).decode()
    bound = base64.b64encode(PLACE.encoded()).decode()
    answer = independent(double).adapter.post(
        "/v1/transit/decrypt/erp", json={"ciphertext": wrapped, "associated_data": bound}
    )
    assert base64.b64decode(answer["data"]["plaintext"]) == bytes(32)
    await key.close()


async def test_a_token_that_an_agent_has_renewed_is_read_again(double: Double, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(double.vault.root_token)
    key = await VaultTransitKey.open(url(double, more=f"&token-source=file:{file}"), {})
    double.vault.tokens["hvs.next"] = double.vault.tokens.pop(double.vault.root_token)
    error = await refused(key.wrap(bytes(32), PLACE))
    assert (error.code, "the token is not known" in error.message) == ("failed_precondition", True)

    file.write_text("hvs.next\n")
    assert await key.unwrap(await key.wrap(bytes(32), PLACE), PLACE) == bytes(32)
    assert "hvs" not in repr(key)
    await key.close()


async def test_a_key_that_is_not_there_is_not_made(double: Double) -> None:
    environment = {"VAULT_TOKEN": double.vault.root_token}
    error = await refused(VaultTransitKey.open(url(double, "other"), environment))
    assert (error.code, "there is no such key" in error.message) == ("failed_precondition", True)
    assert set(double.vault.transit) == {"erp"}


async def test_an_outage_is_unavailable_and_passes(double: Double) -> None:
    key = await opened(double)
    wrapped = await key.wrap(bytes(32), PLACE)
    double.vault.is_sealed = True
    error = await refused(key.unwrap(wrapped, PLACE))
    assert (error.code, error.retry_after_seconds) == ("unavailable", 5.0)
    double.vault.is_sealed = False
    assert await key.unwrap(wrapped, PLACE) == bytes(32)

    double.vault.fault = (200, {"warnings": None})
    assert (await refused(key.wrap(bytes(32), PLACE))).code == "unavailable"
    double.vault.fault = (429, {"errors": ["rate limit quota exceeded"]})
    assert (await refused(key.unwrap(wrapped, PLACE))).code == "unavailable"
    double.close()
    assert (await refused(key.unwrap(wrapped, PLACE))).code == "unavailable"
    await key.close()
