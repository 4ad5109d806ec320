"""Caches that break one rule each."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import msgspec
from tests.conformance.saboteur import breaks

from erp.runtime.spi import UNSET

REF = "cache/memory"


@breaks("CACHE-01", ref=REF)
class NullIsNothing:
    async def set(self, request: Any, context: Any) -> Any:
        if request.value == [None]:
            request.value = []
        return await super().set(request, context)  # type: ignore[misc]


@breaks("CACHE-02", ref=REF, also=("CACHE-09", "CACHE-10"))
class MissingIsNull:
    async def get(self, request: Any, context: Any) -> Any:
        result = await super().get(request, context)  # type: ignore[misc]
        if not result.found:
            result.value = None
        return result


@breaks("CACHE-03", ref=REF)
class KeysAreNormalised:
    async def set(self, request: Any, context: Any) -> Any:
        import unicodedata

        request.key = unicodedata.normalize("NFC", request.key)
        return await super().set(request, context)  # type: ignore[misc]


@breaks("CACHE-04", ref=REF)
class DeletesByPrefix:
    async def delete(self, request: Any, context: Any) -> Any:
        for key in list(self._entries._entries):  # type: ignore[attr-defined]
            if key.startswith(request.key) and key != request.key:
                self._entries.remove(key)  # type: ignore[attr-defined]
        return await super().delete(request, context)  # type: ignore[misc]


@breaks("CACHE-05", ref=REF)
class VersionsBeginAnewAfterDelete:
    async def delete(self, request: Any, context: Any) -> Any:
        import itertools

        self._versions = itertools.count(1)
        return await super().delete(request, context)  # type: ignore[misc]


@breaks("CACHE-06", ref=REF)
class ManyAreAnsweredOnce:
    async def get_many(self, request: Any, context: Any) -> Any:
        result = await super().get_many(request, context)  # type: ignore[misc]
        result.items = list({item.key: item for item in result.items}.values())
        return result


@breaks("CACHE-07", ref=REF)
class ManyAreWrittenBackwards:
    async def set_many(self, request: Any, context: Any) -> Any:
        request.entries.reverse()
        result = await super().set_many(request, context)  # type: ignore[misc]
        result.versions.reverse()
        return result


@breaks("CACHE-08", ref=REF)
class LargeValuesAreCut:
    async def set(self, request: Any, context: Any) -> Any:
        if isinstance(request.value, str):
            request.value = request.value[:65536]
        return await super().set(request, context)  # type: ignore[misc]


class _Shared:
    """One store for all: ``where`` names whom it is shared between."""

    stores: ClassVar[dict[str, Any]] = {}

    def where(self, context: Any) -> str:
        raise NotImplementedError

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        name = f"{type(self).__name__}:{self.where(context)}"
        vars(self)["_entries"] = self.stores.setdefault(name, vars(self)["_entries"])

    async def close(self) -> None:
        """Others use the store."""


@breaks("CACHE-09", ref=REF)
class TenantsShare(_Shared):
    def where(self, context: Any) -> str:
        return str(context.connection)


@breaks("CACHE-10", ref=REF)
class ConnectionsShare(_Shared):
    def where(self, context: Any) -> str:
        return f"{context.tenant}:{context.connection.removesuffix('-b')}"


@breaks("CACHE-20", ref=REF)
class TimesAreTooLong:
    async def set(self, request: Any, context: Any) -> Any:
        if request.ttl_seconds is not UNSET and 0.1 < request.ttl_seconds < 0.16:
            request.ttl_seconds *= 10
        return await super().set(request, context)  # type: ignore[misc]


@breaks("CACHE-21", ref=REF)
class TheThirdReadProlongs:
    async def get(self, request: Any, context: Any) -> Any:
        self.reads = getattr(self, "reads", 0) + 1
        entry = self._entries.find(request.key)  # type: ignore[attr-defined]
        if entry is not None and self.reads == 3:
            entry.dies_at += 30
        return await super().get(request, context)  # type: ignore[misc]


@breaks("CACHE-22", ref=REF)
class TheLifetimeBeforeStays:
    async def set(self, request: Any, context: Any) -> Any:
        entry = self._entries._entries.get(request.key)  # type: ignore[attr-defined]
        before = entry.dies_at if entry is not None else None
        result = await super().set(request, context)  # type: ignore[misc]
        if before is not None and request.ttl_seconds is UNSET:
            self._entries._entries[request.key].dies_at = before  # type: ignore[attr-defined]
        return result


@breaks("CACHE-23", ref=REF)
class ExpireCountsFromTheWriting:
    async def expire(self, request: Any, context: Any) -> Any:
        result = await super().expire(request, context)  # type: ignore[misc]
        if result.found and request.ttl_seconds < 1:
            self._entries._entries[request.key].dies_at += 30  # type: ignore[attr-defined]
        return result


@breaks("CACHE-30", ref=REF)
class ReadingDoesNotCount:
    async def get(self, request: Any, context: Any) -> Any:
        entry = self._entries._entries.get(request.key)  # type: ignore[attr-defined]
        before = entry.idles_at if entry is not None else None
        result = await super().get(request, context)  # type: ignore[misc]
        if entry is not None:
            entry.idles_at = before
        return result


@breaks("CACHE-31", ref=REF)
class TouchingDoesNotCount:
    async def touch(self, request: Any, context: Any) -> Any:
        entry = self._entries._entries.get(request.key)  # type: ignore[attr-defined]
        before = entry.idles_at if entry is not None else None
        result = await super().touch(request, context)  # type: ignore[misc]
        if entry is not None:
            entry.idles_at = before
        return result


@breaks("CACHE-40", ref=REF)
class OnlyTheFirstTag:
    async def invalidate_tags(self, request: Any, context: Any) -> Any:
        result = await super().invalidate_tags(request, context)  # type: ignore[misc]
        if len(request.tags) > 1:
            result.removed += 1
        return result


@breaks("CACHE-41", ref=REF)
class TheTagsBeforeStay:
    async def set(self, request: Any, context: Any) -> Any:
        entry = self._entries._entries.get(request.key)  # type: ignore[attr-defined]
        if entry is not None and entry.tags and request.tags is not UNSET:
            request.tags = [*request.tags, *entry.tags]
        return await super().set(request, context)  # type: ignore[misc]


@breaks("CACHE-42", ref=REF)
class TagsAreRemovedInSilence:
    async def invalidate_tags(self, request: Any, context: Any) -> Any:
        result = await super().invalidate_tags(request, context)  # type: ignore[misc]
        context.emitted.clear()
        return result


@breaks("CACHE-50", ref=REF)
class PrefixesArePatterns:
    async def invalidate_prefix(self, request: Any, context: Any) -> Any:
        request.prefix = request.prefix.rstrip("*%")
        return await super().invalidate_prefix(request, context)  # type: ignore[misc]


@breaks("CACHE-51", ref=REF)
class PrefixesAreRemovedInSilence:
    async def invalidate_prefix(self, request: Any, context: Any) -> Any:
        result = await super().invalidate_prefix(request, context)  # type: ignore[misc]
        context.emitted.clear()
        return result


@breaks("CACHE-60", ref=REF)
class TheInitialValueIsTheFirstSum:
    async def increment(self, request: Any, context: Any) -> Any:
        if request.initial == 10:
            request.by = 0
        return await super().increment(request, context)  # type: ignore[misc]


@breaks("CACHE-61", ref=REF)
class IncrementsReadThenWrite:
    async def increment(self, request: Any, context: Any) -> Any:
        before = self._present(request.key)
        await asyncio.sleep(0.01)
        if isinstance(before, int) and not isinstance(before, bool):
            request.by += before - self._present(request.key)
        return await super().increment(request, context)  # type: ignore[misc]

    def _present(self, key: str) -> Any:
        entry = self._entries.find(key)  # type: ignore[attr-defined]
        return msgspec.json.decode(entry.data) if entry is not None else 0


@breaks("CACHE-62", ref=REF)
class TrueIsANumber:
    async def increment(self, request: Any, context: Any) -> Any:
        entry = self._entries.find(request.key)  # type: ignore[attr-defined]
        if entry is not None and entry.data == b"true":
            entry.data = b"2"
        return await super().increment(request, context)  # type: ignore[misc]


@breaks("CACHE-63", ref=REF)
class IncrementsProlong:
    async def increment(self, request: Any, context: Any) -> Any:
        result = await super().increment(request, context)  # type: ignore[misc]
        if request.ttl_seconds is not UNSET and result.value > 1:
            self._entries._entries[request.key].dies_at += request.ttl_seconds  # type: ignore[attr-defined]
        return result


@breaks("CACHE-70", ref=REF)
class TheRefusedWriteIsWritten:
    async def compare_and_set(self, request: Any, context: Any) -> Any:
        result = await super().compare_and_set(request, context)  # type: ignore[misc]
        if not result.stored and request.value == 3 and self._entries.find(request.key).data == b"2":  # type: ignore[attr-defined]
            self._store(request)  # type: ignore[attr-defined]
        return result


@breaks("CACHE-71", ref=REF)
class NullMatchesEverything:
    async def compare_and_set(self, request: Any, context: Any) -> Any:
        if request.expected_version is None:
            entry = self._entries.find(request.key)  # type: ignore[attr-defined]
            request.expected_version = None if entry is None else str(entry.version)
        return await super().compare_and_set(request, context)  # type: ignore[misc]


@breaks("CACHE-72", ref=REF)
class WritersRace:
    async def compare_and_set(self, request: Any, context: Any) -> Any:
        entry = self._entries.find(request.key)  # type: ignore[attr-defined]
        matches = entry is not None and str(entry.version) == request.expected_version
        await asyncio.sleep(0.01)
        if matches:
            entry = self._entries.find(request.key)  # type: ignore[attr-defined]
            request.expected_version = str(entry.version)
        return await super().compare_and_set(request, context)  # type: ignore[misc]


ALL = ("ttl", "tti", "tags", "prefix_invalidation", "atomic_increment", "compare_and_set")


def without(capability: str) -> dict[str, Any]:
    return {"capabilities": [name for name in ALL if name != capability]}


@breaks("CACHE-24", ref=REF, manifest=without("ttl"), also=("CALL-08",))
class TtlIsTakenAndNotDeclared:
    """Nothing else is wrong with it."""


@breaks("CACHE-32", ref=REF, manifest=without("tti"), also=("CALL-08",))
class TtiIsTakenAndNotDeclared:
    """Nothing else is wrong with it."""


@breaks("CACHE-43", ref=REF, manifest=without("tags"), also=("CALL-08",))
class TagsAreTakenAndNotDeclared:
    """Nothing else is wrong with it."""
