"""What is special to containers of Azure: uploads that the store knows nothing of, links, what the environment must not decide."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from tests.conformance.live import storage_azure as live
from tests.providers.storage.buckets import HOSTILE, Store, bucket_of, made, opened

from erp.contracts.models import storage as api
from erp.errors import ProviderError
from erp.providers.storage.azure import uploads
from erp.providers.storage.azure.shared_key import SharedKey
from erp.runtime.spi import OpenContext

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


async def names(store: Store, prefix: str) -> list[str]:
    """What the container itself lists."""
    page = await store.provider._container.rest.page(prefix, limit=1000, seconds=30)
    return [one.name for one in page.objects]


async def begun(store: Store, key: str = "k", **more: Any) -> str:
    request = api.CreateMultipartRequest(key=key, **more)
    upload: str = (await store.provider.create_multipart(request, store.context())).upload
    return upload


async def sent(store: Store, upload: str, part: int, content: bytes) -> api.Part:
    request = api.UploadPartRequest(key="k", upload=upload, part=part, content=content)
    return api.Part(part=part, etag=(await store.provider.upload_part(request, store.context())).etag)


async def test_hostile_keys_hold_their_own_objects_below_their_own_root(store: Store, config: dict[str, Any]) -> None:
    for number, key in enumerate(HOSTILE):
        await store.put(key, str(number).encode())

    assert [await store.get(key) for key in HOSTILE] == [str(number).encode() for number in range(len(HOSTILE))]
    assert sorted(await store.keys()) == sorted(HOSTILE)
    stored = await names(store, f"{config['namespace']}/")
    assert len(stored) == len(HOSTILE)
    assert all(name.startswith(f"{config['namespace']}/acme/default/") for name in stored)
    assert not any(part in {"", ".", ".."} or part.endswith(".") for name in stored for part in name.split("/"))


async def test_records_of_uploads_are_no_objects_and_go_when_they_are_old(
    store: Store, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await begun(store)
    folder = f"{config['namespace']}/%uploads/acme/default/"

    assert await store.keys() == []
    assert await names(store, folder) == [f"{folder}{upload}"]
    due = await store.provider.work(store.context())
    assert due - datetime.datetime.now(datetime.UTC) > datetime.timedelta(days=6.9)
    monkeypatch.setattr(uploads, "KEPT_SECONDS", -5)
    assert await store.provider.work(store.context()) is None
    assert await names(store, folder) == []
    error = await store.refusal("upload_part", api.UploadPartRequest(key="k", upload=upload, part=1, content=b""))
    assert error.code == "not_found"


async def test_of_two_uploads_to_one_key_the_second_is_told_that_its_parts_are_gone(store: Store) -> None:
    """Azure drops all blocks of a blob that a list does not name when the blob is written."""
    first, second = await begun(store), await begun(store)
    parts = [await sent(store, first, 1, b"first"), await sent(store, second, 1, b"second")]
    complete = api.CompleteMultipartRequest(key="k", upload=first, parts=[parts[0]])
    await store.provider.complete_multipart(complete, store.context())

    late = api.CompleteMultipartRequest(key="k", upload=second, parts=[parts[1]])
    error = await store.refusal("complete_multipart", late)

    assert error.code == "failed_precondition"
    assert await store.get("k") == b"first"
    parts[1] = await sent(store, second, 1, b"second")
    await store.provider.complete_multipart(late, store.context())
    assert await store.get("k") == b"second"


async def test_an_upload_of_another_connection_is_not_found(
    store: Store, config: dict[str, Any], open_context: OpenContext, call_context: Any
) -> None:
    upload = await begun(store)
    async with opened(REF, config, open_context, connection="other") as provider:
        request = api.UploadPartRequest(key="k", upload=upload, part=1, content=b"")

        assert (await Store(provider, call_context).refusal("upload_part", request)).code == "not_found"
    for wrong in ("../../x", "0" * 32, upload.upper() + "0"):
        request = api.UploadPartRequest(key="k", upload=wrong, part=1, content=b"")
        assert (await store.refusal("upload_part", request)).code == "not_found"


async def test_a_link_lets_read_and_write_one_object_until_it_is_changed(store: Store) -> None:
    params: dict[str, Any] = {"key": "ä/+ k", "expires_seconds": 60}
    write, read = [
        (await store.provider.signed_url(api.SignedUrlRequest(method=method, **params), store.context())).url
        for method in ("PUT", "GET")
    ]

    async with httpx2.AsyncClient() as client:
        assert (await client.put(read, content=b"a", headers={"x-ms-blob-type": "BlockBlob"})).status_code == 403
        assert (await store.head("ä/+ k")).found is False
        assert (await client.put(write, content=b"a;b", headers={"x-ms-blob-type": "BlockBlob"})).status_code == 201
        assert (await client.get(read)).content == b"a;b"
        assert (await client.get(read.replace("/default/", "/other/"))).status_code == 403
    request = api.SignedUrlRequest(key="k", method="PUT", content_type="text/csv")
    assert (await store.refusal("signed_url", request)).code == "unsupported"


async def test_metadata_that_no_header_can_carry_stands_beside_plain_metadata(store: Store) -> None:
    metadata = {"author": "me", "with-hyphen": "x", "erp_sha256": "0" * 64, "Ünï": "cödé", "blank": " a ", "UPPER": "B"}
    await store.put("k", b"a", metadata=metadata)

    head = await store.head("k")

    assert (head.metadata, head.content_type) == (metadata, "application/octet-stream")
    await store.provider.copy(api.CopyRequest(source="k", target="x" * 1024), store.context())
    assert (await store.head("x" * 1024)).metadata == metadata


async def test_what_the_environment_says_is_not_used(
    config: dict[str, Any], open_context: OpenContext, call_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCOUNT_NAME", "ACCOUNT_KEY", "ACCESS_KEY", "SAS_KEY", "TOKEN", "CLIENT_ID"):
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", "theirs")
    monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with opened(REF, config, open_context) as provider:
        store = Store(provider, call_context)
        await store.put("k", b"mine")

        assert await store.get("k") == b"mine"


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


async def test_a_container_that_is_not_there_is_a_precondition_with_its_remedy(
    config: dict[str, Any], open_context: OpenContext
) -> None:
    with pytest.raises(ProviderError) as caught:
        await made(REF, config | {"container": "no-such-container"}, open_context).open()

    assert caught.value.code == "failed_precondition"
    assert "Create it" in caught.value.message


@pytest.mark.parametrize(
    ("wrong", "code"),
    [({"account_key": "d3Jvbmc="}, "unauthenticated"), ({"account_key": "no base64"}, "failed_precondition")],
)
async def test_wrong_credentials_are_told_and_never_shown(
    config: dict[str, Any], open_context: OpenContext, wrong: dict[str, str], code: str
) -> None:
    provider = made(REF, config | wrong, open_context)
    with pytest.raises(ProviderError) as caught:
        await provider.open()

    assert caught.value.code == code
    assert wrong["account_key"] not in f"{caught.value!r} {caught.value.detail} {provider!r} {vars(provider)}"


async def test_an_endpoint_inside_our_own_network_is_refused_before_anything_is_sent(
    config: dict[str, Any], open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ERP_EGRESS_ALLOW")
    with pytest.raises(ProviderError) as caught:
        await made(REF, config, open_context).open()

    assert (caught.value.code, caught.value.errors[0].pointer) == ("failed_precondition", "/config/endpoint")


def test_a_key_is_not_shown() -> None:
    assert "c2VjcmV0" not in repr(SharedKey("account", "c2VjcmV0"))
