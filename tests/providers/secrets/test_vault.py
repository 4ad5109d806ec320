"""What is special to ``secrets/vault``: logins, tokens that end, refusals; and ``hvac`` on the same double."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import hvac
import pytest
from tests.conftest import ReadableOverlaps
from tests.support.vault_double import JWT, ROLE_ID, SECRET_ID, Double

from erp.contracts.models.secrets import (
    DeleteRequest,
    DestroyVersionRequest,
    GetRequest,
    ListRequest,
    ListVersionsRequest,
    NewestRequest,
    PutRequest,
    RotateRequest,
)
from erp.errors import ProviderError
from erp.providers.secrets.vault.provider import VaultSecrets
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.spi import UNSET, CallContext, OpenContext

pytestmark = pytest.mark.anyio

DEFAULTS = ProviderCatalog.load().provider("secrets", "vault").defaults
LOGINS: dict[str, dict[str, str]] = {
    "approle": {"role_id": ROLE_ID, "secret_id": SECRET_ID},
    "jwt": {"role": "erp", "jwt": JWT},
    "kubernetes": {"role": "erp", "jwt": JWT},
}


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    made = Double()
    yield made
    made.close()


@pytest.fixture
async def opened(double: Double, open_context: OpenContext) -> AsyncIterator[Callable[..., Any]]:
    providers: list[VaultSecrets] = []

    async def make(**config: Any) -> VaultSecrets:
        settings = {"address": double.address, "login": "token", "token": double.vault.root_token, **config}
        provider = VaultSecrets({**DEFAULTS, **settings}, open_context)
        await provider.open()
        providers.append(provider)
        return provider

    yield make
    for provider in providers:
        await provider.close()


@pytest.fixture
def independent(double: Double) -> hvac.Client:
    return hvac.Client(url=double.address, token=double.vault.root_token)


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


async def refused(work: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await work
    return caught.value


@pytest.mark.parametrize("method", LOGINS)
async def test_every_login_gets_a_token_that_is_given_back(
    method: str, double: Double, opened: Any, ctx: CallContext
) -> None:
    provider = await opened(login=method, **LOGINS[method])
    await provider.put(PutRequest(path="a", value="v"), ctx)
    assert (await provider.get(GetRequest(path="a"), ctx)).value == "v"
    assert len(double.vault.tokens) == 2
    await provider.close()
    assert set(double.vault.tokens) == {double.vault.root_token}


async def test_a_wrong_login_is_unauthenticated_and_an_incomplete_one_names_what_is_missing(opened: Any) -> None:
    wrong = await refused(opened(login="approle", role_id=ROLE_ID, secret_id="not-a-real-one"))
    assert wrong.code == "unauthenticated"
    incomplete = await refused(opened(login="approle", role_id=ROLE_ID))
    assert (incomplete.code, [one.pointer for one in incomplete.errors]) == (
        "failed_precondition",
        ["/config/secret_id"],
    )


async def test_a_token_is_renewed_in_time_and_replaced_when_it_was_revoked(
    double: Double, opened: Any, ctx: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = await opened(login="approle", **LOGINS["approle"])
    await provider.put(PutRequest(path="a", value="v"), ctx)
    (token,) = set(double.vault.tokens) - {double.vault.root_token}
    _, login = provider._ready
    monkeypatch.setattr(login, "_renew_at", 0.0)
    assert (await provider.get(GetRequest(path="a"), ctx)).value == "v"
    assert double.vault.asked[-2:] == [("POST", "auth/token/renew-self"), ("GET", "secret/data/erp/acme/default/a")]

    del double.vault.tokens[token]
    assert (await provider.get(GetRequest(path="a"), ctx)).value == "v"
    assert len(set(double.vault.tokens) - {token}) == 2


async def test_a_given_token_that_was_revoked_is_unauthenticated(double: Double, opened: Any, ctx: CallContext) -> None:
    provider = await opened()
    del double.vault.tokens[double.vault.root_token]
    assert (await refused(provider.get(GetRequest(path="a"), ctx))).code == "unauthenticated"
    assert (await provider.health()).status == "down"


@pytest.mark.parametrize(
    ("status", "errors", "headers", "code", "wait"),
    [
        (403, ["1 error occurred:\n\t* permission denied\n\n"], {}, "permission_denied", None),
        (412, ["required index state not present"], {}, "unavailable", 5.0),
        (429, ["request path: rate limit quota exceeded"], {"Retry-After": "7"}, "rate_limited", 7.0),
        (473, [], {}, "unavailable", 5.0),
        (500, ["internal error"], {}, "unavailable", 5.0),
        (503, ["Vault is sealed"], {}, "unavailable", 5.0),
        (400, ["Upgrading from non-versioned to versioned data."], {}, "unavailable", 5.0),
        (400, ["something else"], {}, "failed_precondition", None),
    ],
)
async def test_answers_mean_what_the_published_interface_says(
    double: Double,
    opened: Any,
    ctx: CallContext,
    status: int,
    errors: list[str],
    headers: dict[str, str],
    code: str,
    wait: float | None,
) -> None:
    provider = await opened()
    double.vault.fault, double.vault.fault_headers = (status, {"errors": errors}), headers
    error = await refused(provider.get(GetRequest(path="a"), ctx))
    assert (error.code, error.retry_after_seconds) == (code, wait)
    double.vault.fault = None
    await provider.put(PutRequest(path="a", value="v"), ctx)


async def test_a_sealed_server_is_down_and_recovers(double: Double, opened: Any) -> None:
    provider = await opened()
    assert (await provider.health()).status == "ok"
    double.vault.is_sealed = True
    health = await provider.health()
    assert (health.status, health.message) == ("down", "The server is sealed.")
    double.vault.is_sealed, double.vault.is_standby = False, True
    assert (await provider.health()).status == "ok"


async def test_a_standby_leads_to_the_active_node(double: Double, opened: Any, ctx: CallContext) -> None:
    standby = Double()
    standby.vault.active_address = double.address
    provider = await opened(address=standby.address)
    await provider.put(PutRequest(path="a", value="v"), ctx)
    assert list(double.vault.secrets) == ["|erp/acme/default/a"]
    standby.close()


async def test_a_rotation_that_somebody_overtakes_is_a_conflict(
    double: Double, opened: Any, ctx: CallContext, independent: hvac.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = await opened()
    await provider.put(PutRequest(path="a", value="first"), ctx)
    stored = provider._stored

    async def overtaken(*arguments: Any) -> int:
        independent.secrets.kv.v2.create_or_update_secret("erp/acme/default/a", {"value": "theirs"})
        found: int = await stored(*arguments)
        return found

    monkeypatch.setattr(provider, "_stored", overtaken)
    assert (await refused(provider.rotate(RotateRequest(path="a", value="mine"), ctx))).code == "conflict"
    assert (await provider.get(GetRequest(path="a"), ctx)).value == "theirs"


async def test_an_independent_client_and_the_provider_see_the_same_secrets(
    opened: Any, ctx: CallContext, independent: hvac.Client
) -> None:
    provider, kv = await opened(), independent.secrets.kv.v2
    place = "erp/acme/default/crm/key"
    await provider.put(PutRequest(path="crm/key", value="first"), ctx)
    await provider.put(PutRequest(path="crm/key", value="second"), ctx)
    assert kv.read_secret_version(place, raise_on_deleted_version=True)["data"]["data"] == {"value": "second"}
    assert kv.read_secret_metadata(place)["data"]["max_versions"] == 1000
    assert kv.list_secrets("erp/acme/default")["data"]["keys"] == ["crm/"]

    with pytest.raises(hvac.exceptions.InvalidRequest):
        kv.create_or_update_secret(place, {"value": "no"}, cas=1)
    kv.create_or_update_secret(place, {"value": "third"}, cas=2)
    assert (await provider.get(GetRequest(path="crm/key"), ctx)).value == "third"

    kv.delete_secret_versions(place, [3])
    assert (await refused(provider.get(GetRequest(path="crm/key"), ctx))).code == "not_found"
    kv.undelete_secret_versions(place, [3])
    kv.destroy_secret_versions(place, [1])
    found = await provider.list_versions(ListVersionsRequest(path="crm/key"), ctx)
    assert [(one.version, one.state) for one in found.versions] == [(1, "destroyed"), (2, "previous"), (3, "current")]
    assert (await refused(provider.get(GetRequest(path="crm/key", version=1), ctx))).code == "not_found"

    await provider.delete(DeleteRequest(path="crm/key"), ctx)
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_metadata(place)


async def test_an_independent_client_logs_in_renews_and_asks_for_health(double: Double) -> None:
    client = hvac.Client(url=double.address)
    assert client.auth.approle.login(ROLE_ID, SECRET_ID)["auth"]["lease_duration"] == 1200
    assert client.is_authenticated()
    assert client.auth.token.renew_self()["auth"]["renewable"] is True
    client.logout(revoke_token=True)
    assert not client.is_authenticated()
    assert client.sys.read_health_status(method="GET")["sealed"] is False
    with pytest.raises(hvac.exceptions.InvalidRequest):
        client.auth.jwt.jwt_login("erp", "wrong")


async def test_namespaces_folders_and_fields_keep_secrets_apart(
    opened: Any, ctx: CallContext, independent: hvac.Client
) -> None:
    theirs = await opened(server_namespace="team")
    own = await opened(root="", field="password")
    independent.secrets.kv.v2.create_or_update_secret("db", {"password": "hunter2", "user": "erp"})
    assert (await own.get(GetRequest(path="db"), ctx)).value == "hunter2"
    await theirs.put(PutRequest(path="db", value="other"), ctx)
    assert (await own.list(ListRequest(), ctx)).paths == ["db"]
    assert (await refused((await opened(root="")).get(GetRequest(path="db"), ctx))).code == "failed_precondition"


async def test_an_engine_that_is_not_there_is_no_missing_secret(opened: Any, ctx: CallContext) -> None:
    provider = await opened(engine="other")
    for work in (provider.get(GetRequest(path="a"), ctx), provider.list(ListRequest(), ctx)):
        assert (await refused(work)).code == "failed_precondition"


async def test_a_path_that_the_server_cannot_keep_is_refused(opened: Any, ctx: CallContext) -> None:
    error = await refused((await opened()).put(PutRequest(path="a.", value="v"), ctx))
    assert (error.code, error.errors[0].pointer) == ("invalid_argument", "/path")


async def named(provider: VaultSecrets, ctx: CallContext) -> str:
    return (await provider.newest(NewestRequest(path="crm/key"), ctx)).version_id


async def test_a_rotation_plans_the_end_of_all_versions_before(
    opened: Any, ctx: CallContext, overlaps: ReadableOverlaps
) -> None:
    provider = await opened(overlap_seconds=3600)
    names = []
    for value in ("first", "second"):
        await provider.put(PutRequest(path="crm/key", value=value), ctx)
        names.append(await named(provider, ctx))
    await provider.rotate(RotateRequest(path="crm/key", value="third"), ctx)
    assert overlaps.planned == {"crm/key": dict.fromkeys(names, 3600)}
    versions = (await provider.list_versions(ListVersionsRequest(path="crm/key"), ctx)).versions
    assert [one.destroyed_after is not UNSET for one in versions] == [True, True, False]

    await provider.delete(DeleteRequest(path="crm/key"), ctx)
    assert overlaps.planned == {}


async def test_one_version_is_destroyed_on_the_server_and_never_the_current_one(
    opened: Any, ctx: CallContext, independent: hvac.Client
) -> None:
    provider = await opened()
    await provider.put(PutRequest(path="crm/key", value="first"), ctx)
    first = await named(provider, ctx)
    assert (
        await provider.destroy_version(DestroyVersionRequest(path="crm/key", version_id=first), ctx)
    ).destroyed is False
    await provider.rotate(RotateRequest(path="crm/key", value="second"), ctx)
    assert (
        await provider.destroy_version(DestroyVersionRequest(path="crm/key", version_id=first), ctx)
    ).destroyed is True

    facts = independent.secrets.kv.v2.read_secret_metadata("erp/acme/default/crm/key")["data"]["versions"]
    assert {number: one["destroyed"] for number, one in facts.items()} == {"1": True, "2": False}


async def test_a_version_of_a_secret_that_was_made_anew_is_not_destroyed_for_the_old_one(
    opened: Any, ctx: CallContext
) -> None:
    provider = await opened()
    await provider.put(PutRequest(path="crm/key", value="old"), ctx)
    old = await named(provider, ctx)
    await provider.delete(DeleteRequest(path="crm/key"), ctx)
    assert (
        await provider.destroy_version(DestroyVersionRequest(path="crm/key", version_id=old), ctx)
    ).destroyed is True
    for value in ("new", "newer"):
        await provider.put(PutRequest(path="crm/key", value=value), ctx)
    assert (
        await provider.destroy_version(DestroyVersionRequest(path="crm/key", version_id=old), ctx)
    ).destroyed is True
    assert (await provider.get(GetRequest(path="crm/key", version=1), ctx)).value == "new"
