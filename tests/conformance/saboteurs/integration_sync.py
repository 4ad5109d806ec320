"""Integrations that break one rule of reading changes, or of a peer that fails, each."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.saboteur import breaks

from erp.runtime.spi import UNSET, ErrorCode, ProviderError
from erp.vendor_clients.guarded_http import AnswerTimedOutError

REF = "integration/http_api"


@breaks("INT-30", ref=REF)
class SkipsTheFirstOfThree:
    async def sync(self, request: Any, context: Any) -> Any:
        result = await super().sync(request, context)  # type: ignore[misc]
        if request.limit == 3:
            del result.changes[:1]
        return result


@breaks("INT-31", ref=REF)
class IsAlwaysComplete:
    async def sync(self, request: Any, context: Any) -> Any:
        result = await super().sync(request, context)  # type: ignore[misc]
        result.snapshot_complete = True
        return result


@breaks("INT-32", ref=REF)
class KnowsOnlyNewRecords:
    known: frozenset[str] = frozenset()

    async def sync(self, request: Any, context: Any) -> Any:
        result = await super().sync(request, context)  # type: ignore[misc]
        if request.start == "beginning":
            self.known |= {change.keys["sku"] for change in result.changes}
        elif result.snapshot_complete:
            kept = [one for one in result.changes if one.kind == "deleted" or one.keys["sku"] not in self.known]
            result.changes = kept
        return result


@breaks("INT-33", ref=REF)
class NowIsTheBeginning:
    async def sync(self, request: Any, context: Any) -> Any:
        request.start = "beginning" if request.start == "now" else request.start
        return await super().sync(request, context)  # type: ignore[misc]


@breaks("INT-34", ref=REF)
class AnyTimeWillDo:
    async def sync(self, request: Any, context: Any) -> Any:
        if request.start == "time" and request.changed_since is UNSET:
            request.start = "beginning"
        return await super().sync(request, context)  # type: ignore[misc]


@breaks("INT-35", ref=REF)
class ReadsEachPageOnce:
    read: frozenset[str] = frozenset()

    async def sync(self, request: Any, context: Any) -> Any:
        result = await super().sync(request, context)  # type: ignore[misc]
        if request.limit == 2 and request.start == "checkpoint":
            if request.checkpoint in self.read:
                result.changes = []
            self.read |= {request.checkpoint}
        return result


@breaks("INT-36", ref=REF)
class CountsItsPlace:
    deleted = 0

    async def delete(self, request: Any, context: Any) -> Any:
        self.deleted += len(request.records)
        return await super().delete(request, context)  # type: ignore[misc]

    async def sync(self, request: Any, context: Any) -> Any:
        result = await super().sync(request, context)  # type: ignore[misc]
        if request.start == "checkpoint" and not result.snapshot_complete:
            del result.changes[: self.deleted]
        return result


@breaks("INT-37", ref=REF)
class NoneIsAll:
    async def sync(self, request: Any, context: Any) -> Any:
        request.fields = request.fields or UNSET
        return await super().sync(request, context)  # type: ignore[misc]


@breaks("INT-38", ref=REF)
class KeepsDeletionsToItself:
    async def sync(self, request: Any, context: Any) -> Any:
        result = await super().sync(request, context)  # type: ignore[misc]
        result.changes = [one for one in result.changes if one.kind != "deleted"]
        return result


class _MeansAnother:
    """It answers another code where the peer says ``text``."""

    code, text, other = ErrorCode.INTERNAL, "", ErrorCode.INTERNAL

    async def sync(self, request: Any, context: Any) -> Any:
        try:
            return await super().sync(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is self.code and self.text in error.message:
                raise ProviderError(self.other, error.message) from error
            raise


@breaks("INT-40", ref=REF)
class ConflictsAreForGood(_MeansAnother):
    code, other = ErrorCode.CONFLICT, ErrorCode.FAILED_PRECONDITION


@breaks("INT-41", ref=REF)
class DoesNotSayHowLongToWait(_MeansAnother):
    code, other = ErrorCode.RATE_LIMITED, ErrorCode.RATE_LIMITED


@breaks("INT-42", ref=REF)
class TheirFailureIsTheCallers(_MeansAnother):
    code, text, other = ErrorCode.UNAVAILABLE, "The peer failed", ErrorCode.INVALID_ARGUMENT


@breaks("INT-43", ref=REF, also=("CALL-04",))
class GarbageIsItsOwnFault(_MeansAnother):
    code, text, other = ErrorCode.UNAVAILABLE, "not JSON", ErrorCode.INTERNAL


@breaks("INT-44", ref=REF)
class SlowIsConflicting:
    async def sync(self, request: Any, context: Any) -> Any:
        try:
            return await super().sync(request, context)  # type: ignore[misc]
        except AnswerTimedOutError as error:
            raise ProviderError(ErrorCode.CONFLICT, "The peer is busy.") from error


@breaks("INT-45", ref=REF)
class LostWritesAreFailures:
    async def upsert(self, request: Any, context: Any) -> Any:
        result = await super().upsert(request, context)  # type: ignore[misc]
        for outcome in result.outcomes:
            outcome.status = "failed" if outcome.status == "unknown" else outcome.status
        return result


@breaks("INT-46", ref=REF)
class ForgetsTheLastOne:
    async def upsert(self, request: Any, context: Any) -> Any:
        result = await super().upsert(request, context)  # type: ignore[misc]
        if len(result.outcomes) == 4:
            result.outcomes.pop()
            result.failed -= 1
        return result


@breaks("INT-47", ref=REF)
class RedirectsAreTemporary(_MeansAnother):
    code, text, other = ErrorCode.FAILED_PRECONDITION, "redirects", ErrorCode.UNAVAILABLE


@breaks("INT-48", ref=REF)
class OneAfterTheOther:
    async def sync(self, request: Any, context: Any) -> Any:
        async with vars(self).setdefault("lock", asyncio.Lock()):
            return await super().sync(request, context)  # type: ignore[misc]
