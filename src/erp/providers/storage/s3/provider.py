"""Objects in a bucket of Amazon S3, or of a store that speaks its protocol."""

from __future__ import annotations

import datetime
import time
from collections.abc import AsyncGenerator
from typing import ClassVar

from erp.contracts.models import storage as api
from erp.providers.storage.s3.connection import S3Bucket
from erp.providers.storage.s3.encryption import Encrypting
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
from erp.vendor_clients.object_store.failures import TRANSLATE, of_a_read, of_a_write
from erp.vendor_clients.object_store.metadata import Facts
from erp.vendor_clients.object_store.s3_rest import Listed


class S3Storage:
    """Content goes through ``obstore``; what it has nothing for goes over the guarded HTTP client, signed."""

    translate: ClassVar[ErrorTable] = TRANSLATE

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._bucket = S3Bucket(config, context)
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

    def _opened(self) -> S3Bucket:
        if not self._bucket.is_open:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The storage is closed.", retry_after_seconds=1.0)
        return self._bucket

    async def put(self, request: api.PutRequest, context: CallContext) -> api.PutResult:
        bucket = self._opened()
        write = None if request.encryption_key is UNSET else Encrypting(bucket, request.encryption_key).put
        return await bucket.objects.put(request, context, write)

    async def get(self, request: api.GetRequest, context: CallContext) -> api.GetResult:
        return await self._opened().objects.get(request, context)

    async def head(self, request: api.HeadRequest, context: CallContext) -> api.HeadResult:
        bucket = self._opened()
        return await bucket.objects.head(request, context, bucket.head)

    async def list(self, request: api.ListRequest, context: CallContext) -> api.ListResult:
        bucket = self._opened()
        return await bucket.objects.page(bucket.rest, request, context)

    async def copy(self, request: api.CopyRequest, context: CallContext) -> api.CopyResult:
        """Copy at the store (CopyObject takes objects of up to 5 GB)."""
        bucket = self._opened()
        with of_a_read():
            found = await bucket.objects.described(request.source, context)
        if found is None:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no object {request.source[:200]!r}.")
        if request.source == request.target:
            return api.CopyResult(etag=found.etag, size=found.size)
        source, target = bucket.keys.name(request.source), bucket.keys.name(request.target)
        headers: dict[str, str] = {}
        if bucket.keys.needs_more(request.source) or bucket.keys.needs_more(request.target):
            facts = bucket.objects.facts(request.target, found.facts.content_type, found.facts.metadata)
            kept = Facts(facts.content_type, facts.metadata, found.facts.sha256, facts.key)
            headers = {"x-amz-metadata-directive": "REPLACE", **bucket.uploads.headers(kept)}
        with of_a_write():
            etag = await bucket.rest.copy(source, target, headers=headers, seconds=bucket.objects.seconds(context))
        return api.CopyResult(etag=etag, size=found.size)

    async def delete(self, request: api.DeleteRequest, context: CallContext) -> api.DeleteResult:
        bucket = self._opened()
        version = None if request.version is UNSET else request.version
        seconds = bucket.objects.seconds(context)
        return await bucket.objects.delete(
            request, context, lambda name: bucket.rest.delete(name, version=version, seconds=seconds)
        )

    async def list_versions(self, request: api.ListVersionsRequest, context: CallContext) -> api.ListVersionsResult:
        bucket = self._opened()
        with of_a_read():
            found, cursor = await bucket.rest.versions(
                bucket.keys.name(request.key),
                cursor=None if request.cursor is UNSET else request.cursor,
                limit=request.limit,
                seconds=bucket.objects.seconds(context),
            )
        return api.ListVersionsResult(versions=[_stored(one) for one in found], next_cursor=cursor or UNSET)

    async def read(self, request: api.ReadRequest, context: CallContext) -> AsyncGenerator[api.ReadResult]:  # noqa: ARG002
        async for item in self._opened().objects.read(request):
            yield item

    # -- uploads in parts ------------------------------------------------------------------------

    async def create_multipart(
        self, request: api.CreateMultipartRequest, context: CallContext
    ) -> api.CreateMultipartResult:
        bucket = self._opened()
        more = None if request.encryption_key is UNSET else Encrypting(bucket, request.encryption_key).headers
        return await bucket.uploads.create(request, context, more)

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

    # -- links and rules -------------------------------------------------------------------------

    async def signed_url(self, request: api.SignedUrlRequest, context: CallContext) -> api.SignedUrlResult:  # noqa: ARG002
        """Sign a URL; with a content type it works only for requests that carry exactly that one."""
        bucket = self._opened()
        name, expires = bucket.keys.name(request.key), datetime.timedelta(seconds=request.expires_seconds)
        url = bucket.endpoint.url_of(name)
        headers = {} if request.content_type is UNSET else {"content-type": request.content_type}
        now = datetime.datetime.now(datetime.UTC)
        host = bucket.endpoint.host
        path = url.partition(host)[2]
        query = bucket.signer.query(
            request.method, host, path, seconds=request.expires_seconds, headers=headers, now=now
        )
        return api.SignedUrlResult(url=f"{url}?{query}", expires_at=now + expires)

    async def get_lifecycle(self, request: api.GetLifecycleRequest, context: CallContext) -> api.GetLifecycleResult:  # noqa: ARG002
        bucket = self._opened()
        with of_a_read():
            rules = await bucket.lifecycle.rules(seconds=bucket.objects.seconds(context))
        return api.GetLifecycleResult(rules=rules)

    async def put_lifecycle(self, request: api.PutLifecycleRequest, context: CallContext) -> api.PutLifecycleResult:
        if len({rule.id for rule in request.rules}) < len(request.rules):
            error = FieldError("/params/rules", "Give every rule an id of its own.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "Two rules have the same id.", errors=[error])
        bucket = self._opened()
        with of_a_write():
            await bucket.lifecycle.replace(request.rules, seconds=bucket.objects.seconds(context))
        return api.PutLifecycleResult(rules=request.rules)


def _stored(one: Listed) -> api.StoredVersion:
    made = api.StoredVersion(
        version=one.version or "null",
        modified_at=one.modified_at,
        is_latest=one.is_latest,
        is_deleted=one.is_deleted,
    )
    if not one.is_deleted:
        made.size, made.etag = one.size, one.etag
    return made
