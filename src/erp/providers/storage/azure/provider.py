"""Objects as block blobs in a container of Azure Blob Storage."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncGenerator
from typing import ClassVar, TypeVar

from erp.contracts.models import storage as api
from erp.providers.storage.azure.container import BlobContainer
from erp.providers.storage.azure.uploads import KEPT_SECONDS
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    ErrorCode,
    ErrorTable,
    Health,
    OpenContext,
    ProviderError,
    UnsetType,
)
from erp.vendor_clients.guarded_http import Answer
from erp.vendor_clients.object_store.failures import TRANSLATE, RefusedError, of_a_read, of_a_write
from erp.vendor_clients.object_store.metadata import Facts

Result = TypeVar("Result", api.PutResult, api.GetResult, api.HeadResult)

_PERMISSIONS = {"GET": "r", "PUT": "cw"}
"""Reading; creating and replacing."""
_COPY_PAUSE_SECONDS = 0.2


class AzureStorage:
    """Content goes through ``obstore``; what it has nothing for goes over the guarded HTTP client, signed."""

    translate: ClassVar[ErrorTable] = TRANSLATE

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._container = BlobContainer(config, context)
        self._timeout_seconds = float(config.get("timeout_seconds", 30))
        self._remind = context.remind

    async def open(self) -> None:
        """Connect, and ask whether container and credentials are right."""
        await self._container.open()
        try:
            await self._asked()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._container.close()

    async def health(self) -> Health:
        """List one name."""
        started = time.perf_counter()
        try:
            await self._asked()
        except ProviderError as error:
            return Health(status="down", message=error.message)
        return Health(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 3))

    async def _asked(self) -> None:
        with of_a_read():
            container = self._opened()
            await container.rest.page(container.keys.root, limit=1, seconds=self._timeout_seconds)

    def _opened(self) -> BlobContainer:
        if not self._container.is_open:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The storage is closed.", retry_after_seconds=1.0)
        return self._container

    async def put(self, request: api.PutRequest, context: CallContext) -> api.PutResult:
        _refuse_key(request.encryption_key)
        return _unversioned(await self._opened().objects.put(request, context))

    async def get(self, request: api.GetRequest, context: CallContext) -> api.GetResult:
        _refuse_version(request.version)
        return _unversioned(await self._opened().objects.get(request, context))

    async def head(self, request: api.HeadRequest, context: CallContext) -> api.HeadResult:
        _refuse_version(request.version)
        return _unversioned(await self._opened().objects.head(request, context))

    async def list(self, request: api.ListRequest, context: CallContext) -> api.ListResult:
        container = self._opened()
        return await container.objects.page(container.rest, request, context)

    async def copy(self, request: api.CopyRequest, context: CallContext) -> api.CopyResult:
        """Copy at the store, and wait until it is done."""
        container = self._opened()
        with of_a_read():
            found = await container.objects.described(request.source, context)
        if found is None:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no object {request.source[:200]!r}.")
        if request.source == request.target:
            return api.CopyResult(etag=found.etag, size=found.size)
        source, target = container.keys.name(request.source), container.keys.name(request.target)
        facts = container.objects.facts(request.target, found.facts.content_type, found.facts.metadata)
        kept = Facts(facts.content_type, facts.metadata, found.facts.sha256, facts.key)
        meta = container.uploads.headers(kept)
        del meta["x-ms-blob-content-type"]  # it goes with the source
        with of_a_write():
            seconds = container.objects.seconds(context)
            answer = await container.rest.copy(source, target, headers=meta, seconds=seconds)
            while answer.headers.get("x-ms-copy-status") == "pending":
                await asyncio.sleep(_COPY_PAUSE_SECONDS)
                answer = await container.rest.send("HEAD", target, seconds=container.objects.seconds(context))
        return api.CopyResult(etag=_copied(answer), size=found.size)

    async def delete(self, request: api.DeleteRequest, context: CallContext) -> api.DeleteResult:
        """Remove a blob; the store itself says whether it was there."""
        _refuse_version(request.version)
        container = self._opened()
        name = container.keys.name(request.key)
        with of_a_write():
            try:
                await container.rest.delete(name, seconds=container.objects.seconds(context))
            except RefusedError as error:
                if error.refusal.is_missing:
                    return api.DeleteResult(deleted=False)
                raise
        return api.DeleteResult(deleted=True)

    async def read(self, request: api.ReadRequest, context: CallContext) -> AsyncGenerator[api.ReadResult]:  # noqa: ARG002
        async for item in self._opened().objects.read(request):
            yield item

    # -- uploads in parts ------------------------------------------------------------------------

    async def create_multipart(
        self, request: api.CreateMultipartRequest, context: CallContext
    ) -> api.CreateMultipartResult:
        _refuse_key(request.encryption_key)
        result = await self._opened().uploads.create(request, context)
        await self._remind(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=KEPT_SECONDS))
        return result

    async def upload_part(self, request: api.UploadPartRequest, context: CallContext) -> api.UploadPartResult:
        return await self._opened().uploads.add(request, context)

    async def list_parts(self, request: api.ListPartsRequest, context: CallContext) -> api.ListPartsResult:
        return await self._opened().uploads.parts(request, context)

    async def complete_multipart(
        self, request: api.CompleteMultipartRequest, context: CallContext
    ) -> api.CompleteMultipartResult:
        return await self._opened().uploads.complete(request, context)

    async def abort_multipart(
        self, request: api.AbortMultipartRequest, context: CallContext
    ) -> api.AbortMultipartResult:
        return await self._opened().uploads.abort(request, context)

    async def work(self, context: CallContext) -> datetime.datetime | None:
        """Remove records of uploads that nobody finishes any more."""
        return await self._opened().uploads.sweep(context)

    # -- links -----------------------------------------------------------------------------------

    async def signed_url(self, request: api.SignedUrlRequest, context: CallContext) -> api.SignedUrlResult:  # noqa: ARG002
        """Make a URL with a shared access signature, which cannot bind a content type."""
        if request.content_type is not UNSET:
            message = "A link of Azure cannot be bound to a content type. Leave content_type out."
            raise ProviderError(ErrorCode.UNSUPPORTED, message)
        container = self._opened()
        expires_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=request.expires_seconds)
        name = container.keys.name(request.key)
        url = container.link(name, _PERMISSIONS[request.method], expires_at)
        return api.SignedUrlResult(url=url, expires_at=expires_at)


def _copied(answer: Answer) -> str:
    status = answer.headers.get("x-ms-copy-status")
    if status != "success":
        raise ProviderError(ErrorCode.UNAVAILABLE, "The store gave the copy up. Repeat it.", detail=status)
    return answer.headers.get("etag", "").strip('"')


def _unversioned(result: Result) -> Result:
    result.version = UNSET
    return result


def _refuse_version(version: str | UnsetType) -> None:
    if version is not UNSET:
        raise ProviderError(ErrorCode.UNSUPPORTED, "This provider reads no earlier versions. Leave version out.")


def _refuse_key(key: str | UnsetType) -> None:
    if key is not UNSET:
        message = "This provider cannot choose encryption keys. Leave encryption_key out; Azure encrypts with its own."
        raise ProviderError(ErrorCode.UNSUPPORTED, message)
