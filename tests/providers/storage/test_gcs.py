"""``storage/gcs`` keeps the contract on a peer played after Google's reference; nothing independent has answered it."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from tests.providers.storage.buckets import CATALOG, HOSTILE, Store, made, opened
from tests.providers.storage.gcs_peer import GcsPeer, playing

from erp.contracts.models import storage as api
from erp.errors import ProviderError
from erp.runtime.conformance.case import Case, cases_for
from erp.runtime.conformance.plugin import Suite, judge
from erp.runtime.spi import OpenContext

REF = "storage/gcs"
# The manifest cannot say which key file a peer refuses that listens somewhere else each time; a test below does.
CASES = [case for case in cases_for(CATALOG.provider("storage", "gcs")) if case.id != "NET-03"]


@pytest.fixture(scope="module")
def peer() -> Iterator[GcsPeer]:
    with playing() as made:
        yield made


@pytest.fixture(scope="module")
def suite(peer: GcsPeer) -> Suite:
    return Suite(REF, peer.config(), level="P0")


@pytest.fixture
def config(peer: GcsPeer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    peer.objects.clear()
    return dict(peer.config())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_contract_is_kept(suite: Suite, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    judge(suite.outcome(case))


@pytest.mark.anyio
async def test_hostile_keys_hold_their_own_objects_below_their_own_root(
    peer: GcsPeer, config: dict[str, Any], open_context: OpenContext, call_context: Any
) -> None:
    async with opened(REF, config, open_context) as provider:
        store = Store(provider, call_context)
        for number, key in enumerate(HOSTILE):
            await store.put(key, str(number).encode())

        assert [await store.get(key) for key in HOSTILE] == [str(number).encode() for number in range(len(HOSTILE))]
        assert sorted(await store.keys()) == sorted(HOSTILE)
    assert all(name.startswith("erp/acme/default/") for name in peer.objects)


@pytest.mark.anyio
async def test_a_token_is_asked_for_once(
    peer: GcsPeer, config: dict[str, Any], open_context: OpenContext, call_context: Any
) -> None:
    before = peer.tokens
    async with opened(REF, config, open_context) as provider:
        store = Store(provider, call_context)
        for _ in range(5):
            await store.put("k")
            await store.keys()

    assert peer.tokens == before + 1


@pytest.mark.anyio
async def test_a_link_is_signed_with_the_key_of_the_account(
    peer: GcsPeer, config: dict[str, Any], open_context: OpenContext
) -> None:
    """The text to be signed is written out here, after "V4 signing process" (Cloud Storage documentation)."""
    async with opened(REF, config, open_context) as provider:
        now = datetime.datetime(2026, 11, 28, 23, 5, 4, tzinfo=datetime.UTC)
        query = provider._bucket.account.query(
            "GET", "storage.googleapis.com", "/objects/a%20b", seconds=900, headers={}, now=now
        )

    asked, _, signature = query.partition("&X-Goog-Signature=")
    scope = "20261128/auto/storage/goog4_request"
    canonical = f"GET\n/objects/a%20b\n{asked}\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"GOOG4-RSA-SHA256\n20261128T230504Z\n{scope}\n{digest}"
    peer.key.public_key().verify(bytes.fromhex(signature), text.encode(), PKCS1v15(), SHA256())


@pytest.mark.anyio
async def test_an_account_that_gets_no_token_is_unauthenticated_and_its_key_never_shown(
    config: dict[str, Any], open_context: OpenContext
) -> None:
    key = json.loads(config["service_account_key"]) | {"client_email": "other@example"}
    provider = made(REF, config | {"service_account_key": json.dumps(key)}, open_context)

    with pytest.raises(ProviderError) as caught:
        await provider.open()

    assert caught.value.code == "unauthenticated"
    assert "PRIVATE KEY" not in f"{caught.value!r}{caught.value.detail}{provider!r}{vars(provider)}"


@pytest.mark.anyio
@pytest.mark.parametrize("wrong", ["{}", "no json", '{"client_email": "a", "private_key": "b"}'])
async def test_what_is_no_key_file_is_refused_with_its_remedy(
    config: dict[str, Any], open_context: OpenContext, wrong: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        await made(REF, config | {"service_account_key": wrong}, open_context).open()

    assert (caught.value.code, caught.value.errors[0].pointer) == ("failed_precondition", "/config/service_account_key")


@pytest.mark.anyio
async def test_a_token_address_inside_our_own_network_is_refused(
    config: dict[str, Any], open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = config["endpoint"].rpartition(":")[2]
    monkeypatch.setenv("ERP_EGRESS_ALLOW", f"127.0.0.1/32:{port}")
    key = json.loads(config["service_account_key"]) | {"token_uri": "http://169.254.169.254/token"}

    with pytest.raises(ProviderError) as caught:
        await made(REF, config | {"service_account_key": json.dumps(key)}, open_context).open()

    assert caught.value.code == "failed_precondition"


@pytest.mark.anyio
async def test_a_bucket_that_is_not_there_is_a_precondition_with_its_remedy(
    config: dict[str, Any], open_context: OpenContext, call_context: Any
) -> None:
    with pytest.raises(ProviderError) as caught:
        await made(REF, config | {"bucket": "no-such-bucket"}, open_context).open()

    assert (caught.value.code, "Create it" in caught.value.message) == ("failed_precondition", True)
    async with opened(REF, config, open_context) as provider:
        absent = await Store(provider, call_context).refusal("get", api.GetRequest(key="absent"))
        assert absent.code == "not_found"
