"""Networks that break, peers that lie: what object stores answer, and that nothing is half written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.conformance.live import storage_azure, storage_s3
from tests.providers.storage.buckets import CATALOG, Store, bucket_of, made, opened, server_of
from tests.support.faulty_proxy import FaultyProxy, faulty_proxy

from erp.contracts.models import storage as api
from erp.errors import ProviderError
from erp.runtime.spi import OpenContext

pytestmark = [pytest.mark.anyio, pytest.mark.live]
STORES: list[Any] = [storage_s3, storage_azure]
LARGE = bytes(range(256)) * 32_768


@pytest.fixture(params=STORES, ids=lambda one: one.REF)
def live(request: pytest.FixtureRequest) -> Any:
    """Every store that is proven."""
    return request.param


@pytest.fixture
def ref(live: Any) -> str:
    return str(live.REF)


@pytest.fixture
def config(live: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    return bucket_of(live)


@pytest.fixture
async def proxy(config: dict[str, Any]) -> AsyncIterator[FaultyProxy]:
    async with faulty_proxy(*server_of(config)) as made:
        yield made


@pytest.fixture
def place(config: dict[str, Any], proxy: FaultyProxy) -> dict[str, Any]:
    """The configuration of a bucket behind the proxy."""
    return config | {"endpoint": f"{proxy.url}{urlsplit(config['endpoint']).path}"}


@pytest.fixture
async def store(ref: str, place: dict[str, Any], open_context: OpenContext, call_context: Any) -> AsyncIterator[Store]:
    async with opened(ref, place, open_context) as provider:
        yield Store(provider, call_context)


async def recovered(store: Store, proxy: FaultyProxy) -> None:
    """All is well again, at the latest after repetitions such as the layer's: connections that broke may be tried first."""
    proxy.fault, proxy.cut_answer_after = "none", None
    for _ in range(10):
        with suppress(ProviderError):
            await store.put("after", b"all is well")
            break
    assert await store.get("after") == b"all is well"


READS: list[Any] = [
    api.GetRequest(key="k"),
    api.HeadRequest(key="k"),
    api.ListRequest(),
    api.ListVersionsRequest(key="k"),
    api.GetLifecycleRequest(),
]
WRITES: list[Any] = [
    api.PutRequest(key="k", content=b"new"),
    api.PutRequest(key="k", content=b"new", encryption_key="erp-conformance"),
    api.CreateMultipartRequest(key="k"),
]
COPY = api.CopyRequest(source="k", target="copy")
ACTIONS: dict[Any, str] = {
    api.GetRequest: "get",
    api.HeadRequest: "head",
    api.ListRequest: "list",
    api.ListVersionsRequest: "list_versions",
    api.GetLifecycleRequest: "get_lifecycle",
    api.PutRequest: "put",
    api.CreateMultipartRequest: "create_multipart",
    api.CopyRequest: "copy",
}
NEEDS = {"list_versions": "versioning", "get_lifecycle": "lifecycle"}


def able(requests: list[Any]) -> list[Any]:
    """Each store with each request that it has the capability for."""
    return [
        pytest.param(live, asked, id=f"{live.REF}-{ACTIONS[type(asked)]}-{number}")
        for live in STORES
        for number, asked in enumerate(requests)
        if needed(asked) in {None, *CATALOG.provider(*live.REF.split("/")).capabilities}
    ]


def needed(asked: Any) -> str | None:
    return "server_side_encryption" if getattr(asked, "encryption_key", None) else NEEDS.get(ACTIONS[type(asked)])


@pytest.mark.parametrize(("live", "asked"), able([*READS, *WRITES, COPY]), indirect=["live"])
async def test_a_killed_endpoint_is_unavailable_and_used_again_when_it_is_back(
    store: Store, proxy: FaultyProxy, asked: Any
) -> None:
    await store.put("k", b"old")
    await proxy.vanish()

    error = await store.refusal(ACTIONS[type(asked)], asked)

    assert (error.code, error.retryable) == ("unavailable", True)
    await proxy.listen()
    assert await store.get("k") == b"old"
    await recovered(store, proxy)


