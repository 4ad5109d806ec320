"""Integrations that break one rule of writing, reading or deleting records each."""

from __future__ import annotations

import copy
from typing import Any

from tests.conformance.saboteur import breaks

from erp.contracts.models import integration as contract
from erp.runtime.spi import UNSET, ErrorCode, ProviderError

REF = "integration/http_api"


@breaks("INT-10", ref=REF)
class EverythingIsNew:
    async def upsert(self, request: Any, context: Any) -> Any:
        result = await super().upsert(request, context)  # type: ignore[misc]
        if len(result.outcomes) == 1 and not result.failed:
            result.outcomes[0].status = "created"
        return result


@breaks("INT-11", ref=REF)
class AnswersBackwards:
    async def upsert(self, request: Any, context: Any) -> Any:
        result = await super().upsert(request, context)  # type: ignore[misc]
        if len(result.outcomes) == 5:
            result.outcomes.reverse()
        return result


@breaks("INT-12", ref=REF)
class ClearsNothing:
    async def upsert(self, request: Any, context: Any) -> Any:
        for record in request.records:
            record.fields = {name: value for name, value in record.fields.items() if value is not None}
        return await super().upsert(request, context)  # type: ignore[misc]


@breaks("INT-13", ref=REF)
class TidiesTexts:
    async def upsert(self, request: Any, context: Any) -> Any:
        for record in request.records:
            record.fields = {name: value and value.strip() for name, value in record.fields.items()}
        return await super().upsert(request, context)  # type: ignore[misc]


@breaks("INT-14", ref=REF)
class TidiesKeys:
    async def fetch(self, request: Any, context: Any) -> Any:
        request.keys = [{name: key.replace("/", "_") for name, key in keys.items()} for keys in request.keys]
        return await super().fetch(request, context)  # type: ignore[misc]


@breaks("INT-15", ref=REF)
class KnowsOneMode:
    async def upsert(self, request: Any, context: Any) -> Any:
        if len(request.records) == 1:
            request.mode = "upsert"
        return await super().upsert(request, context)  # type: ignore[misc]


@breaks("INT-16", ref=REF, also=("INT-45", "INT-46"))
class AllProblemsAreConflicts:
    async def upsert(self, request: Any, context: Any) -> Any:
        result = await super().upsert(request, context)  # type: ignore[misc]
        for outcome in result.outcomes:
            if outcome.problem is not UNSET:
                outcome.problem.code = "conflict"
        return result


@breaks("INT-17", ref=REF)
class PointsNowhere:
    async def upsert(self, request: Any, context: Any) -> Any:
        try:
            return await super().upsert(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is ErrorCode.PARTIAL:
                raise ProviderError(ErrorCode.PARTIAL, error.message) from error
            raise


@breaks("INT-18", ref=REF)
class AllOrSome:
    async def upsert(self, request: Any, context: Any) -> Any:
        request.atomic = False
        return await super().upsert(request, context)  # type: ignore[misc]


@breaks("INT-19", ref=REF)
class ComparesNoVersion:
    async def upsert(self, request: Any, context: Any) -> Any:
        for record in request.records:
            record.expected_version = UNSET
        return await super().upsert(request, context)  # type: ignore[misc]


@breaks("INT-20", ref=REF)
class NothingOfAnUnknownKindIsMissing:
    async def delete(self, request: Any, context: Any) -> Any:
        try:
            return await super().delete(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
        outcomes = [contract.WriteOutcome(keys=record.keys, status="missing") for record in request.records]
        return contract.DeleteResult(outcomes=outcomes, failed=0)


@breaks("INT-21", ref=REF)
class WritesUpToTheWrongOne:
    async def upsert(self, request: Any, context: Any) -> Any:
        try:
            return await super().upsert(copy.copy(request), context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is ErrorCode.INVALID_ARGUMENT and len(request.records) > 1:
                request.records = request.records[:1]
                await super().upsert(request, context)  # type: ignore[misc]
            raise


@breaks("INT-22", ref=REF)
class AnswersEachOnce:
    async def fetch(self, request: Any, context: Any) -> Any:
        request.keys = [keys for number, keys in enumerate(request.keys) if keys not in request.keys[:number]]
        return await super().fetch(request, context)  # type: ignore[misc]


@breaks("INT-23", ref=REF)
class NoneIsAll:
    async def fetch(self, request: Any, context: Any) -> Any:
        request.fields = request.fields or UNSET
        return await super().fetch(request, context)  # type: ignore[misc]


@breaks("INT-24", ref=REF)
class DeletesWhatIsNotThere:
    async def delete(self, request: Any, context: Any) -> Any:
        result = await super().delete(request, context)  # type: ignore[misc]
        for outcome in result.outcomes:
            outcome.status = "deleted"
        return result
