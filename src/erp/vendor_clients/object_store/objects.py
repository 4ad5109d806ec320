"""The actions on objects that all stores have in common, as the contract names them."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol

from erp.contracts.models import storage as api
from erp.runtime.spi import UNSET, CallContext, ErrorCode, FieldError, ProviderError, UnsetType
from erp.vendor_clients.object_store.bodies import Bodies, Described, Written
from erp.vendor_clients.object_store.failures import RefusedError, of_a_read, of_a_write
from erp.vendor_clients.object_store.keys import KeySpace
from erp.vendor_clients.object_store.metadata import Facts
from erp.vendor_clients.object_store.s3_rest import Listed, Page

_LONGEST_KEY_BYTES = 1_400
"""Of a key that is kept beside the content: S3 takes 2 KB of metadata for one object."""
_AT_ONCE = 8
_HEADER = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_ETAG = re.compile(r"[!#-~]+")
_BAD_REQUEST = 400
_IS_A_REMOVAL = 405
"""How S3 answers when a version is the mark that the object was removed."""


class Lister(Protocol):
    """Asks the store for one page of names."""

    async def page(
        self, prefix: str, *, delimiter: str | None = None, cursor: str | None = None, limit: int, seconds: float
    ) -> Page: ...


class Write(Protocol):
    """Writes an object in one request, as ``Bodies.put``."""

    async def __call__(
        self, name: str, content: bytes, facts: Facts, *, if_match: str | None, if_absent: bool, seconds: float
    ) -> Written: ...


class Describe(Protocol):
    """Describes an object, as ``Bodies.head``."""

    async def __call__(self, name: str, *, version: str | None, seconds: float) -> Described: ...


class Objects:
    """Objects of one connection: keys become names, requests of the contract become requests of the store."""

    def __init__(self, bodies: Bodies, keys: KeySpace, *, timeout_seconds: float) -> None:
        self.bodies = bodies
        self.keys = keys
        self._timeout_seconds = timeout_seconds

    def seconds(self, context: CallContext) -> float:
        """How long one request may take."""
        return min(self._timeout_seconds, context.remaining_seconds())

    def facts(
        self, key: str, content_type: str, metadata: dict[str, str] | UnsetType, *, sha256: str | None = None
    ) -> Facts:
        """Return what is kept beside the content.

        Raises:
            ProviderError: ``invalid_argument``: the key is longer than any place for it, or the type no header.
        """
        check_header("content_type", content_type)
        is_long = self.keys.needs_more(key)
        if is_long and len(key.encode()) > _LONGEST_KEY_BYTES:
            message = f"The store takes keys of at most {_LONGEST_KEY_BYTES} bytes in UTF-8."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError("/params/key", message)])
        given = {} if metadata is UNSET else metadata
        return Facts(content_type, given, sha256=sha256, key=key if is_long else None)

    async def put(self, request: api.PutRequest, context: CallContext, write: Write | None = None) -> api.PutResult:
        """Write an object; a conditional write whose answer was lost is settled when it is repeated.

        ``write`` stands in for the library where it cannot do what is asked.
        """
        digest = _digest(request)
        is_conditional = request.if_match is not UNSET or request.if_none_match == "*"
        facts = self.facts(request.key, request.content_type, request.metadata, sha256=digest)
        if is_conditional:
            facts = Facts(facts.content_type, facts.metadata, digest, facts.key, _request_mark(context))
        if_match = None if request.if_match is UNSET else _possible(request.if_match)
        name, seconds = self.keys.name(request.key), self.seconds(context)
        with of_a_write(is_conditional=is_conditional):
            try:
                done = await (write or self.bodies.put)(
                    name,
                    request.content,
                    facts,
                    if_match=if_match,
                    if_absent=request.if_none_match == "*",
                    seconds=seconds,
                )
            except RefusedError as error:
                found = await self._settled(name, facts, error, seconds)
                return _put_result(found.etag, found.version, found.size, digest)
        return _put_result(done.etag, done.version, len(request.content), digest)

    async def _settled(self, name: str, facts: Facts, error: RefusedError, seconds: float) -> Described:
        """Return the object if it is what this very request has written before; else the condition does not hold."""
        if facts.request is None or not (error.refusal.status in {409, 412} or error.refusal.is_missing):
            raise error
        message = "The object is not what the call expects any more."
        try:
            found = await self.bodies.head(name, seconds=seconds)
        except RefusedError:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
        if (found.facts.request, found.facts.sha256) != (facts.request, facts.sha256):
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
        return found

    async def get(self, request: api.GetRequest, context: CallContext) -> api.GetResult:
        """Read an object or a part of it."""
        with of_a_read():
            found, content = await self.bodies.get(
                self.keys.name(request.key),
                offset=request.offset,
                length=None if request.length is UNSET else request.length,
                if_match=None if request.if_match is UNSET else _possible(request.if_match),
                version=None if request.version is UNSET else request.version,
                seconds=self.seconds(context),
            )
        result = api.GetResult(
            content=content,
            content_type=found.facts.content_type,
            metadata=found.facts.metadata,
            etag=found.etag,
            size=found.size,
            modified_at=found.modified_at,
        )
        if found.version:
            result.version = found.version
        return result

    async def head(
        self, request: api.HeadRequest, context: CallContext, describe: Describe | None = None
    ) -> api.HeadResult:
        """Describe an object; ``describe`` stands in for the library where it does not say enough."""
        version = None if request.version is UNSET else request.version
        with of_a_read():
            found = await self.described(request.key, context, version, describe)
        if found is None:
            return api.HeadResult(found=False)
        return api.HeadResult(
            found=True,
            content_type=found.facts.content_type,
            metadata=found.facts.metadata,
            etag=found.etag,
            size=found.size,
            sha256=found.facts.sha256 or UNSET,
            modified_at=found.modified_at,
            version=found.version or UNSET,
            encryption_key=found.encryption_key or UNSET,
        )

    async def described(
        self, key: str, context: CallContext, version: str | None = None, describe: Describe | None = None
    ) -> Described | None:
        """Return what is known of an object; None when there is none."""
        describe = describe or self.bodies.head
        try:
            return await describe(self.keys.name(key), version=version, seconds=self.seconds(context))
        except RefusedError as error:
            if error.refusal.is_missing:
                return None
            raise

    async def read(self, request: api.ReadRequest) -> AsyncGenerator[api.ReadResult]:
        """Read an object in parts, with no more than one of them in memory; the layer ends it at its deadline."""
        offset = 0
        with of_a_read():
            parts = self.bodies.stream(
                self.keys.name(request.key), part_bytes=request.part_bytes, seconds=self._timeout_seconds
            )
            async for part in parts:
                yield api.ReadResult(offset=offset, content=part)
                offset += len(part)

    async def page(self, lister: Lister, request: api.ListRequest, context: CallContext) -> api.ListResult:
        """List a page of objects, as the store orders their names."""
        prefix, is_cut = self.keys.prefix(request.prefix)
        delimiter = None if request.delimiter is UNSET or is_cut else request.delimiter
        cursor = None if request.cursor is UNSET else request.cursor
        with of_a_read():
            try:
                page = await lister.page(
                    prefix, delimiter=delimiter, cursor=cursor, limit=request.limit, seconds=self.seconds(context)
                )
            except RefusedError as error:
                if cursor is not None and error.refusal.status == _BAD_REQUEST:
                    raise _no_cursor() from error
                raise
            keyed = await self._keyed(page.objects, context)
        prefixes = [self.keys.key(name) for name in page.prefixes]
        result = api.ListResult(objects=[], prefixes=prefixes)
        for key, one in keyed:
            folded = _folded(key, request)
            if not key.startswith(request.prefix):
                continue
            if folded is None:
                result.objects.append(api.Object(key=key, size=one.size, etag=one.etag, modified_at=one.modified_at))
            elif folded not in prefixes:
                prefixes.append(folded)
        if page.cursor is not None:
            result.next_cursor = page.cursor
        return result

    async def _keyed(self, listed: list[Listed], context: CallContext) -> list[tuple[str, Listed]]:
        """Return objects with their keys; those whose names are too short for them have to be looked at."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def key_of(one: Listed) -> str | None:
            if not self.keys.is_long(one.name):
                return self.keys.key(one.name)
            async with places:
                try:
                    return (await self.bodies.head(one.name, seconds=self.seconds(context))).facts.key
                except RefusedError as error:
                    if error.refusal.is_missing:
                        return None
                    raise

        if not any(self.keys.is_long(one.name) for one in listed):
            return [(self.keys.key(one.name), one) for one in listed]
        found = await asyncio.gather(*(key_of(one) for one in listed))
        return [(key, one) for key, one in zip(found, listed, strict=True) if key is not None]

    async def delete(
        self, request: api.DeleteRequest, context: CallContext, remove: Callable[[str], Awaitable[object]]
    ) -> api.DeleteResult:
        """Remove an object and answer whether it was there; stores do not say so by themselves."""
        version = None if request.version is UNSET else request.version
        with of_a_read():
            is_there = await self._is_there(request.key, context, version)
        if not is_there:
            return api.DeleteResult(deleted=False)
        with of_a_write():
            await remove(self.keys.name(request.key))
        return api.DeleteResult(deleted=True)

    async def _is_there(self, key: str, context: CallContext, version: str | None) -> bool:
        try:
            return await self.described(key, context, version) is not None
        except RefusedError as error:
            if version is not None and error.refusal.status == _IS_A_REMOVAL:
                return True
            raise


