"""Integrations that break one rule of describe, trigger or test each."""

from __future__ import annotations

from typing import Any

from tests.conformance.saboteur import breaks

from erp.contracts.models import integration as contract
from erp.runtime.spi import UNSET, ErrorCode, ProviderError

REF = "integration/http_api"


@breaks("INT-01", ref=REF)
class SkipsBetweenPages:
    async def describe(self, request: Any, context: Any) -> Any:
        if request.cursor is not UNSET and request.cursor.isdigit():
            request.cursor = str(int(request.cursor) + 1)
        return await super().describe(request, context)  # type: ignore[misc]


@breaks("INT-02", ref=REF)
class ReadsNoText:
    async def describe(self, request: Any, context: Any) -> Any:
        request.text = UNSET
        return await super().describe(request, context)  # type: ignore[misc]


@breaks("INT-03", ref=REF)
class BeginsAgainWithAnyCursor:
    async def describe(self, request: Any, context: Any) -> Any:
        if request.cursor is not UNSET and not request.cursor.isdigit():
            request.cursor = UNSET
        return await super().describe(request, context)  # type: ignore[misc]


@breaks("INT-04", ref=REF)
class StartsWhatNobodyKnows:
    async def trigger(self, request: Any, context: Any) -> Any:
        if request.name.startswith("nobody"):
            return contract.TriggerResult(id="run-1", status="completed")
        return await super().trigger(request, context)  # type: ignore[misc]


@breaks("INT-05", ref=REF)
class LeavesNullOut:
    async def trigger(self, request: Any, context: Any) -> Any:
        if isinstance(request.payload, dict):
            request.payload = {name: value for name, value in request.payload.items() if value is not None}
        return await super().trigger(request, context)  # type: ignore[misc]


@breaks("INT-06", ref=REF)
class ChecksNothing:
    async def test(self, request: Any, context: Any) -> Any:
        result = await super().test(request, context)  # type: ignore[misc]
        for check in result.checks:
            check.status = "skipped" if check.status == "passed" else check.status
        return result


class _CallsItOtherwise:
    """Its checks fail with another code."""

    code, other = "", ""

    async def test(self, request: Any, context: Any) -> Any:
        result = await super().test(request, context)  # type: ignore[misc]
        for check in result.checks:
            check.code = self.other if check.code == self.code else check.code
        return result


@breaks("INT-07", ref=REF)
class UnreachableIsInternal(_CallsItOtherwise):
    code, other = "unavailable", "internal"


@breaks("INT-08", ref=REF)
class WrongTokensAreForbidden(_CallsItOtherwise):
    code, other = "unauthenticated", "permission_denied"


@breaks("INT-09", ref=REF)
class LostAnswersMayBeRepeated:
    async def trigger(self, request: Any, context: Any) -> Any:
        try:
            return await super().trigger(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is ErrorCode.OUTCOME_UNKNOWN:
                raise ProviderError(ErrorCode.UNAVAILABLE, "Try again.") from error
            raise
