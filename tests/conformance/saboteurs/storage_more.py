"""Object stores that break one rule each of uploads in parts, links and lifecycle rules."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.conformance.saboteur import breaks

from erp.contracts.models import storage

REF = "storage/filesystem"


@breaks("STORE-60", ref=REF)
class PartsStandAsTheyArrived:
    async def upload_part(self, request: Any, context: Any) -> Any:
        if len(request.content) == 6_000_000:
            request.content = bytes([64 + 3]) + request.content[1:]
        return await super().upload_part(request, context)  # type: ignore[misc]


@breaks("STORE-61", ref=REF)
class TheFirstPartStays:
    async def upload_part(self, request: Any, context: Any) -> Any:
        result = await super().upload_part(request, context)  # type: ignore[misc]
        if request.content == b"first":
            wrong = storage.UploadPartRequest(key=request.key, upload=request.upload, part=1, content=b"wrong")
            await super().upload_part(wrong, context)  # type: ignore[misc]
        return result


@breaks("STORE-62", ref=REF)
class EtagsAreNotCompared:
    async def complete_multipart(self, request: Any, context: Any) -> Any:
        listed = storage.ListPartsRequest(key=request.key, upload=request.upload)
        if any(part.etag == "no-such-etag" for part in request.parts):
            request.parts = (await super().list_parts(listed, context)).parts  # type: ignore[misc]
        return await super().complete_multipart(request, context)  # type: ignore[misc]


@breaks("STORE-63", ref=REF)
class AbortsAgainAndAgain:
    async def abort_multipart(self, request: Any, context: Any) -> Any:
        await super().abort_multipart(request, context)  # type: ignore[misc]
        return storage.AbortMultipartResult(aborted=True)


@breaks("STORE-64", ref=REF)
class AnyKeyWillDo:
    keys: ClassVar[dict[str, str]] = {}

    async def create_multipart(self, request: Any, context: Any) -> Any:
        result = await super().create_multipart(request, context)  # type: ignore[misc]
        self.keys[result.upload] = request.key
        return result

    async def upload_part(self, request: Any, context: Any) -> Any:
        request.key = self.keys.get(request.upload, request.key)
        return await super().upload_part(request, context)  # type: ignore[misc]


@breaks("STORE-70", ref=REF)
class LinksCanBeGuessed:
    async def signed_url(self, request: Any, context: Any) -> Any:
        result = await super().signed_url(request, context)  # type: ignore[misc]
        result.url = f"http://127.0.0.1/objects/{request.key}"
        return result


@breaks("STORE-80", ref=REF)
class RulesAreAdded:
    async def put_lifecycle(self, request: Any, context: Any) -> Any:
        if len(request.rules) == 1 and request.rules[0].id == "old":
            present = (await super().get_lifecycle(storage.GetLifecycleRequest(), context)).rules  # type: ignore[misc]
            request.rules = [*request.rules, *(rule for rule in present if rule.id != "old")]
        return await super().put_lifecycle(request, context)  # type: ignore[misc]


@breaks("STORE-81", ref=REF)
class RulesActAtOnce:
    async def put_lifecycle(self, request: Any, context: Any) -> Any:
        result = await super().put_lifecycle(request, context)  # type: ignore[misc]
        if any(rule.prefix == "tmp/" and rule.expire_after_days == 1 for rule in request.rules):
            listed = await super().list(storage.ListRequest(prefix="tmp/"), context)  # type: ignore[misc]
            for found in listed.objects:
                await super().delete(storage.DeleteRequest(key=found.key), context)  # type: ignore[misc]
        return result
