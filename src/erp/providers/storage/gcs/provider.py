"""Objects in a bucket of Google Cloud Storage."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import AsyncGenerator
from typing import ClassVar, TypeVar

from erp.contracts.models import storage as api
from erp.providers.storage.gcs.bucket import GcsBucket
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
from erp.vendor_clients.object_store.failures import TRANSLATE, RefusedError, of_a_read, of_a_write

Result = TypeVar("Result", api.PutResult, api.GetResult, api.HeadResult)


class CloudStorage:
    """Content goes through ``obstore``; what it has nothing for goes over the guarded HTTP client (XML API)."""

    translate: ClassVar[ErrorTable] = TRANSLATE

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._bucket = GcsBucket(config, context)
        self._timeout_seconds = float(config.get("timeout_seconds", 30))

    async def open(self) -> None:
        """Connect, and ask whether bucket and credentials are right."""
        await self._bucket.open()
        try:
            await self._asked()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._bucket.close()

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
            bucket = self._opened()
            await bucket.rest.page(bucket.keys.root, limit=1, seconds=self._timeout_seconds)

    def _opened(self) -> GcsBucket:
        if not self._bucket.is_open:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The storage is closed.", retry_after_seconds=1.0)
        return self._bucket

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
        bucket = self._opened()
        return await bucket.objects.page(bucket.rest, request, context)

    async def copy(self, request: api.CopyRequest, context: CallContext) -> api.CopyResult:
        """Copy at the store."""
        bucket = self._opened()
        with of_a_read():
            found = await bucket.objects.described(request.source, context)
        if found is None:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no object {request.source[:200]!r}.")
        if request.source == request.target:
            return api.CopyResult(etag=found.etag, size=found.size)
        source, target = bucket.keys.name(request.source), bucket.keys.name(request.target)
        facts = bucket.objects.facts(request.target, found.facts.content_type, found.facts.metadata)
        kept = dataclasses.replace(facts, sha256=found.facts.sha256)
        headers = {"x-goog-metadata-directive": "REPLACE", **bucket.uploads.headers(kept)}
        with of_a_write():
            await bucket.rest.copy(source, target, headers=headers, seconds=bucket.objects.seconds(context))
            copied = await bucket.objects.described(request.target, context)
        if copied is None:
            raise ProviderError(ErrorCode.CONFLICT, "The copy was removed by somebody else.")
        return api.CopyResult(etag=copied.etag, size=copied.size)

    async def delete(self, request: api.DeleteRequest, context: CallContext) -> api.DeleteResult:
        """Remove an object; the store itself says whether it was there."""
        _refuse_version(request.version)
        bucket = self._opened()
        name = bucket.keys.name(request.key)
        with of_a_write():
            try:
                await bucket.rest.delete(name, seconds=bucket.objects.seconds(context))
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
        return await self._opened().uploads.create(request, context)

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

    # -- links -----------------------------------------------------------------------------------

    async def signed_url(self, request: api.SignedUrlRequest, context: CallContext) -> api.SignedUrlResult:  # noqa: ARG002
        """Sign a URL; with a content type it works only for requests that carry exactly that one."""
        bucket, now = self._opened(), datetime.datetime.now(datetime.UTC)
        url, host = bucket.endpoint.url_of(bucket.keys.name(request.key)), bucket.endpoint.host
        headers = {} if request.content_type is UNSET else {"content-type": request.content_type}
        query = bucket.account.query(
            request.method, host, url.partition(host)[2], seconds=request.expires_seconds, headers=headers, now=now
        )
        ends = now + datetime.timedelta(seconds=request.expires_seconds)
        return api.SignedUrlResult(url=f"{url}?{query}", expires_at=ends)


def _unversioned(result: Result) -> Result:
    result.version = UNSET
    return result


def _refuse_version(version: str | UnsetType) -> None:
    if version is not UNSET:
        raise ProviderError(ErrorCode.UNSUPPORTED, "This provider reads no earlier versions. Leave version out.")


def _refuse_key(key: str | UnsetType) -> None:
    if key is not UNSET:
        message = "This provider cannot choose encryption keys. Leave encryption_key out; Google encrypts with its own."
        raise ProviderError(ErrorCode.UNSUPPORTED, message)
