"""Uploads in parts over many calls, as S3 and Cloud Storage know them."""

from __future__ import annotations

import dataclasses
import hmac
import secrets

from erp.contracts.models import storage as api
from erp.runtime.spi import CallContext, ErrorCode, ProviderError
from erp.vendor_clients.object_store.failures import RefusedError, of_a_read, of_a_write
from erp.vendor_clients.object_store.metadata import Facts, MetadataForm
from erp.vendor_clients.object_store.objects import Objects
from erp.vendor_clients.object_store.s3_rest import S3Rest

_CHARACTERS = 16
_SERVER_ERROR = 500
_NO_UPLOAD = "NoSuchUpload"


class Uploads:
    """The unfinished uploads of one connection; the store keeps them."""

    def __init__(self, objects: Objects, rest: S3Rest, form: MetadataForm, *, secret: str) -> None:
        """``secret`` marks handles, so that none can be used for the object of another key."""
        self._objects = objects
        self._rest = rest
        self._form = form
        self._secret = secret.encode()

    def __repr__(self) -> str:
        return f"Uploads({self._rest!r})"

    def headers(self, facts: Facts) -> dict[str, str]:
        """What is kept beside the content, as headers."""
        entries = self._form.written(facts)
        own = {f"{self._rest.vendor}meta-{name}": value for name, value in entries.items()}
        return {"content-type": facts.content_type, **own}

    async def create(
        self, request: api.CreateMultipartRequest, context: CallContext, more: dict[str, str] | None = None
    ) -> api.CreateMultipartResult:
        """Begin an upload; ``more`` are further headers."""
        name, nonce = self._objects.keys.name(request.key), secrets.token_hex(_CHARACTERS // 2)
        facts = self._objects.facts(request.key, request.content_type, request.metadata)
        facts = dataclasses.replace(facts, request=self._mark(name, nonce))
        with of_a_write():
            upload = await self._rest.begin(
                name, headers=self.headers(facts) | (more or {}), seconds=self._objects.seconds(context)
            )
        return api.CreateMultipartResult(upload=f"{nonce}{self._mark(name, nonce, upload)}{upload}")

    async def add(self, request: api.UploadPartRequest, context: CallContext) -> api.UploadPartResult:
        """Send one part."""
        name, upload = self._opened(request.key, request.upload)
        seconds = self._objects.seconds(context)
        with of_a_write():
            try:
                etag = await self._rest.add(name, upload, request.part, request.content, seconds=seconds)
            except RefusedError as error:
                raise await self._reason(error, name, upload, seconds) from error
        return api.UploadPartResult(etag=etag)

    async def parts(self, request: api.ListPartsRequest, context: CallContext) -> api.ListPartsResult:
        """List what has arrived."""
        name, upload = self._opened(request.key, request.upload)
        with of_a_read():
            found = await self._rest.parts(name, upload, seconds=self._objects.seconds(context))
        return api.ListPartsResult(parts=[api.Part(part=one.number, etag=one.etag, size=one.size) for one in found])

    async def complete(
        self, request: api.CompleteMultipartRequest, context: CallContext
    ) -> api.CompleteMultipartResult:
        """Make the object of its parts. An upload that was completed before, with these parts, answers the same."""
        name, upload = self._opened(request.key, request.upload)
        parts = sorted((part.part, part.etag.strip('"')) for part in request.parts)
        seconds, is_repeated = self._objects.seconds(context), False
        with of_a_write():
            try:
                await self._rest.complete(name, upload, parts, seconds=seconds)
            except RefusedError as error:
                reason = await self._reason(error, name, upload, seconds)
                if reason.refusal.code != _NO_UPLOAD:
                    raise reason from error
                is_repeated = True
            found = await self._objects.described(request.key, context)
        is_own = found is not None and found.facts.request == self._mark(name, request.upload[:_CHARACTERS])
        if found is None or (is_repeated and not is_own):
            raise _ended()
        return api.CompleteMultipartResult(etag=found.etag, size=found.size)

    async def abort(self, request: api.AbortMultipartRequest, context: CallContext) -> api.AbortMultipartResult:
        """Give an upload up and answer whether there was one; some stores do not say so by themselves."""
        seconds = self._objects.seconds(context)
        try:
            name, upload = self._opened(request.key, request.upload)
            with of_a_read():
                await self._rest.parts(name, upload, seconds=seconds)
            with of_a_write():
                await self._rest.abort(name, upload, seconds=seconds)
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return api.AbortMultipartResult(aborted=False)
            raise
        return api.AbortMultipartResult(aborted=True)

    async def _reason(self, error: RefusedError, name: str, upload: str, seconds: float) -> RefusedError:
        """Some stores fail instead of saying that an upload has ended."""
        if error.refusal.status >= _SERVER_ERROR:
            try:
                await self._rest.parts(name, upload, seconds=seconds)
            except RefusedError as other:
                return other
        return error

    def _opened(self, key: str, handle: str) -> tuple[str, str]:
        name = self._objects.keys.name(key)
        nonce, mark, upload = handle[:_CHARACTERS], handle[_CHARACTERS : 2 * _CHARACTERS], handle[2 * _CHARACTERS :]
        if not hmac.compare_digest(mark.encode(), self._mark(name, nonce, upload).encode()):
            raise _ended()
        return name, upload

    def _mark(self, *parts: str) -> str:
        """What nobody else can make of these parts. That of name and nonce is kept with the object: it is of this upload."""
        return hmac.digest(self._secret, "\0".join(parts).encode(), "sha256").hex()[:_CHARACTERS]


def _ended() -> ProviderError:
    message = "There is no such upload for this key; it may have been completed or aborted."
    return ProviderError(ErrorCode.NOT_FOUND, message)
