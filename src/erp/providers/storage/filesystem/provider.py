"""Objects in files below the tenant's data directory."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, TypeVar

from erp.contracts.models.storage import (
    CopyRequest,
    CopyResult,
    DeleteRequest,
    DeleteResult,
    GetRequest,
    GetResult,
    HeadRequest,
    HeadResult,
    ListRequest,
    ListResult,
    Object,
    PutRequest,
    PutResult,
    ReadRequest,
    ReadResult,
)
from erp.providers.storage.filesystem.objects import Condition, ConditionFailedError, DamagedError, Head, ObjectFolder
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    ErrorCode,
    ErrorTable,
    FieldError,
    Health,
    OpenContext,
    ProviderError,
)

T = TypeVar("T")


class FileStorage:
    """Each object is one file, written aside, synced and renamed: whole, or not there."""

    translate: ClassVar[ErrorTable] = {DamagedError: ErrorCode.INTERNAL}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._objects = ObjectFolder(context.data_dir / "objects")
        self._thread_count: int = config.get("threads", 4)
        self._threads: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        self._threads = ThreadPoolExecutor(self._thread_count, thread_name_prefix="storage-filesystem")
        await self._run(self._objects.open)

    async def close(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.get_running_loop().run_in_executor(None, threads.shutdown)

    async def health(self) -> Health:
        """Look into the folder."""
        started = time.perf_counter()
        await self._run(lambda: next(self._objects.heads(), None))
        return Health(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 3))

    async def put(self, request: PutRequest, context: CallContext) -> PutResult:  # noqa: ARG002
        digest = hashlib.sha256(request.content).hexdigest()
        if request.sha256 is not UNSET and request.sha256 != digest:
            error = FieldError("/params/sha256", f"The content has the checksum {digest}.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The content does not have this checksum.", errors=[error])
        head = Head(
            key=request.key,
            content_type=request.content_type,
            metadata={} if request.metadata is UNSET else request.metadata,
            sha256=digest,
            size=len(request.content),
            modified_at=time.time(),
        )
        condition = Condition(None if request.if_match is UNSET else request.if_match, request.if_none_match == "*")
        await self._run(lambda: self._objects.write(head, request.content, condition))
        return PutResult(etag=head.etag, size=head.size, sha256=digest)

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:  # noqa: ARG002
        length = None if request.length is UNSET else request.length
        head, content = await self._part(request.key, request.offset, length)
        if request.if_match is not UNSET and request.if_match != head.etag:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "The object is not the one with this etag any more.")
        return GetResult(
            content=content,
            content_type=head.content_type,
            metadata=head.metadata,
            etag=head.etag,
            size=head.size,
            modified_at=_moment(head),
        )

    async def head(self, request: HeadRequest, context: CallContext) -> HeadResult:  # noqa: ARG002
        head = await self._run(lambda: self._objects.head(request.key))
        if head is None:
            return HeadResult(found=False)
        return HeadResult(
            found=True,
            content_type=head.content_type,
            metadata=head.metadata,
            etag=head.etag,
            size=head.size,
            sha256=head.sha256,
            modified_at=_moment(head),
        )

    async def list(self, request: ListRequest, context: CallContext) -> ListResult:  # noqa: ARG002
        return await self._run(lambda: _page(self._objects, request))

    async def copy(self, request: CopyRequest, context: CallContext) -> CopyResult:  # noqa: ARG002
        head, content = await self._part(request.source, 0, None)
        copied = Head(
            key=request.target,
            content_type=head.content_type,
            metadata=head.metadata,
            sha256=head.sha256,
            size=head.size,
            modified_at=time.time(),
        )
        await self._run(lambda: self._objects.write(copied, content, Condition()))
        return CopyResult(etag=copied.etag, size=copied.size)

    async def delete(self, request: DeleteRequest, context: CallContext) -> DeleteResult:  # noqa: ARG002
        return DeleteResult(deleted=await self._run(lambda: self._objects.delete(request.key)))

    async def read(self, request: ReadRequest, context: CallContext) -> AsyncGenerator[ReadResult]:  # noqa: ARG002
        first: Head | None = None
        for offset in itertools.count(0, request.part_bytes):
            head, content = await self._part(request.key, offset, request.part_bytes)
            if first is not None and head.etag != first.etag:
                raise ProviderError(ErrorCode.CONFLICT, "The object was replaced while it was being read.")
            first = head
            if content:
                yield ReadResult(offset=offset, content=content)
            if offset + len(content) >= head.size:
                return

    async def _part(self, key: str, offset: int, length: int | None) -> tuple[Head, bytes]:
        found = await self._run(lambda: self._objects.read(key, offset, length))
        if found is None:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no object {key[:200]!r}.")
        return found

    async def _run(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The storage is closed.", retry_after_seconds=1.0)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ConditionFailedError as error:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
        except OSError as error:
            message = "The storage cannot be used now; nothing was changed."
            if error.errno in {28, 122}:  # ENOSPC, EDQUOT
                message = "The disk is full; nothing was changed."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, detail=str(error), retry_after_seconds=1.0) from error


def _page(objects: ObjectFolder, request: ListRequest) -> ListResult:
    after = "" if request.cursor is UNSET else request.cursor
    folded: dict[str, Head | None] = {}
    for head in objects.heads():
        name = _folded(head.key, request)
        if name is not None and name > after:
            folded[name] = head if name == head.key else None
    names = sorted(folded)[: request.limit + 1]
    shown = names[: request.limit]
    result = ListResult(objects=[], prefixes=[name for name in shown if folded[name] is None])
    result.objects = [
        Object(key=head.key, size=head.size, etag=head.etag, modified_at=_moment(head))
        for head in (folded[name] for name in shown)
        if head is not None
    ]
    if len(names) > request.limit:
        result.next_cursor = shown[-1]
    return result


def _folded(key: str, request: ListRequest) -> str | None:
    """Return the key, the prefix it is folded into, or None when it is not wanted."""
    if not key.startswith(request.prefix):
        return None
    if request.delimiter is UNSET:
        return key
    inside, found, _ = key[len(request.prefix) :].partition("/")
    return f"{request.prefix}{inside}/" if found else key


def _moment(head: Head) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(head.modified_at, datetime.UTC)
