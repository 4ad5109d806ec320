"""A cache in Memcached, on one server or spread over several."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

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
    SetManyRequest,
    SetManyResult,
    SetRequest,
    SetResult,
)
from erp.contracts.models.cache import (
    Entry as NewEntry,
)
from erp.providers.cache.memcached import wire
from erp.providers.cache.memcached.entries import Entry, Names, Versions, death, decoded
from erp.providers.cache.memcached.servers import Servers
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

MOST = 2**53 - 1
"""Numbers beyond it are not kept exactly by every JSON reader."""

_encode = msgspec.json.Encoder(decimal_format="string").encode


class MemcachedCache:
    """Conditional writes are Memcached's own compare-and-swap: read, change, write unless somebody else has."""

    translate: ClassVar[ErrorTable] = {OSError: ErrorCode.UNAVAILABLE}
    """Failures of the network are translated where it is known whether the request was sent (``Server``)."""

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._names = Names(config.get("key_prefix", "erp"), context.tenant, context.connection)
        self._servers = Servers(config)
        self._versions = Versions()

    async def open(self) -> None:
        for _, error in await self._servers.silent():
            raise error

    async def close(self) -> None:
        await self._servers.close()

    async def health(self) -> Health:
        """Ask every server now; the entries of one that is silent cannot be read."""
        started = time.perf_counter()
        silent = [address for address, _ in await self._servers.silent()]
        latency = round((time.perf_counter() - started) * 1000, 3)
        if not silent:
            return Health(status="ok", latency_ms=latency)
        message = f"No answer from {', '.join(silent)}."
        is_alone = len(silent) == len(self._servers.addresses)
        return Health(status="down" if is_alone else "degraded", latency_ms=latency, message=message)

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:  # noqa: ARG002
        entry, _ = await self._read(self._names.of(request.key))
        if entry is None:
            return GetResult(found=False)
        return GetResult(found=True, value=msgspec.Raw(entry.data), version=entry.version)

    async def set(self, request: SetRequest, context: CallContext) -> SetResult:  # noqa: ARG002
        [version] = await self._write([request])
        return SetResult(version=version)

    async def delete(self, request: DeleteRequest, context: CallContext) -> DeleteResult:
        name = self._names.of(request.key)
        while _has_time(context):
            entry, cas = await self._read(name)
            if entry is None:
                return DeleteResult(deleted=False)
            [reply] = await self._servers.ask([(name, wire.remove(name, cas))])
            if reply.code != "EX":
                return DeleteResult(deleted=reply.code == "HD")
        raise _contended()

    async def get_many(self, request: GetManyRequest, context: CallContext) -> GetManyResult:  # noqa: ARG002
        names = [self._names.of(key) for key in request.keys]
        replies = await self._servers.ask([(name, wire.get(name)) for name in names])
        entries = [None if reply.item is None else decoded(reply.item.data) for reply in replies]
        return GetManyResult(items=[_found(key, entry) for key, entry in zip(request.keys, entries, strict=True)])

    async def set_many(self, request: SetManyRequest, context: CallContext) -> SetManyResult:  # noqa: ARG002
        return SetManyResult(versions=await self._write(request.entries))

    async def expire(self, request: ExpireRequest, context: CallContext) -> ExpireResult:
        def prolonged(present: Entry | None) -> Entry | None:
            return None if present is None else present._replace(dies_at=death(request.ttl_seconds))

        changed, _ = await self._change(request.key, prolonged, context, repeatable=True)
        return ExpireResult(found=changed is not None)

    async def increment(self, request: IncrementRequest, context: CallContext) -> IncrementResult:
        def added(present: Entry | None) -> Entry:
            total = (request.initial if present is None else _number(present)) + request.by
            if abs(total) > MOST:
                message = "The number would leave the range that every JSON reader keeps exactly (2^53)."
                raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
            dies_at = death(_seconds(request.ttl_seconds)) if present is None else present.dies_at
            return Entry(self._versions.next(), dies_at, _encode(total))

        changed, _ = await self._change(request.key, added, context, repeatable=False)
        assert changed is not None  # noqa: S101  (``added`` always answers one)
        return IncrementResult(value=int(changed.data), version=changed.version)

    async def compare_and_set(self, request: CompareAndSetRequest, context: CallContext) -> CompareAndSetResult:
        wanted = self._entry(request)

        def replaced(present: Entry | None) -> Entry | None:
            version = None if present is None else present.version
            return wanted if version == request.expected_version else None

        changed, present = await self._change(request.key, replaced, context, repeatable=False)
        if changed is not None:
            return CompareAndSetResult(stored=True, version=changed.version)
        return CompareAndSetResult(stored=False, version=UNSET if present is None else present.version)

    async def _read(self, name: str) -> tuple[Entry | None, int]:
        """Return an entry, None when there is none, and the number to write over what is there; 0 is nothing at all."""
        [reply] = await self._servers.ask([(name, wire.get(name))])
        return (None, 0) if reply.item is None else (decoded(reply.item.data), reply.item.cas)

    async def _write(self, wanted: Sequence[SetRequest | NewEntry]) -> list[str]:
        made = [(self._names.of(one.key), self._entry(one)) for one in wanted]
        await self._servers.ask([(name, wire.put(name, entry.encoded(), entry.seconds())) for name, entry in made])
        return [entry.version for _, entry in made]

    async def _change(
        self,
        key: str,
        change: Callable[[Entry | None], Entry | None],
        context: CallContext,
        *,
        repeatable: bool,
    ) -> tuple[Entry | None, Entry | None]:
        """Put what ``change`` makes of an entry in its place, if nobody else has written meanwhile; else begin again.

        Return what was written, None when ``change`` wanted nothing written, and what was there.
        """
        name = self._names.of(key)
        server = self._servers.of(name)
        while _has_time(context):
            present, cas = await self._read(name)
            wanted = change(present)
            if wanted is None:
                return None, present
            condition = wire.put(name, wanted.encoded(), wanted.seconds(), cas=cas or None, is_new=not cas)
            [reply] = await server.ask([condition], repeatable=repeatable)
            if reply.code == "HD":
                return wanted, present
        raise _contended()

    def _entry(self, wanted: SetRequest | CompareAndSetRequest | NewEntry) -> Entry:
        for capability, value in (("tti", wanted.tti_seconds), ("tags", wanted.tags)):
            if value:
                message = f"Memcached cannot keep the capability {capability}; choose a cache that declares it."
                raise ProviderError(ErrorCode.UNSUPPORTED, message)
        return Entry(self._versions.next(), death(_seconds(wanted.ttl_seconds)), _encode(wanted.value))


def _seconds(value: float | UnsetType) -> float | None:
    return None if isinstance(value, UnsetType) else value


def _number(entry: Entry) -> int:
    try:
        return msgspec.json.decode(entry.data, type=int)
    except msgspec.ValidationError:
        message = "The value of this key is not a whole number."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from None


def _found(key: str, entry: Entry | None) -> Found:
    if entry is None:
        return Found(key=key, found=False)
    return Found(key=key, found=True, value=msgspec.Raw(entry.data), version=entry.version)


def _has_time(context: CallContext) -> bool:
    return context.remaining_seconds() > 0


def _contended() -> ProviderError:
    message = "Others kept writing this key until the deadline; nothing was changed."
    return ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0)
