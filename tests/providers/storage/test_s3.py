"""What is special to buckets of S3: names, links, the rules of others, what the environment must not decide."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import httpx2
import pytest
from tests.conformance.live import storage_s3 as live
from tests.providers.storage.buckets import HOSTILE, Store, bucket_of, made, opened

from erp.contracts.models import storage as api
from erp.errors import ProviderError
from erp.runtime.spi import OpenContext
from erp.vendor_clients.object_store.s3_rest import XML

pytestmark = [pytest.mark.anyio, pytest.mark.live]
REF = live.REF


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    return bucket_of(live)


@pytest.fixture
async def store(config: dict[str, Any], open_context: OpenContext, call_context: Any) -> AsyncIterator[Store]:
    async with opened(REF, config, open_context) as provider:
        yield Store(provider, call_context)


async def test_hostile_keys_hold_their_own_objects_below_their_own_root(
    store: Store, config: dict[str, Any], open_context: OpenContext, call_context: Any
) -> None:
    for number, key in enumerate(HOSTILE):
        await store.put(key, str(number).encode())

    assert [await store.get(key) for key in HOSTILE] == [str(number).encode() for number in range(len(HOSTILE))]
    assert sorted(await store.keys()) == sorted(HOSTILE)
    async with opened(REF, config | {"root": ""}, open_context) as whole:
        root = f"{config['namespace']}/acme/default/"
        names = await Store(whole, call_context).keys(prefix=f"{config['namespace']}/")
        assert len(names) == len(HOSTILE)
        assert all(name.startswith(root) and len(name.encode()) <= 1024 for name in names)
        assert not any(part in {"", ".", ".."} for name in names for part in name.split("/"))


async def test_tenants_whose_names_look_alike_share_nothing(
    config: dict[str, Any], open_context: OpenContext, call_context: Any
) -> None:
    async with (
        opened(REF, config, open_context, tenant="a/b", connection="c") as one,
        opened(REF, config, open_context, tenant="a", connection="b/c") as other,
    ):
        await Store(one, call_context).put("k")

        assert await Store(other, call_context).keys() == []


async def test_an_ordinary_key_keeps_its_look_for_other_programs(
    store: Store, config: dict[str, Any], open_context: OpenContext, call_context: Any
) -> None:
    await store.put("invoices/2026/Rechnung 1.pdf", metadata={"author": "me"})
    async with opened(REF, config | {"root": f"{config['namespace']}/"}, open_context) as whole:
        shared = Store(whole, call_context)

        assert await shared.keys() == ["acme/default/invoices/2026/Rechnung 1.pdf"]
        assert (await shared.head("acme/default/invoices/2026/Rechnung 1.pdf")).metadata == {"author": "me"}


@pytest.mark.parametrize("key", ["../x", "a//b", "/a", "a/", ".", "a\n", "x" * 1024 + "y"])
async def test_a_whole_bucket_refuses_keys_that_no_program_uses(
    config: dict[str, Any], open_context: OpenContext, call_context: Any, key: str
) -> None:
    async with opened(REF, config | {"root": f"{config['namespace']}/"}, open_context) as whole:
        error = await Store(whole, call_context).refusal("put", api.PutRequest(key=key, content=b""))

    assert (error.code, error.errors[0].pointer) == ("invalid_argument", "/params/key")


async def test_a_long_key_is_found_by_any_prefix_of_it_and_folded_like_others(store: Store) -> None:
    key = "ж" * 600 + "/tail"
    await store.put(key)
    await store.put("ж" * 600)

    for length in (1, 300, 600, 602, len(key)):
        assert key in await store.keys(prefix=key[:length])
    assert await store.keys(prefix="ж" * 601) == []
    page = await store.provider.list(api.ListRequest(delimiter="/"), store.context())
    assert (page.prefixes, [one.key for one in page.objects]) == (["ж" * 600 + "/"], ["ж" * 600])


async def test_a_key_longer_than_any_place_for_it_is_refused_and_nothing_is_stored(store: Store) -> None:
    error = await store.refusal("put", api.PutRequest(key="🔑" * 1024, content=b""))

    assert (error.code, error.errors[0].pointer) == ("invalid_argument", "/params/key")
    assert await store.keys() == []


async def test_a_link_leads_to_one_object(store: Store, config: dict[str, Any]) -> None:
    """The simulator cannot check signed links: ``test_sigv4`` compares their signatures with those of another program."""
    params: dict[str, Any] = {"key": "ä/+ k", "expires_seconds": 60}
    links = [
        (await store.provider.signed_url(api.SignedUrlRequest(method=method, **params), store.context())).url
        for method in ("PUT", "GET")
    ]

    async with httpx2.AsyncClient() as client:
        await client.post(f"{config['endpoint']}/moto-api/reset-auth", content="2")  # so many are not checked
        assert (await client.put(links[0], content=b"a;b", headers={"content-type": "text/csv"})).status_code == 200
        assert (await client.get(links[1])).content == b"a;b"
    head = await store.head("ä/+ k")
    assert (head.content_type, head.size) == ("text/csv", 3)


async def test_rules_of_others_stay_when_those_of_a_connection_are_replaced(store: Store) -> None:
    rest = store.provider._bucket.rest
    foreign = ElementTree.Element("LifecycleConfiguration", xmlns=XML)
    rule = ElementTree.SubElement(foreign, "Rule")
    ElementTree.SubElement(rule, "ID").text = "theirs"
    ElementTree.SubElement(ElementTree.SubElement(rule, "Filter"), "Prefix").text = "logs/"
    ElementTree.SubElement(rule, "Status").text = "Enabled"
    ElementTree.SubElement(ElementTree.SubElement(rule, "Expiration"), "Days").text = "9"
    await rest.set("lifecycle", foreign, seconds=30)
    rules = [api.LifecycleRule(id="tmp", prefix="tmp/..", expire_after_days=3)]
    try:
        await store.provider.put_lifecycle(api.PutLifecycleRequest(rules=rules), store.context())
        found = (await store.provider.get_lifecycle(api.GetLifecycleRequest(), store.context())).rules
        assert found == rules

        await store.provider.put_lifecycle(api.PutLifecycleRequest(rules=[]), store.context())
        left = await rest.setting("lifecycle", seconds=30)
        assert [one.findtext("{*}ID") for one in left.findall("{*}Rule")] == ["theirs"]
    finally:
        await rest.set("lifecycle", None, seconds=30)


async def test_what_the_environment_says_is_not_used(
    config: dict[str, Any], open_context: OpenContext, call_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.setenv(f"AWS_{name}", "theirs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with opened(REF, config, open_context) as provider:
        store = Store(provider, call_context)
        await store.put("k", b"mine")

        assert await store.get("k") == b"mine"


async def test_a_part_that_is_too_small_is_named_and_the_upload_can_go_on(store: Store) -> None:
    upload = (await store.provider.create_multipart(api.CreateMultipartRequest(key="k"), store.context())).upload
    parts = []
    for number, content in ((1, b"small"), (2, b"last")):
        request = api.UploadPartRequest(key="k", upload=upload, part=number, content=content)
        parts.append(api.Part(part=number, etag=(await store.provider.upload_part(request, store.context())).etag))
    complete = api.CompleteMultipartRequest(key="k", upload=upload, parts=parts)

    error = await store.refusal("complete_multipart", complete)

    assert (error.code, "5 MiB" in error.message) == ("failed_precondition", True)
    assert (await store.head("k")).found is False
    large = api.UploadPartRequest(key="k", upload=upload, part=1, content=bytes(5 * 1024 * 1024))
    parts[0] = api.Part(part=1, etag=(await store.provider.upload_part(large, store.context())).etag)
    done = await store.provider.complete_multipart(
        api.CompleteMultipartRequest(key="k", upload=upload, parts=parts), store.context()
    )
    again = await store.provider.complete_multipart(
        api.CompleteMultipartRequest(key="k", upload=upload, parts=parts), store.context()
    )
    assert (done.size, again) == (5 * 1024 * 1024 + 4, done)


async def test_metadata_that_no_header_can_carry_stands_beside_plain_metadata(store: Store) -> None:
    metadata = {
        "author": "me",
        "Content-Type": "x",
        "erp-sha256": "0" * 64,
        "Ünï": "cödé",
        "blank": " a ",
        "UPPER": "B",
    }
    await store.put("k", b"a", metadata=metadata)

    head = await store.head("k")

    assert head.metadata == metadata
    assert head.content_type == "application/octet-stream"
    assert head.sha256 == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


@pytest.mark.parametrize("wrong", ["text/plain\r\nx-amz-acl: public-read", "ünï/cödé", "a\0b", " "])
async def test_what_no_header_can_carry_is_refused_and_nothing_is_stored(store: Store, wrong: str) -> None:
    typed: list[tuple[str, Any]] = [
        ("put", api.PutRequest(key="k", content=b"", content_type=wrong)),
        ("create_multipart", api.CreateMultipartRequest(key="k", content_type=wrong)),
    ]
    conditional: list[tuple[str, Any]] = [
        ("put", api.PutRequest(key="k", content=b"", if_match=wrong)),
        ("get", api.GetRequest(key="k", if_match=wrong)),
    ]
    for action, request in typed:
        error = await store.refusal(action, request)
        assert (error.code, error.errors[0].pointer) == ("invalid_argument", "/params/content_type")
    for action, request in conditional:
        assert (await store.refusal(action, request)).code == "failed_precondition"
    assert await store.keys() == []
    keyed = api.PutRequest(key="k", content=b"", encryption_key=wrong)
    assert (await store.refusal("put", keyed)).code == "invalid_argument"


async def test_a_bucket_that_is_not_there_is_a_precondition_with_its_remedy(
    config: dict[str, Any], open_context: OpenContext
) -> None:
    provider = made(REF, config | {"bucket": "no-such-bucket"}, open_context)
    with pytest.raises(ProviderError) as caught:
        await provider.open()

    assert caught.value.code == "failed_precondition"
    assert "Create it" in caught.value.message


@pytest.mark.parametrize("wrong", [{"secret_access_key": "wrong"}, {"access_key_id": "AKIANOBODY"}])
async def test_wrong_credentials_are_unauthenticated_and_never_shown(
    config: dict[str, Any], open_context: OpenContext, wrong: dict[str, str]
) -> None:
    provider = made(REF, config | wrong, open_context)
    with pytest.raises(ProviderError) as caught:
        await provider.open()

    assert caught.value.code == "unauthenticated"
    assert config["secret_access_key"] not in f"{caught.value!r} {caught.value.detail} {provider!r} {vars(provider)}"


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:9", "http://169.254.169.254", "http://[::1]:9", "http://2130706433"]
)
async def test_an_endpoint_inside_our_own_network_is_refused_before_anything_is_sent(
    config: dict[str, Any], open_context: OpenContext, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.delenv("ERP_EGRESS_ALLOW")
    with pytest.raises(ProviderError) as caught:
        await made(REF, config | {"endpoint": endpoint}, open_context).open()

    assert (caught.value.code, caught.value.errors[0].pointer) == ("failed_precondition", "/config/endpoint")


async def test_a_name_that_leads_inside_is_refused_at_the_gate(
    config: dict[str, Any], open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``localhost`` is a name: only resolving it says where it leads."""
    port = config["endpoint"].rpartition(":")[2]
    named = config | {"endpoint": f"http://localhost:{port}"}
    async with opened(REF, named, open_context) as provider:
        await provider._bucket.objects.bodies.put("k", b"x", _facts(), seconds=30)
    monkeypatch.delenv("ERP_EGRESS_ALLOW")

    with pytest.raises(ProviderError) as caught:
        await made(REF, named, open_context).open()

    assert caught.value.code == "failed_precondition"


def _facts() -> Any:
    from erp.vendor_clients.object_store.metadata import Facts

    return Facts("text/plain", {})


async def test_content_reaches_a_named_endpoint_through_the_gate(
    config: dict[str, Any], open_context: OpenContext, call_context: Any
) -> None:
    named = config | {"endpoint": config["endpoint"].replace("127.0.0.1", "localhost")}
    async with opened(REF, named, open_context) as provider:
        store, content = Store(provider, call_context), bytes(range(256)) * 8192
        await store.put("large", content)

        assert await store.get("large") == content
        items = [
            item.content
            async for item in provider.read(api.ReadRequest(key="large", part_bytes=100_000), store.context())
        ]
        assert b"".join(items) == content
        assert {len(item) for item in items[:-1]} == {100_000}
        url = (await provider.signed_url(api.SignedUrlRequest(key="large", method="GET"), store.context())).url
        assert unquote(url).startswith(
            f"{named['endpoint']}/{config['bucket']}/{config['namespace']}/acme/default/large?"
        )
