"""Objects in files below the tenant's data directory."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, TypeVar

import msgspec

from erp.contracts.models.storage import (
    AbortMultipartRequest,
    AbortMultipartResult,
    CompleteMultipartRequest,
    CompleteMultipartResult,
    CopyRequest,
    CopyResult,
    CreateMultipartRequest,
    CreateMultipartResult,
    DeleteRequest,
    DeleteResult,
    GetLifecycleRequest,
    GetLifecycleResult,
    GetRequest,
    GetResult,
    HeadRequest,
    HeadResult,
    ListPartsRequest,
    ListPartsResult,
    ListRequest,
    ListResult,
    Part,
    PutLifecycleRequest,
    PutLifecycleResult,
    PutRequest,
    PutResult,
    ReadRequest,
    ReadResult,
    SignedUrlRequest,
    SignedUrlResult,
    UploadPartRequest,
    UploadPartResult,
)
from erp.providers.storage.filesystem.lifecycle import Lifecycle
from erp.providers.storage.filesystem.listing import moment, page
from erp.providers.storage.filesystem.objects import (
    NO_DIGEST,
    Condition,
    ConditionFailedError,
    DamagedError,
    Head,
    ObjectFolder,
)
from erp.providers.storage.filesystem.uploads import KEPT_SECONDS, Done, NoUploadError, PartMissingError, Uploads
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

RULES_SECONDS = 6 * 3600.0
"""How often rules are applied; they count days."""


class FileStorage:
    """Each object is one file, written aside, synced and renamed: whole, or not there."""

    translate: ClassVar[ErrorTable] = {DamagedError: ErrorCode.INTERNAL}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._objects = ObjectFolder(context.data_dir / "objects")
        self._uploads = Uploads(context.data_dir / "uploads")
        self._lifecycle = Lifecycle(context.data_dir / "lifecycle.json", self._objects)
        self._links = context.links
        self._remind = context.remind
        self._thread_count: int = config.get("threads", 4)
        self._threads: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        self._threads = ThreadPoolExecutor(self._thread_count, thread_name_prefix="storage-filesystem")
        await self._run(self._objects.open)
        await self._run(self._uploads.open)

    async def close(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.get_running_loop().run_in_executor(None, threads.shutdown)

    async def health(self) -> Health:
        """Look into the folder."""
        started = time.perf_counter()
        await self._run(lambda: next(self._objects.entries(), None))
        return Health(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 3))

    async def put(self, request: PutRequest, context: CallContext) -> PutResult:  # noqa: ARG002
        _refuse_key(request)
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
        await self._run(lambda: self._objects.write(head, [request.content], condition))
        return PutResult(etag=head.etag, size=head.size, sha256=digest)

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:  # noqa: ARG002
        _refuse_version(request)
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
            modified_at=moment(head),
        )

    async def head(self, request: HeadRequest, context: CallContext) -> HeadResult:  # noqa: ARG002
        _refuse_version(request)
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
            modified_at=moment(head),
        )

    async def list(self, request: ListRequest, context: CallContext) -> ListResult:  # noqa: ARG002
        return await self._run(lambda: page(self._objects, request))

    async def copy(self, request: CopyRequest, context: CallContext) -> CopyResult:  # noqa: ARG002
        copied = await self._run(lambda: _copied(self._objects, request))
        if copied is None:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no object {request.source[:200]!r}.")
        return CopyResult(etag=copied.etag, size=copied.size)

    async def delete(self, request: DeleteRequest, context: CallContext) -> DeleteResult:  # noqa: ARG002
        _refuse_version(request)
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

    # -- uploads in parts ------------------------------------------------------------------------

    async def create_multipart(self, request: CreateMultipartRequest, context: CallContext) -> CreateMultipartResult:  # noqa: ARG002
        _refuse_key(request)
        head = Head(
            key=request.key,
            content_type=request.content_type,
            metadata={} if request.metadata is UNSET else request.metadata,
            sha256=NO_DIGEST,
            size=0,
            modified_at=time.time(),
        )
        upload = await self._run(lambda: self._uploads.begin(head))
        await self._remind(_in(KEPT_SECONDS))
        return CreateMultipartResult(upload=upload)

    async def upload_part(self, request: UploadPartRequest, context: CallContext) -> UploadPartResult:  # noqa: ARG002
        place = (request.upload, request.key, request.part)
        return UploadPartResult(etag=await self._run(lambda: self._uploads.add(*place, request.content)))

    async def list_parts(self, request: ListPartsRequest, context: CallContext) -> ListPartsResult:  # noqa: ARG002
        found = await self._run(lambda: self._uploads.parts(request.upload, request.key))
        return ListPartsResult(parts=[Part(part=number, etag=etag, size=size) for number, etag, size in found])

    async def complete_multipart(
        self,
        request: CompleteMultipartRequest,
        context: CallContext,  # noqa: ARG002
    ) -> CompleteMultipartResult:
        done = await self._run(lambda: self._completed(request))
        return CompleteMultipartResult(etag=done.etag, size=done.size)

    def _completed(self, request: CompleteMultipartRequest) -> Done:
        upload, key = request.upload, request.key
        if (done := self._uploads.done(upload, key)) is not None:
            return done
        wanted = [(part.part, part.etag) for part in request.parts]
        content = self._uploads.content(upload, key, wanted)
        head = msgspec.structs.replace(self._uploads.about(upload, key), modified_at=time.time())
        written = self._objects.write(head, content, Condition())
        done = Done(written.etag, written.size)
        self._uploads.complete(upload, done)
        return done

    async def abort_multipart(self, request: AbortMultipartRequest, context: CallContext) -> AbortMultipartResult:  # noqa: ARG002
        aborted = await self._run(lambda: self._uploads.abort(request.upload, request.key))
        return AbortMultipartResult(aborted=aborted)

    # -- links and rules -------------------------------------------------------------------------

    async def signed_url(self, request: SignedUrlRequest, context: CallContext) -> SignedUrlResult:  # noqa: ARG002
        expires_at = _in(request.expires_seconds)
        claims = {"method": request.method, "key": request.key}
        if request.content_type is not UNSET:
            claims["content_type"] = request.content_type
        return SignedUrlResult(url=self._links.make("objects", claims, expires_at=expires_at), expires_at=expires_at)

    async def get_lifecycle(self, request: GetLifecycleRequest, context: CallContext) -> GetLifecycleResult:  # noqa: ARG002
        return GetLifecycleResult(rules=await self._run(self._lifecycle.rules))

    async def put_lifecycle(self, request: PutLifecycleRequest, context: CallContext) -> PutLifecycleResult:  # noqa: ARG002
        if len({rule.id for rule in request.rules}) < len(request.rules):
            error = FieldError("/params/rules", "Give every rule an id of its own.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "Two rules have the same id.", errors=[error])
        await self._run(lambda: self._lifecycle.replace(request.rules))
        if request.rules:
            await self._remind(_in(0))
        return PutLifecycleResult(rules=request.rules)

    async def work(self, context: CallContext) -> datetime.datetime | None:
        """Remove what the rules say and what nobody finishes; come again every day while there are rules."""
        for rule, removed in (await self._run(self._lifecycle.apply)).items():
            context.emit("expired", {"rule": rule, "removed": removed})
        await self._run(self._objects.sweep)
        ends = await self._run(self._uploads.sweep)
        if await self._run(self._lifecycle.rules):
            return _in(RULES_SECONDS)
        return None if ends is None else datetime.datetime.fromtimestamp(ends + 1, datetime.UTC)

    # -- work in threads -------------------------------------------------------------------------

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
        except (ConditionFailedError, PartMissingError) as error:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
        except NoUploadError:
            message = "There is no such upload for this key; it may have been completed or aborted."
            raise ProviderError(ErrorCode.NOT_FOUND, message) from None
        except OSError as error:
            message = "The storage cannot be used now; nothing was changed."
            if error.errno in {28, 122}:  # ENOSPC, EDQUOT
                message = "The disk is full; nothing was changed."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, detail=str(error), retry_after_seconds=1.0) from error


def _copied(objects: ObjectFolder, request: CopyRequest) -> Head | None:
    found = objects.content(request.source)
    if found is None:
        return None
    head, content = found
    with contextlib.closing(content):
        copy = msgspec.structs.replace(head, key=request.target, modified_at=time.time())
        return objects.write(copy, content, Condition())


def _in(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)


def _refuse_version(request: GetRequest | HeadRequest | DeleteRequest) -> None:
    if request.version is not UNSET:
        raise ProviderError(ErrorCode.UNSUPPORTED, "The file system keeps no earlier versions. Leave version out.")


def _refuse_key(request: PutRequest | CreateMultipartRequest) -> None:
    if request.encryption_key is not UNSET:
        message = "The file system does not encrypt. Leave encryption_key out, or use a store that does."
        raise ProviderError(ErrorCode.UNSUPPORTED, message)