@pytest.mark.parametrize(("live", "asked"), able(READS), indirect=["live"])
async def test_a_read_whose_answer_is_lost_is_unavailable(store: Store, proxy: FaultyProxy, asked: Any) -> None:
    await store.put("k", b"old")
    proxy.fault = "lose_answers"

    error = await store.refusal(ACTIONS[type(asked)], asked)

    assert error.code == "unavailable"
    await recovered(store, proxy)


@pytest.mark.parametrize(("live", "asked"), able(WRITES), indirect=["live"])
async def test_a_write_whose_answer_is_lost_says_that_it_may_have_happened_and_can_be_repeated(
    store: Store, proxy: FaultyProxy, asked: Any
) -> None:
    await store.put("k", b"new")
    proxy.fault = "lose_answers"

    error = await store.refusal(ACTIONS[type(asked)], asked)

    assert (error.code, error.retryable) == ("timeout", True)
    assert "may have happened" in error.message
    proxy.fault = "none"
    await getattr(store.provider, ACTIONS[type(asked)])(asked, store.context())
    assert await store.get("k") == b"new"


@pytest.mark.parametrize("condition", ["if_none_match", "if_match"])
async def test_a_conditional_write_whose_answer_is_lost_is_settled_by_repeating_it(
    store: Store, proxy: FaultyProxy, condition: str
) -> None:
    expected: dict[str, Any] = {"if_none_match": "*"}
    if condition == "if_match":
        expected = {"if_match": (await store.put("k", b"old")).etag}
    request = api.PutRequest(key="k", content=b"mine", **expected)
    proxy.fault = "lose_answers"

    error = await store.refusal("put", request, idempotency_key="one")

    assert error.code == "outcome_unknown"
    proxy.fault = "none"
    assert await store.get("k") == b"mine"  # it had arrived
    settled = await store.provider.put(request, store.context(idempotency_key="one"))
    assert (settled.etag, settled.size) == ((await store.head("k")).etag, 4)
    # Somebody else who wants to write the very same content did not write it.
    other = await store.refusal("put", request, idempotency_key="two")
    assert other.code == "failed_precondition"


async def test_a_conditional_write_that_never_arrived_is_written_by_repeating_it(
    store: Store, proxy: FaultyProxy
) -> None:
    request = api.PutRequest(key="k", content=LARGE, if_none_match="*")
    proxy.fault, proxy.cut_after = "cut", 1_000_000

    error = await store.refusal("put", request, idempotency_key="one")

    assert error.code == "outcome_unknown"
    proxy.fault = "none"
    assert (await store.head("k")).found is False
    assert (await store.provider.put(request, store.context(idempotency_key="one"))).size == len(LARGE)


async def test_a_reset_in_the_middle_of_a_body_leaves_the_old_object(store: Store, proxy: FaultyProxy) -> None:
    await store.put("k", b"old")
    proxy.fault, proxy.cut_after = "cut", 1_000_000

    error = await store.refusal("put", api.PutRequest(key="k", content=LARGE))

    assert error.code == "timeout"
    proxy.fault = "none"
    assert await store.get("k") == b"old"
    assert await store.keys() == ["k"]
    await recovered(store, proxy)


async def test_a_reset_in_the_middle_of_a_part_leaves_an_upload_without_it(store: Store, proxy: FaultyProxy) -> None:
    upload = (await store.provider.create_multipart(api.CreateMultipartRequest(key="k"), store.context())).upload
    part = api.UploadPartRequest(key="k", upload=upload, part=1, content=LARGE)
    proxy.fault, proxy.cut_after = "cut", 1_000_000

    error = await store.refusal("upload_part", part)

    assert error.code == "timeout"
    proxy.fault = "none"
    listed = await store.provider.list_parts(api.ListPartsRequest(key="k", upload=upload), store.context())
    assert listed.parts == []
    etag = (await store.provider.upload_part(part, store.context())).etag
    complete = api.CompleteMultipartRequest(key="k", upload=upload, parts=[api.Part(part=1, etag=etag)])
    assert (await store.provider.complete_multipart(complete, store.context())).size == len(LARGE)