def check_header(name: str, value: str) -> None:
    """Refuse a parameter that no header can carry (RFC 9110, section 5.5); a line end would begin another one.

    Raises:
        ProviderError: ``invalid_argument``.
    """
    if not _HEADER.fullmatch(value):
        wrong = FieldError(f"/params/{name}", "Use visible ASCII characters, and blanks only between them.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, f"The {name} cannot be stored.", errors=[wrong])


def _possible(etag: str) -> str:
    """No object has an etag that no header can carry."""
    if not _ETAG.fullmatch(etag):
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, "The object is not the one with this etag.")
    return etag


def _digest(request: api.PutRequest) -> str:
    digest = hashlib.sha256(request.content).hexdigest()
    if request.sha256 is not UNSET and request.sha256 != digest:
        error = FieldError("/params/sha256", f"The content has the checksum {digest}.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The content does not have this checksum.", errors=[error])
    return digest


def _request_mark(context: CallContext) -> str:
    """The same for all attempts of one call, and for its repetitions with the same key."""
    return hashlib.sha256((context.idempotency_key or context.request_id).encode()).hexdigest()[:32]


def _put_result(etag: str, version: str | None, size: int, sha256: str) -> api.PutResult:
    return api.PutResult(etag=etag, size=size, sha256=sha256, version=version or UNSET)


def _no_cursor() -> ProviderError:
    wrong = FieldError("/params/cursor", "Give the next_cursor of the page before, or begin without one.")
    return ProviderError(ErrorCode.INVALID_ARGUMENT, "The store does not know this cursor.", errors=[wrong])


def _folded(key: str, request: api.ListRequest) -> str | None:
    """The prefix that a key is folded into by a delimiter; None when it stands for itself."""
    if request.delimiter is UNSET:
        return None
    inside, found, _ = key[len(request.prefix) :].partition("/")
    return f"{request.prefix}{inside}/" if found else None
