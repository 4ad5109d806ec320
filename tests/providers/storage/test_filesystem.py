"""Objects are whole or not there, and no key reaches outside its folder."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from erp.contracts.models import storage as api
from erp.errors import ProviderError
from erp.providers.storage.filesystem import objects
from erp.providers.storage.filesystem.names import file_name
from erp.providers.storage.filesystem.provider import FileStorage
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio


@pytest.fixture
async def storage(open_context: OpenContext) -> AsyncIterator[FileStorage]:
    made = FileStorage({}, open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


async def put(storage: FileStorage, ctx: CallContext, key: str, content: bytes = b"x", **more: Any) -> api.PutResult:
    return await storage.put(api.PutRequest(key=key, content=content, **more), ctx)


async def get(storage: FileStorage, ctx: CallContext, key: str, **more: Any) -> bytes:
    return (await storage.get(api.GetRequest(key=key, **more), ctx)).content


KEYS = [
    "a", "A", "a/b", "a//b", "/a", "a/", ".", "..", "../x", "../../etc/passwd", "/etc/passwd", "a/../../b", "~root",
    "C:\\x", "\\\\host\\share", "CON", "nul.txt", "a\u0000b", "a\nb", "%2e%2e%2f", "%", "ü", "u\u0308", "\uff0e\uff0e/x", "🎉",
    " ", "x" * 1024, "x" * 1023 + "y", "ü" * 1024, "-rf", "*", "tmp-1", "o-a", ".hidden",
]  # fmt: skip


async def test_every_key_holds_its_own_object_inside_the_folder(
    storage: FileStorage, ctx: CallContext, open_context: OpenContext
) -> None:
    outside = set(open_context.data_dir.parent.rglob("*"))
    for number, key in enumerate(KEYS):
        await put(storage, ctx, key, str(number).encode())

    for number, key in enumerate(KEYS):
        assert await get(storage, ctx, key) == str(number).encode(), key
    written = set(open_context.data_dir.parent.rglob("*")) - outside
    assert {path.parent for path in written} == {open_context.data_dir / "objects"}
    assert len(written) == len(KEYS)
    assert len({file_name(key).lower() for key in KEYS}) == len(KEYS)


async def test_a_link_planted_in_the_folder_is_not_followed_when_writing(
    storage: FileStorage, ctx: CallContext, open_context: OpenContext, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (open_context.data_dir / "objects" / file_name("k")).symlink_to(target)
    await put(storage, ctx, "k", b"new", content_type="text/plain")
    assert target.read_text() == "precious"
    assert await get(storage, ctx, "k") == b"new"


async def test_a_link_planted_in_the_folder_is_not_followed_when_reading(
    storage: FileStorage, ctx: CallContext, open_context: OpenContext, tmp_path: Path
) -> None:
    await put(storage, ctx, "mine", b"another tenant's")
    folder = open_context.data_dir / "objects"
    (folder / file_name("mine")).replace(tmp_path / "elsewhere")
    (folder / file_name("k")).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(objects.DamagedError):
        await get(storage, ctx, "k")
    with pytest.raises(objects.DamagedError):
        await storage.head(api.HeadRequest(key="k"), ctx)
    with pytest.raises(objects.DamagedError):
        [part async for part in storage.read(api.ReadRequest(key="k"), ctx)]
    with pytest.raises(objects.DamagedError):
        await storage.copy(api.CopyRequest(source="k", target="mine"), ctx)
    await put(storage, ctx, "k", b"new")
    assert await get(storage, ctx, "k") == b"new"
    assert b"another tenant's" in (tmp_path / "elsewhere").read_bytes()


async def test_an_object_comes_back_with_all_it_had(storage: FileStorage, ctx: CallContext) -> None:
    content = os.urandom(100_000)
    stored = await put(storage, ctx, "k", content, content_type="image/png", metadata={"by": "ü"})
    found = await storage.get(api.GetRequest(key="k"), ctx)
    head = await storage.head(api.HeadRequest(key="k"), ctx)

    assert (found.content, found.content_type, found.metadata) == (content, "image/png", {"by": "ü"})
    assert (found.etag, found.size) == (stored.etag, 100_000)
    assert (head.found, head.sha256, head.etag) == (True, stored.sha256, stored.etag)
    assert (await storage.head(api.HeadRequest(key="nope"), ctx)).found is False


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 3, b"012"), (7, 100, b"789"), (9, 1, b"9"), (10, 5, b""), (99, None, b""), (4, None, b"456789")],
)
async def test_a_part_can_be_read(
    storage: FileStorage, ctx: CallContext, offset: int, length: int | None, expected: bytes
) -> None:
    await put(storage, ctx, "k", b"0123456789")
    more = {} if length is None else {"length": length}
    assert await get(storage, ctx, "k", offset=offset, **more) == expected


async def test_a_large_object_is_read_in_parts(storage: FileStorage, ctx: CallContext) -> None:
    content = os.urandom(5000)
    await put(storage, ctx, "k", content)
    parts = [part async for part in storage.read(api.ReadRequest(key="k", part_bytes=2048), ctx)]
    assert [part.offset for part in parts] == [0, 2048, 4096]
    assert b"".join(part.content for part in parts) == content


async def test_a_write_can_depend_on_what_is_there(storage: FileStorage, ctx: CallContext) -> None:
    first = await put(storage, ctx, "k", b"1", if_none_match="*")
    for condition in ({"if_none_match": "*"}, {"if_match": "other"}):
        with pytest.raises(ProviderError) as refused:
            await put(storage, ctx, "k", b"2", **condition)
        assert refused.value.code == "failed_precondition"
    assert await get(storage, ctx, "k") == b"1"
    await put(storage, ctx, "k", b"3", if_match=first.etag)
    assert await get(storage, ctx, "k") == b"3"


async def test_of_many_writers_who_all_expect_nothing_exactly_one_wins(storage: FileStorage, ctx: CallContext) -> None:
    results = await asyncio.gather(
        *(put(storage, ctx, "k", str(number).encode(), if_none_match="*") for number in range(40)),
        return_exceptions=True,
    )
    winners = [number for number, result in enumerate(results) if isinstance(result, api.PutResult)]
    assert len(winners) == 1
    assert await get(storage, ctx, "k") == str(winners[0]).encode()


async def test_content_that_lacks_its_checksum_is_refused(storage: FileStorage, ctx: CallContext) -> None:
    with pytest.raises(ProviderError) as refused:
        await put(storage, ctx, "k", b"1", sha256="0" * 64)
    assert [error.pointer for error in refused.value.errors] == ["/params/sha256"]
    assert (await storage.head(api.HeadRequest(key="k"), ctx)).found is False


async def test_objects_are_listed_by_key_in_pages_and_folders(storage: FileStorage, ctx: CallContext) -> None:
    for key in ("a/1", "a/2", "a/b/3", "b", "ü"):
        await put(storage, ctx, key)

    everything = await storage.list(api.ListRequest(), ctx)
    assert [item.key for item in everything.objects] == ["a/1", "a/2", "a/b/3", "b", "ü"]
    folded = await storage.list(api.ListRequest(delimiter="/"), ctx)
    assert ([item.key for item in folded.objects], folded.prefixes) == (["b", "ü"], ["a/"])
    inner = await storage.list(api.ListRequest(prefix="a/", delimiter="/"), ctx)
    assert ([item.key for item in inner.objects], inner.prefixes) == (["a/1", "a/2"], ["a/b/"])

    seen, cursor = [], None
    while True:
        page = await storage.list(api.ListRequest(limit=2, **({"cursor": cursor} if cursor else {})), ctx)
        seen += [item.key for item in page.objects]
        if not isinstance(page.next_cursor, str):
            break
        cursor = page.next_cursor
    assert seen == ["a/1", "a/2", "a/b/3", "b", "ü"]


async def test_copies_and_deletions(storage: FileStorage, ctx: CallContext) -> None:
    await put(storage, ctx, "a", b"1", content_type="text/plain", metadata={"m": "1"})
    await storage.copy(api.CopyRequest(source="a", target="b"), ctx)
    assert (await storage.delete(api.DeleteRequest(key="a"), ctx)).deleted is True
    assert (await storage.delete(api.DeleteRequest(key="a"), ctx)).deleted is False

    found = await storage.get(api.GetRequest(key="b"), ctx)
    assert (found.content, found.content_type, found.metadata) == (b"1", "text/plain", {"m": "1"})
    for call in (storage.get(api.GetRequest(key="a"), ctx), storage.copy(api.CopyRequest(source="a", target="c"), ctx)):
        with pytest.raises(ProviderError) as refused:
            await call
        assert refused.value.code == "not_found"


async def test_a_full_disk_keeps_the_old_object_and_leaves_nothing_half_written(
    storage: FileStorage, ctx: CallContext, open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(storage, ctx, "k", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(ProviderError) as refused:
            await put(storage, ctx, "k", b"new")
    assert (refused.value.code, "disk is full" in refused.value.message) == ("unavailable", True)
    assert await get(storage, ctx, "k") == b"old"
    assert len(list((open_context.data_dir / "objects").iterdir())) == 1

    await put(storage, ctx, "k", b"new")
    assert await get(storage, ctx, "k") == b"new"


async def test_what_a_killed_process_left_is_neither_seen_nor_kept(
    storage: FileStorage, ctx: CallContext, open_context: OpenContext
) -> None:
    left = open_context.data_dir / "objects" / "tmp-dead"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    await put(storage, ctx, "k")
    assert [item.key for item in (await storage.list(api.ListRequest(), ctx)).objects] == ["k"]

    await storage.close()
    await storage.open()
    assert not left.exists()
    assert await get(storage, ctx, "k") == b"x"


async def test_a_damaged_file_is_an_error_and_not_an_object(
    storage: FileStorage, ctx: CallContext, open_context: OpenContext
) -> None:
    await put(storage, ctx, "k", b"0123456789")
    path = open_context.data_dir / "objects" / file_name("k")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(objects.DamagedError):
        await get(storage, ctx, "k")
    await put(storage, ctx, "k", b"mended")
    assert await get(storage, ctx, "k") == b"mended"


async def test_a_closed_storage_is_unavailable(storage: FileStorage, ctx: CallContext) -> None:
    await storage.close()
    await storage.close()
    with pytest.raises(ProviderError) as refused:
        await get(storage, ctx, "k")
    assert refused.value.code == "unavailable"
