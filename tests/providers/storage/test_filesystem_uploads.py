"""Uploads in parts, links, lifecycle rules, other processes: what is special to files."""

from __future__ import annotations

import asyncio
import datetime
import errno
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from erp.contracts.models import storage as api
from erp.errors import ProviderError
from erp.providers.storage.filesystem import lifecycle
from erp.providers.storage.filesystem.names import file_name, key_of
from erp.providers.storage.filesystem.objects import Condition, Head, ObjectFolder
from erp.providers.storage.filesystem.provider import FileStorage
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio

DAY = 24 * 3600


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


async def begun(storage: FileStorage, ctx: CallContext, key: str = "k") -> str:
    return (await storage.create_multipart(api.CreateMultipartRequest(key=key), ctx)).upload


async def sent(storage: FileStorage, ctx: CallContext, upload: str, number: int, content: bytes) -> api.Part:
    request = api.UploadPartRequest(key="k", upload=upload, part=number, content=content)
    return api.Part(part=number, etag=(await storage.upload_part(request, ctx)).etag)


async def completed(
    storage: FileStorage, ctx: CallContext, upload: str, *parts: api.Part
) -> api.CompleteMultipartResult:
    return await storage.complete_multipart(
        api.CompleteMultipartRequest(key="k", upload=upload, parts=list(parts)), ctx
    )


async def content(storage: FileStorage, ctx: CallContext, key: str = "k") -> bytes:
    return (await storage.get(api.GetRequest(key=key), ctx)).content


def files(context: OpenContext, folder: str) -> list[Path]:
    return [path for path in (context.data_dir / folder).rglob("*") if path.is_file()]


async def test_completing_twice_answers_the_same(storage: FileStorage, ctx: CallContext) -> None:
    upload = await begun(storage, ctx)
    parts = [await sent(storage, ctx, upload, number, bytes([number]) * 10) for number in (2, 1)]
    first = await completed(storage, ctx, upload, *parts)
    await storage.put(api.PutRequest(key="k", content=b"newer"), ctx)

    assert await completed(storage, ctx, upload, *parts) == first
    assert await content(storage, ctx) == b"newer", "the first completion is not repeated over what came later"


