"""Uploads in parts over many calls. Azure keeps blocks but knows no uploads, so each has a record, a small blob of its own.

A block is named after upload, part and content; the record says what the object shall be, and after the end what it
became. Blocks that no list names are dropped by the store after a week; ``sweep`` removes records as old.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import secrets
import struct
import time
from dataclasses import dataclass

import msgspec

from erp.contracts.models import storage as api
from erp.providers.storage.azure.rest import BlobRest
from erp.runtime.spi import CallContext, ErrorCode, ProviderError
from erp.vendor_clients.object_store.failures import RefusedError, of_a_read, of_a_write
from erp.vendor_clients.object_store.metadata import Facts, MetadataForm
from erp.vendor_clients.object_store.objects import Objects

KEPT_SECONDS = 7 * 24 * 3600.0
_NO_BLOCKS = {"BlobNotFound", "InvalidBlobType"}
_UPLOAD = re.compile(r"[0-9a-f]{32}")
_BLOCK = struct.Struct(">16sHQ16s")
"""Name of a block: upload, part, when it was sent, digest of its content. The store takes 64 bytes."""
_SWEPT_AT_ONCE = 1000


class Record(msgspec.Struct, kw_only=True):
    """What is known of an upload."""

    key: str
    content_type: str
    metadata: dict[str, str]
    etag: str | None = None
    """Of the object it became."""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """One part as it arrived."""

    name: bytes
    part: int
    sent_at: int
    etag: str
    size: int


class Uploads:
    """The uploads of one connection."""

    def __init__(self, objects: Objects, rest: BlobRest, form: MetadataForm, *, folder: str) -> None:
        """``folder`` begins the names of records; no object has such a name."""
        self._objects = objects
        self._rest = rest
        self._form = form
        self._folder = folder

    async def create(self, request: api.CreateMultipartRequest, context: CallContext) -> api.CreateMultipartResult:
        """Begin an upload."""
        facts = self._objects.facts(request.key, request.content_type, request.metadata)
        upload = secrets.token_hex(16)
        record = Record(key=request.key, content_type=facts.content_type, metadata=facts.metadata)
        with of_a_write():
            await self._keep(upload, record, self._objects.seconds(context))
        return api.CreateMultipartResult(upload=upload)

    async def add(self, request: api.UploadPartRequest, context: CallContext) -> api.UploadPartResult:
        """Send one part."""
        seconds, etag = self._objects.seconds(context), hashlib.sha256(request.content).hexdigest()[:32]
        await self._begun(request.upload, request.key, seconds)
        block = _BLOCK.pack(bytes.fromhex(request.upload), request.part, time.time_ns(), bytes.fromhex(etag))
        with of_a_write():
            await self._rest.add_block(self._name(request.key), block, request.content, seconds=seconds)
        return api.UploadPartResult(etag=etag)

    async def parts(self, request: api.ListPartsRequest, context: CallContext) -> api.ListPartsResult:
        """List what has arrived, of each part the one sent last."""
        seconds = self._objects.seconds(context)
        await self._begun(request.upload, request.key, seconds)
        blocks = await self._blocks(request.upload, request.key, seconds)
        last = {one.part: one for one in sorted(blocks, key=lambda one: (one.part, one.sent_at))}
        return api.ListPartsResult(
            parts=[api.Part(part=one.part, etag=one.etag, size=one.size) for one in last.values()]
        )

    async def complete(
        self, request: api.CompleteMultipartRequest, context: CallContext
    ) -> api.CompleteMultipartResult:
        """Make the object of its parts. An upload that was completed before answers the same."""
        seconds = self._objects.seconds(context)
        record = await self._record(request.upload, request.key, seconds)
        if record.etag is not None:
            return api.CompleteMultipartResult(etag=record.etag, size=record.size)
        wanted = sorted((part.part, part.etag) for part in request.parts)
        if not await self._is_made(request, wanted, seconds):
            await self._make(request, record, wanted, seconds)
        with of_a_read():
            found = await self._objects.described(request.key, context)
        if found is None:
            raise _ended()
        record.etag, record.size = found.etag, found.size
        with of_a_write():
            await self._keep(request.upload, record, seconds)
        return api.CompleteMultipartResult(etag=found.etag, size=found.size)

    async def _make(
        self, request: api.CompleteMultipartRequest, record: Record, wanted: list[tuple[int, str]], seconds: float
    ) -> None:
        arrived = {(one.part, one.etag): one for one in await self._blocks(request.upload, request.key, seconds)}
        if missing := [part for part, etag in wanted if (part, etag) not in arrived]:
            message = f"The part {missing[0]} has not arrived, or not with this etag. list_parts says which have."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        headers = self.headers(self._objects.facts(record.key, record.content_type, record.metadata))
        names = [arrived[one].name for one in wanted]
        with of_a_write():
            await self._rest.commit(self._name(request.key), names, headers=headers, seconds=seconds)

    async def _is_made(
        self, request: api.CompleteMultipartRequest, wanted: list[tuple[int, str]], seconds: float
    ) -> bool:
        """Whether the object is made of just these parts already: the answer to that was lost."""
        made = await self._blocks(request.upload, request.key, seconds, is_committed=True)
        return [(one.part, one.etag) for one in made] == wanted

    async def abort(self, request: api.AbortMultipartRequest, context: CallContext) -> api.AbortMultipartResult:
        """Forget an upload; the store drops its blocks by itself."""
        seconds = self._objects.seconds(context)
        try:
            await self._begun(request.upload, request.key, seconds)
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return api.AbortMultipartResult(aborted=False)
            raise
        with of_a_write():
            await self._rest.delete(self._at(request.upload), seconds=seconds)
        return api.AbortMultipartResult(aborted=True)

    async def sweep(self, context: CallContext) -> datetime.datetime | None:
        """Remove old records; return when the next one is old, if there is one."""
        seconds = self._objects.seconds(context)
        limit = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=KEPT_SECONDS)
        with of_a_write():
            page = await self._rest.page(self._folder, limit=_SWEPT_AT_ONCE, seconds=seconds)
            for one in page.objects:
                if one.modified_at < limit:
                    await self._rest.delete(one.name, seconds=seconds)
        young = [one.modified_at for one in page.objects if one.modified_at >= limit]
        if page.cursor is not None:
            return datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        return min(young) + datetime.timedelta(seconds=KEPT_SECONDS + 1) if young else None

    def headers(self, facts: Facts) -> dict[str, str]:
        """What is kept beside the content, as headers."""
        entries = self._form.written(facts)
        own = {f"x-ms-meta-{name}": value for name, value in entries.items()}
        return {"x-ms-blob-content-type": facts.content_type, **own}

    async def _keep(self, upload: str, record: Record, seconds: float) -> None:
        facts = Facts("application/json", {})
        await self._objects.bodies.put(self._at(upload), msgspec.json.encode(record), facts, seconds=seconds)

    async def _begun(self, upload: str, key: str, seconds: float) -> Record:
        record = await self._record(upload, key, seconds)
        if record.etag is not None:
            raise _ended()
        return record

    async def _record(self, upload: str, key: str, seconds: float) -> Record:
        if not _UPLOAD.fullmatch(upload):
            raise _ended()
        with of_a_read():
            try:
                _, content = await self._objects.bodies.get(self._at(upload), seconds=seconds)
            except RefusedError as error:
                if error.refusal.is_missing:
                    raise _ended() from error
                raise
        record = msgspec.json.decode(content, type=Record)
        if record.key != key:
            raise _ended()
        return record

    async def _blocks(self, upload: str, key: str, seconds: float, *, is_committed: bool = False) -> list[Block]:
        with of_a_read():
            try:
                found = await self._rest.blocks(self._name(key), is_committed=is_committed, seconds=seconds)
            except RefusedError as error:
                if error.refusal.code in _NO_BLOCKS:
                    return []
                raise
        blocks = [_block(name, size) for name, size in found if len(name) == _BLOCK.size]
        return [block for block in blocks if block.name[:16].hex() == upload]

    def _name(self, key: str) -> str:
        return self._objects.keys.name(key)

    def _at(self, upload: str) -> str:
        return f"{self._folder}{upload}"


def _block(name: bytes, size: int) -> Block:
    _, part, sent_at, digest = _BLOCK.unpack(name)
    return Block(name, part, sent_at, digest.hex(), size)


def _ended() -> ProviderError:
    message = "There is no such upload for this key; it may have been completed or aborted."
    return ProviderError(ErrorCode.NOT_FOUND, message)
