"""Object stores that break one rule each."""

from __future__ import annotations

import asyncio
import unicodedata
from typing import Any, ClassVar

from tests.conformance.saboteur import breaks

from erp.contracts.models import storage
from erp.runtime.spi import UNSET, ErrorCode, ProviderError

REF = "storage/filesystem"


@breaks("STORE-01", ref=REF)
class TranslatesLineEnds:
    async def get(self, request: Any, context: Any) -> Any:
        result = await super().get(request, context)  # type: ignore[misc]
        if result.content == b"text\r\n":
            result.content = b"text\n"
        return result


@breaks("STORE-02", ref=REF)
class AbsentObjectsHaveASize:
    async def head(self, request: Any, context: Any) -> Any:
        result = await super().head(request, context)  # type: ignore[misc]
        if not result.found:
            result.size = 0
        return result


@breaks("STORE-03", ref=REF)
class KeysAreNormalised:
    async def put(self, request: Any, context: Any) -> Any:
        request.key = unicodedata.normalize("NFC", request.key)
        return await super().put(request, context)  # type: ignore[misc]

    async def get(self, request: Any, context: Any) -> Any:
        request.key = unicodedata.normalize("NFC", request.key)
        return await super().get(request, context)  # type: ignore[misc]


@breaks("STORE-04", ref=REF)
class TheTypeBeforeStays:
    async def put(self, request: Any, context: Any) -> Any:
        before = await super().head(storage.HeadRequest(key=request.key), context)  # type: ignore[misc]
        if before.found and before.content_type == "text/plain":
            request.content_type = before.content_type
        return await super().put(request, context)  # type: ignore[misc]


@breaks("STORE-05", ref=REF)
class HeadKnowsNoParameters:
    async def head(self, request: Any, context: Any) -> Any:
        result = await super().head(request, context)  # type: ignore[misc]
        if result.found:
            result.content_type = result.content_type.partition(";")[0]
        return result


@breaks("STORE-06", ref=REF)
class IgnoresChecksums:
    async def put(self, request: Any, context: Any) -> Any:
        request.sha256 = UNSET
        return await super().put(request, context)  # type: ignore[misc]


@breaks("STORE-07", ref=REF)
class DeletesTheFolder:
    async def delete(self, request: Any, context: Any) -> Any:
        await super().delete(storage.DeleteRequest(key=f"{request.key}/b"), context)  # type: ignore[misc]
        return await super().delete(request, context)  # type: ignore[misc]


@breaks("STORE-08", ref=REF)
class CopyingMoves:
    async def copy(self, request: Any, context: Any) -> Any:
        result = await super().copy(request, context)  # type: ignore[misc]
        if request.target == "target":
            await super().delete(storage.DeleteRequest(key=request.source), context)  # type: ignore[misc]
        return result


@breaks("STORE-09", ref=REF)
class PagesOverlap:
    async def list(self, request: Any, context: Any) -> Any:
        result = await super().list(request, context)  # type: ignore[misc]
        if request.limit == 5 and request.cursor is not UNSET and result.objects:
            result.objects[0] = await self._again(request)
        return result

    async def _again(self, request: Any) -> Any:
        first = await super().list(storage.ListRequest(prefix=request.prefix, limit=1), None)  # type: ignore[misc]
        return first.objects[0]


@breaks("STORE-10", ref=REF)
class FoldsPrefixesOncePerPage:
    async def list(self, request: Any, context: Any) -> Any:
        result = await super().list(request, context)  # type: ignore[misc]
        if request.delimiter is not UNSET and request.limit == 1 and result.prefixes == ["d/"]:
            result.prefixes = ["b/"]
        return result


@breaks("STORE-11", ref=REF)
class TenantsShareAFolder:
    folders: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        vars(self)["_objects"] = self.folders.setdefault(context.connection, vars(self)["_objects"])


@breaks("STORE-12", ref=REF, also=("STORE-13",))
class WritesInTwoSteps:
    async def put(self, request: Any, context: Any) -> Any:
        whole = request.content
        if len(whole) == 200_000:
            before = await super().head(storage.HeadRequest(key=request.key), context)  # type: ignore[misc]
            if before.found:
                request.content = whole[:100_000] + b"z" * 100_000
                await super().put(request, context)  # type: ignore[misc]
                await asyncio.sleep(0.02)
        request.content = whole
        return await super().put(request, context)  # type: ignore[misc]


@breaks("STORE-13", ref=REF)
class LeavesADraft:
    async def put(self, request: Any, context: Any) -> Any:
        if len(request.content) != 300_000:
            return await super().put(request, context)  # type: ignore[misc]
        draft = storage.PutRequest(key=f"{request.key}.part", content=b"")
        await super().put(draft, context)  # type: ignore[misc]
        result = await super().put(request, context)  # type: ignore[misc]
        await super().delete(storage.DeleteRequest(key=draft.key), context)  # type: ignore[misc]
        return result


@breaks("STORE-20", ref=REF)
class LooksThenWrites:
    async def put(self, request: Any, context: Any) -> Any:
        if request.if_none_match is UNSET:
            return await super().put(request, context)  # type: ignore[misc]
        there = await super().head(storage.HeadRequest(key=request.key), context)  # type: ignore[misc]
        await asyncio.sleep(0.02)
        if there.found:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "There is one.")
        request.if_none_match = UNSET
        return await super().put(request, context)  # type: ignore[misc]


@breaks("STORE-21", ref=REF)
class MatchesWhatIsAbsent:
    async def put(self, request: Any, context: Any) -> Any:
        if request.if_match is not UNSET:
            there = await super().head(storage.HeadRequest(key=request.key), context)  # type: ignore[misc]
            if not there.found:
                request.if_match = UNSET
        return await super().put(request, context)  # type: ignore[misc]


@breaks("STORE-22", ref=REF)
class ReadsWhateverIsThere:
    async def get(self, request: Any, context: Any) -> Any:
        request.if_match = UNSET
        return await super().get(request, context)  # type: ignore[misc]


@breaks("STORE-30", ref=REF)
class ReadsOneTooMany:
    async def get(self, request: Any, context: Any) -> Any:
        if request.length == 5:
            request.length = 6
        return await super().get(request, context)  # type: ignore[misc]


@breaks("STORE-40", ref=REF)
class NamesAreLowered:
    async def head(self, request: Any, context: Any) -> Any:
        result = await super().head(request, context)  # type: ignore[misc]
        if result.found and "empty" in result.metadata:
            del result.metadata["empty"]
        return result


@breaks("STORE-50", ref=REF)
class PartsAreTooLarge:
    async def read(self, request: Any, context: Any) -> Any:
        request.part_bytes *= 2
        async for part in super().read(request, context):  # type: ignore[misc]
            yield part


@breaks("STORE-51", ref=REF)
class NothingIsAnEmptyStream:
    async def read(self, request: Any, context: Any) -> Any:
        there = await super().head(storage.HeadRequest(key=request.key), context)  # type: ignore[misc]
        if there.found:
            async for part in super().read(request, context):  # type: ignore[misc]
                yield part