async def test_a_lost_completion_is_settled_by_repeating_it(ref: str, store: Store, proxy: FaultyProxy) -> None:
    upload = (await store.provider.create_multipart(api.CreateMultipartRequest(key="k"), store.context())).upload
    request = api.UploadPartRequest(key="k", upload=upload, part=1, content=b"whole")
    etag = (await store.provider.upload_part(request, store.context())).etag
    complete = api.CompleteMultipartRequest(key="k", upload=upload, parts=[api.Part(part=1, etag=etag)])
    proxy.lose_answer_to = {"storage/s3": b"POST ", "storage/azure": b"?comp=blocklist HTTP/"}[ref]

    error = await store.refusal("complete_multipart", complete)

    assert error.code == "timeout"
    proxy.lose_answer_to = None
    assert (await store.provider.complete_multipart(complete, store.context())).size == 5
    assert await store.get("k") == b"whole"


async def test_a_stream_that_breaks_ends_with_an_error_and_never_as_a_shorter_object(
    store: Store, proxy: FaultyProxy
) -> None:
    await store.put("k", LARGE)
    proxy.cut_answer_after = proxy.bytes_down + 3_000_000
    received = b""

    with pytest.raises(ProviderError) as caught:
        async for item in store.provider.read(api.ReadRequest(key="k", part_bytes=65_536), store.context()):
            received += item.content

    assert caught.value.code == "unavailable"
    assert received == LARGE[: len(received)]
    assert len(received) < len(LARGE)
    await recovered(store, proxy)


async def test_an_object_that_breaks_off_is_not_answered(store: Store, proxy: FaultyProxy) -> None:
    await store.put("k", LARGE)
    proxy.cut_answer_after = proxy.bytes_down + 3_000_000

    error = await store.refusal("get", api.GetRequest(key="k"))

    assert error.code == "unavailable"
    await recovered(store, proxy)


@pytest.mark.parametrize(("live", "asked"), able(READS + WRITES[:2]), indirect=["live"])
async def test_a_silent_endpoint_is_a_timeout_after_the_time_allowed(
    ref: str, place: dict[str, Any], proxy: FaultyProxy, open_context: OpenContext, call_context: Any, asked: Any
) -> None:
    async with opened(ref, place | {"timeout_seconds": 1}, open_context) as provider:
        store = Store(provider, call_context)
        await store.put("k")
        proxy.fault = "silent"

        error = await store.refusal(ACTIONS[type(asked)], asked)

        assert error.code == "timeout"
        proxy.break_all()
        await recovered(store, proxy)


async def test_a_cancelled_write_leaves_no_connection_waiting(store: Store, proxy: FaultyProxy) -> None:
    proxy.fault = "silent"
    task = asyncio.ensure_future(store.put("k"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await recovered(store, proxy)
    assert await store.keys() == ["after"]


async def test_a_silent_endpoint_cannot_be_opened_and_health_says_down(
    ref: str, place: dict[str, Any], proxy: FaultyProxy, open_context: OpenContext
) -> None:
    async with opened(ref, place | {"timeout_seconds": 1}, open_context) as provider:
        proxy.fault = "silent"
        health = await provider.health()
        with pytest.raises(ProviderError) as caught:
            await made(ref, place | {"timeout_seconds": 1}, open_context).open()

        assert (health.status, caught.value.code) == ("down", "timeout")
        proxy.fault = "none"
        proxy.break_all()
        assert (await provider.health()).status == "ok"


async def test_a_store_that_redirects_is_not_followed(
    ref: str, config: dict[str, Any], open_context: OpenContext, call_context: Any
) -> None:
    reached: list[bytes] = []

    async def inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(await reader.read(1000))
        writer.close()

    async def redirecting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        port = target.sockets[0].getsockname()[1]
        head = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.2:{port}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        writer.close()

    target = await asyncio.start_server(inside, "127.0.0.2", 0)
    async with opened(ref, config, open_context) as provider, target:
        server = await asyncio.start_server(redirecting, "127.0.0.1", 0)
        async with server:
            address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            store = Store(made(ref, config | {"endpoint": address}, open_context), call_context)
            for inner in ("_bucket", "_container"):  # opening would ask, and fail as it should
                if hasattr(store.provider, inner):
                    await getattr(store.provider, inner).open()
            for request in (*READS, *WRITES):
                if needed(request) in {None, *CATALOG.provider(*ref.split("/")).capabilities}:
                    error = await store.refusal(ACTIONS[type(request)], request)
                    assert error.code in {"failed_precondition", "unavailable"}
            await store.provider.close()
        assert (await provider.health()).status == "ok"
    assert reached == []
