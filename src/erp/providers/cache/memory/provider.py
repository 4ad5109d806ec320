"""A cache in the memory of the server process.

Values are kept encoded, so that nobody can change a stored value through a reference to it, and so
that a read needs no encoding: the bytes go into the answer as they are (``msgspec.Raw``).
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any, ClassVar

import msgspec

from erp.contracts.models.cache import (
    CompareAndSetRequest,
    CompareAndSetResult,
    DeleteRequest,
    DeleteResult,
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
from erp.contracts.models.cache import (
    Entry as NewEntry,
)
from erp.providers.cache.memory.budget import budget_of
from erp.providers.cache.memory.entries import Entries, Entry
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

MAX_NUMBER = 2**63 - 1

_encode = msgspec.json.Encoder(decimal_format="string").encode
_NO_TAGS: frozenset[str] = frozenset()


class MemoryCache:
    """The executable meaning of the cache contract. All calls run on one event loop: no locks."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._tenant = context.tenant
        self._budget = budget_of(context.shared_dir)
        self._entries = Entries(config.get("max_bytes", 67_108_864))
        self._versions = itertools.count(1)

    async def open(self) -> None:
        """Take part in the layer's budget."""
        self._budget.join(self._tenant, self._entries)

    async def close(self) -> None:
        """Give the memory back."""
        self._entries.clear()
        self._budget.leave(self._tenant, self._entries)

    async def health(self) -> Health:
        """Memory always answers."""
        return Health(status="ok")

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:  # noqa: ARG002
        entry = self._entries.find(request.key)
        if entry is None:
            return GetResult(found=False)
        return GetResult(found=True, value=msgspec.Raw(entry.data), version=str(entry.version))

    async def set(self, request: SetRequest, context: CallContext) -> SetResult:  # noqa: ARG002
        return SetResult(version=self._store(request))

    async def delete(self, request: DeleteRequest, context: CallContext) -> DeleteResult:  # noqa: ARG002
        return DeleteResult(deleted=self._entries.drop([request.key]) == 1)

    async def get_many(self, request: GetManyRequest, context: CallContext) -> GetManyResult:  # noqa: ARG002
        return GetManyResult(items=[self._found(key) for key in request.keys])

    async def set_many(self, request: SetManyRequest, context: CallContext) -> SetManyResult:  # noqa: ARG002
        made = [(entry.key, self._entry(entry)) for entry in request.entries]
        for key, entry in made:
            self._entries.put(key, entry)
        return SetManyResult(versions=[str(entry.version) for _, entry in made])

    async def expire(self, request: ExpireRequest, context: CallContext) -> ExpireResult:  # noqa: ARG002
        entry = self._entries.find(request.key)
        if entry is None:
            return ExpireResult(found=False)
        entry.dies_at = time.monotonic() + request.ttl_seconds
        return ExpireResult(found=True)

    async def touch(self, request: TouchRequest, context: CallContext) -> TouchResult:  # noqa: ARG002
        return TouchResult(found=self._entries.find(request.key) is not None)

    async def increment(self, request: IncrementRequest, context: CallContext) -> IncrementResult:  # noqa: ARG002
        entry = self._entries.find(request.key)
        value = (request.initial if entry is None else _number(entry)) + request.by
        if abs(value) > MAX_NUMBER:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "The number would leave the range of 64 bits.")
        if entry is None:
            entry = self._made(request.key, value, request.ttl_seconds, UNSET, UNSET)
        else:
            dies_at, idle = entry.dies_at, entry.idle_seconds
            entry = Entry(_encode(value), next(self._versions), dies_at, idle, entry.tags)
        self._entries.put(request.key, entry)
        return IncrementResult(value=value, version=str(entry.version))

    async def compare_and_set(
        self,
        request: CompareAndSetRequest,
        context: CallContext,  # noqa: ARG002
    ) -> CompareAndSetResult:
        entry = self._entries.find(request.key)
        present = None if entry is None else str(entry.version)
        if present != request.expected_version:
            return CompareAndSetResult(stored=False, version=UNSET if present is None else present)
        return CompareAndSetResult(stored=True, version=self._store(request))

    async def invalidate_tags(self, request: InvalidateTagsRequest, context: CallContext) -> InvalidateTagsResult:
        removed = self._entries.drop(self._entries.tagged(request.tags))
        context.emit("invalidated", {"tags": request.tags, "removed": removed})
        return InvalidateTagsResult(removed=removed)

    async def invalidate_prefix(self, request: InvalidatePrefixRequest, context: CallContext) -> InvalidatePrefixResult:
        removed = self._entries.drop(self._entries.prefixed(request.prefix))
        context.emit("invalidated", {"prefix": request.prefix, "removed": removed})
        return InvalidatePrefixResult(removed=removed)

    def _found(self, key: str) -> Found:
        entry = self._entries.find(key)
        if entry is None:
            return Found(key=key, found=False)
        return Found(key=key, found=True, value=msgspec.Raw(entry.data), version=str(entry.version))

    def _store(self, request: SetRequest | CompareAndSetRequest) -> str:
        entry = self._entry(request)
        self._entries.put(request.key, entry)
        return str(entry.version)

    def _entry(self, wanted: SetRequest | CompareAndSetRequest | NewEntry) -> Entry:
        return self._made(wanted.key, wanted.value, wanted.ttl_seconds, wanted.tti_seconds, wanted.tags)

    def _made(
        self,
        key: str,
        value: Any,
        ttl_seconds: float | UnsetType,
        tti_seconds: float | UnsetType,
        tags: list[str] | UnsetType,
    ) -> Entry:
        dies_at = math.inf if ttl_seconds is UNSET else time.monotonic() + ttl_seconds
        idle = math.inf if tti_seconds is UNSET else tti_seconds
        entry = Entry(_encode(value), next(self._versions), dies_at, idle, frozenset(tags) if tags else _NO_TAGS)
        if not self._entries.fits(key, entry, self._budget.max_bytes):
            largest = min(self._entries.max_bytes, self._budget.max_bytes)
            message = f"The entry is larger than the whole cache ({largest} bytes)."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return entry


def _number(entry: Entry) -> int:
    try:
        return msgspec.json.decode(entry.data, type=int)
    except msgspec.ValidationError:
        message = "The value of this key is not a whole number."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from None