async def test_a_full_disk_while_completing_leaves_the_parts_and_the_old_object(
    storage: FileStorage, ctx: CallContext, open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.put(api.PutRequest(key="k", content=b"old"), ctx)
    upload = await begun(storage, ctx)
    part = await sent(storage, ctx, upload, 1, b"new")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr("erp.providers.storage.filesystem.objects.os.fsync", full)
        with pytest.raises(ProviderError, match="disk is full") as refused:
            await completed(storage, ctx, upload, part)
    assert refused.value.code == "unavailable"
    assert await content(storage, ctx) == b"old"
    assert len(files(open_context, "objects")) == 1

    await completed(storage, ctx, upload, part)
    assert await content(storage, ctx) == b"new"


async def test_a_part_that_cannot_be_written_leaves_nothing(
    storage: FileStorage, ctx: CallContext, open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await begun(storage, ctx)
    before = files(open_context, "uploads")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr("erp.providers.storage.filesystem.uploads.os.fsync", full)
        with pytest.raises(ProviderError, match="disk is full"):
            await sent(storage, ctx, upload, 1, b"new")

    assert files(open_context, "uploads") == before
    await sent(storage, ctx, upload, 1, b"new")


async def test_uploads_that_nobody_finishes_are_removed_after_a_week(
    storage: FileStorage, ctx: CallContext, open_context: OpenContext
) -> None:
    old, young = await begun(storage, ctx), await begun(storage, ctx)
    os.utime(open_context.data_dir / "uploads" / old, (time.time() - 8 * DAY,) * 2)

    due = await storage.work(ctx)

    assert [path.name for path in (open_context.data_dir / "uploads").iterdir()] == [young]
    assert due is not None
    assert 6.9 * DAY < (due - datetime.datetime.now(datetime.UTC)).total_seconds() < 7.1 * DAY


@pytest.mark.parametrize("upload", ["..", "../objects", "a" * 32, "", "A" * 32, "new-x"])
async def test_no_upload_names_a_path(storage: FileStorage, ctx: CallContext, upload: str) -> None:
    with pytest.raises(ProviderError) as refused:
        await storage.list_parts(api.ListPartsRequest(key="k", upload=upload), ctx)

    assert refused.value.code == "not_found"


async def aged(storage: FileStorage, ctx: CallContext, monkeypatch: pytest.MonkeyPatch, key: str, days: float) -> None:
    """Store an object as if it had been written ``days`` ago."""
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("erp.providers.storage.filesystem.provider.time.time", lambda: now - days * DAY)
        await storage.put(api.PutRequest(key=key, content=b"x"), ctx)
    path = storage._objects._folder / file_name(key)
    os.utime(path, (now - days * DAY,) * 2)


async def test_rules_remove_what_is_old_enough_and_say_so(
    storage: FileStorage, ctx: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, days in (("tmp/old", 8), ("tmp/young", 6), ("logs/old", 31), ("kept", 300), ("tmp/" + "x" * 900, 8)):
        await aged(storage, ctx, monkeypatch, key, days)
    rules = [
        api.LifecycleRule(id="tmp", prefix="tmp/", expire_after_days=7),
        api.LifecycleRule(id="logs", prefix="logs/", expire_after_days=30),
    ]
    await storage.put_lifecycle(api.PutLifecycleRequest(rules=rules), ctx)

    due = await storage.work(ctx)

    left = await storage.list(api.ListRequest(), ctx)
    assert [one.key for one in left.objects] == ["kept", "tmp/young"]
    assert {event.data["rule"]: event.data["removed"] for event in ctx.emitted} == {"tmp": 2, "logs": 1}
    assert due is not None, "rules are applied again"


async def test_an_object_written_anew_while_the_rules_are_applied_stays(
    storage: FileStorage, ctx: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    await aged(storage, ctx, monkeypatch, "k", 9)
    rule = api.LifecycleRule(id="all", expire_after_days=7)
    await storage.put_lifecycle(api.PutLifecycleRequest(rules=[rule]), ctx)
    is_over = lifecycle._is_over

    def late(head: Head, rule: Any, now: float) -> bool:
        storage._objects.write(
            Head(key="k", content_type="t", metadata={}, sha256="", size=0, modified_at=now), [b"new"], Condition()
        )
        return is_over(head, rule, now)

    monkeypatch.setattr(lifecycle, "_is_over", late)
    await storage.work(ctx)

    assert await content(storage, ctx) == b"new"


async def test_two_rules_with_one_id_are_refused_and_nothing_is_changed(storage: FileStorage, ctx: CallContext) -> None:
    rule = api.LifecycleRule(id="a", expire_after_days=7)
    with pytest.raises(ProviderError, match="same id"):
        await storage.put_lifecycle(api.PutLifecycleRequest(rules=[rule, rule]), ctx)

    assert (await storage.get_lifecycle(api.GetLifecycleRequest(), ctx)).rules == []


async def test_a_page_opens_only_what_it_shows(
    storage: FileStorage, ctx: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        await storage.put(api.PutRequest(key=f"d/{number:04}", content=b"x"), ctx)
    opened: list[Path] = []
    head = ObjectFolder._head

    def counted(self: ObjectFolder, path: Path) -> Head | None:
        opened.append(path)
        return head(self, path)

    monkeypatch.setattr(ObjectFolder, "_head", counted)

    page = await storage.list(api.ListRequest(prefix="d/", limit=10, cursor="d/0100"), ctx)

    assert [one.key for one in page.objects] == [f"d/{number:04}" for number in range(101, 111)]
    assert len(opened) == 10


@pytest.mark.parametrize("key", ["a", "ä/ö", "\ud800", "a%b", "%%", "..", "A B", "\x00", "k" * 300])
def test_a_short_file_name_says_its_key(key: str) -> None:
    assert key_of(file_name(key)) == (key if len(key) < 100 else None if len(key) > 200 else key)


WRITER = """
import sys, time
from pathlib import Path
from erp.providers.storage.filesystem.objects import *
folder = ObjectFolder(Path(sys.argv[1])); won = 0
for number in range(40):
    head = Head(key=f"once/{number}", content_type="t", metadata={}, sha256="", size=0, modified_at=0)
    try:
        folder.write(head, [sys.argv[2].encode() * 1000], Condition(is_absent=True)); won += 1
    except ConditionFailedError:
        pass
    folder.write(Head(key="shared", content_type="t", metadata={}, sha256="", size=0, modified_at=0), [sys.argv[2].encode() * 50_000], Condition())
print(won)
"""


async def test_two_processes_write_one_object_once_and_never_a_mixture(
    storage: FileStorage, ctx: CallContext, open_context: OpenContext
) -> None:
    def write(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(open_context.data_dir / "objects"), name]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    writers = [await asyncio.to_thread(write, name) for name in "ab"]
    outputs = [await asyncio.to_thread(writer.communicate) for writer in writers]

    assert sum(int(output[0]) for output in outputs) == 40
    assert set(await content(storage, ctx, "shared")) in ({ord("a")}, {ord("b")})
    assert (await storage.head(api.HeadRequest(key="shared"), ctx)).size == 50_000


async def test_copying_does_not_hold_the_object_in_memory(storage: FileStorage, ctx: CallContext) -> None:
    upload = await begun(storage, ctx)
    parts = [await sent(storage, ctx, upload, number, bytes([number]) * 3_000_000) for number in range(1, 4)]
    await completed(storage, ctx, upload, *parts)
    await storage.copy(api.CopyRequest(source="k", target="copy"), ctx)

    first, second = [await storage.head(api.HeadRequest(key=key), ctx) for key in ("k", "copy")]
    assert (first.sha256, first.etag, first.size) == (second.sha256, second.etag, 9_000_000)
    with pytest.raises(ProviderError, match="There is no object"):
        await storage.copy(api.CopyRequest(source="none", target="copy"), ctx)
