"""A cache in Redis or Valkey: on one server, behind sentinels or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from erp.contracts.models.cache import (
    CompareAndSetRequest,
    CompareAndSetResult,
    DeleteRequest,
    DeleteResult,
    Entry,
    ExpireRequest,
    ExpireResult,
    Found,
    GetManyRequest,
    GetManyResult,
    GetRequest,
    GetResult,
    IncrementRequest,
    IncrementResult,
    InvalidatePrefixRequest,
    InvalidatePrefixResult,
    InvalidateTagsRequest,
    InvalidateTagsResult,
    SetManyRequest,
    SetManyResult,
    SetRequest,
    SetResult,
    TouchRequest,
    TouchResult,
)
from erp.providers.cache.redis import steps
from erp.providers.cache.redis.envelopes import Read, Versions, decoded, milliseconds, read
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    ErrorCode,
    ErrorTable,
    Health,
    OpenContext,
    ProviderError,
)
from erp.vendor_clients.redis.eviction import Eviction
from erp.vendor_clients.redis.keyspace import Keyspace
from erp.vendor_clients.redis.link import RedisLink
from erp.vendor_clients.redis.scripts import Script
from erp.vendor_clients.redis.settings import settings_of

REMOVED_AT_ONCE = 1000
"""Entries that one step removes by their tag: others are served between two steps."""

_encode = msgspec.json.Encoder(decimal_format="string").encode
_REFUSALS = {
    b"NOT_A_NUMBER": "The value of this key is not a whole number.",
    b"OUT_OF_RANGE": "The number would leave the range that every JSON reader keeps exactly (2^53).",
}


class RedisCache:
    """Entries as strings of Redis; whatever touches more than one key is a script, one step for everybody else."""

    translate: ClassVar[ErrorTable] = {OSError: ErrorCode.UNAVAILABLE}
    """Failures of Redis itself are translated where it is known whether the request was sent (``RedisLink``)."""

    def __init__(self, config: Config, context: OpenContext) -> None:
        settings = settings_of(config)
        keyspace = Keyspace(settings.key_prefix, context.tenant, context.connection)
        self._entries = keyspace.of("e")
        self._tags = keyspace.of("t")
        self._link = RedisLink(settings)
        self._versions = Versions()
        self._eviction = Eviction(self._link, self._entries)

    async def open(self) -> None:
        await self._link.open()

    async def close(self) -> None:
        await self._link.close()

    async def health(self) -> Health:
        return await self._link.health(self._entries)

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:  # noqa: ARG002
        raw = await self._link.run("GET", self._entries + request.key)
        if raw is None:
            return GetResult(found=False)
        entry = read(raw)
        if entry.idles:
            await self._touch([(request.key, entry.version)])
        return GetResult(found=True, value=msgspec.Raw(entry.data), version=entry.version)

    async def set(self, request: SetRequest, context: CallContext) -> SetResult:  # noqa: ARG002
        version = self._versions.next()
        await self._write("", [(request, version)], repeatable=True)
        return SetResult(version=version)

    async def delete(self, request: DeleteRequest, context: CallContext) -> DeleteResult:  # noqa: ARG002
        return DeleteResult(deleted=await self._delete([request.key]) == 1)

    async def get_many(self, request: GetManyRequest, context: CallContext) -> GetManyResult:  # noqa: ARG002
        found = await self._link.run("MGET", *(self._entries + key for key in request.keys))
        entries = [None if raw is None else read(raw) for raw in found]
        idling = [(key, one.version) for key, one in zip(request.keys, entries, strict=True) if one and one.idles]
        if idling:
            await self._touch(idling)
        return GetManyResult(items=[_found(key, one) for key, one in zip(request.keys, entries, strict=True)])

    async def set_many(self, request: SetManyRequest, context: CallContext) -> SetManyResult:  # noqa: ARG002
        wanted = [(entry, self._versions.next()) for entry in request.entries]
        await self._write("", wanted, repeatable=True)
        return SetManyResult(versions=[version for _, version in wanted])

    async def expire(self, request: ExpireRequest, context: CallContext) -> ExpireResult:  # noqa: ARG002
        lifetime = milliseconds(request.ttl_seconds)
        found = await self._step(steps.EXPIRE, [request.key, lifetime])
        return ExpireResult(found=found == 1)

    async def touch(self, request: TouchRequest, context: CallContext) -> TouchResult:  # noqa: ARG002
        return TouchResult(found=await self._touch([(request.key, "")]) == [1])

    async def increment(self, request: IncrementRequest, context: CallContext) -> IncrementResult:  # noqa: ARG002
        lifetime = 0 if request.ttl_seconds is UNSET else milliseconds(request.ttl_seconds)
        arguments = [request.key, self._versions.next(), request.by, request.initial, lifetime]
        done, value, version = await self._step(steps.INCREMENT, arguments, repeatable=False)
        if not done:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, _REFUSALS[value])
        return IncrementResult(value=int(value), version=version.decode())

    async def compare_and_set(
        self,
        request: CompareAndSetRequest,
        context: CallContext,  # noqa: ARG002
    ) -> CompareAndSetResult:
        version = self._versions.next()
        expected = "-" if request.expected_version is None else request.expected_version
        stored, present = await self._write(expected, [(request, version)], repeatable=False)
        if stored:
            return CompareAndSetResult(stored=True, version=version)
        return CompareAndSetResult(stored=False, version=present.decode() if present else UNSET)

    async def invalidate_tags(self, request: InvalidateTagsRequest, context: CallContext) -> InvalidateTagsResult:
        removed, is_left = 0, True
        while is_left:
            gone, is_left = await self._step(steps.DELETE_TAGGED, [REMOVED_AT_ONCE, *request.tags])
            removed += gone
        context.emit("invalidated", {"tags": request.tags, "removed": removed})
        return InvalidateTagsResult(removed=removed)

    async def invalidate_prefix(self, request: InvalidatePrefixRequest, context: CallContext) -> InvalidatePrefixResult:
        removed = 0
        async for keys in self._link.keys_with(self._entries + request.prefix):
            removed += await self._delete(decoded(keys, self._entries))
        context.emit("invalidated", {"prefix": request.prefix, "removed": removed})
        return InvalidatePrefixResult(removed=removed)

    async def _delete(self, names: Sequence[str | bytes]) -> int:
        removed: int = await self._step(steps.DELETE, names)
        return removed

    async def _touch(self, seen: Sequence[tuple[str, str]]) -> list[int]:
        """Restart the time to idle of entries that are still those that were seen (a version, or ``""`` for any)."""
        found: list[int] = await self._step(steps.TOUCH, [text for pair in seen for text in pair])
        return found

    async def _write(
        self,
        expected: str,
        wanted: Sequence[tuple[SetRequest | CompareAndSetRequest | Entry, str]],
        *,
        repeatable: bool,
    ) -> tuple[int, bytes]:
        if any(one.tags for one, _ in wanted):
            await self._eviction.refuse("Tags cannot be kept")
        arguments = [part for one, version in wanted for part in _parts(one, version)]
        stored, present = await self._step(steps.WRITE, [expected, *arguments], repeatable=repeatable)
        return stored, present

    async def _step(self, script: Script, arguments: Sequence[Any], *, repeatable: bool = True) -> Any:
        """Run a script; its key says to which node of a cluster it goes."""
        return await self._link.script(
            script, [self._entries], [self._entries, self._tags, *arguments], repeatable=repeatable
        )


def _parts(wanted: SetRequest | CompareAndSetRequest | Entry, version: str) -> list[Any]:
    """What ``WRITE`` is told of an entry."""
    ttl = 0 if wanted.ttl_seconds is UNSET else milliseconds(wanted.ttl_seconds)
    idle = 0 if wanted.tti_seconds is UNSET else milliseconds(wanted.tti_seconds)
    tags = _encode(sorted(set(wanted.tags))) if wanted.tags else b""
    return [wanted.key, version, _encode(wanted.value), ttl, idle, tags]


def _found(key: str, entry: Read | None) -> Found:
    if entry is None:
        return Found(key=key, found=False)
    return Found(key=key, found=True, value=msgspec.Raw(entry.data), version=entry.version)
