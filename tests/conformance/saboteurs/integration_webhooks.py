"""Webhooks that break one rule of endpoints or deliveries each."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from typing import Any

from tests.conformance.saboteur import breaks
from tests.conformance.saboteurs.bus import Shared

from erp.contracts.models import integration as contract
from erp.runtime.spi import UNSET, ErrorCode, ProviderError
from erp.vendor_clients.guarded_http import AnswerLostError, AnswerTimedOutError

REF = "integration/webhook"


class _Tampers:
    """What it sends, or what comes back, is not as it should be."""

    async def open(self) -> None:
        await super().open()  # type: ignore[misc]
        http: Any = vars(self)["_http"]
        self.untouched = http.send
        http.send = self._send

    async def _send(self, method: str, url: str, **request: Any) -> Any:
        return await self.untouched(method, url, **request)


class _ReadsAnotherStatus(_Tampers):
    statuses: frozenset[int] = frozenset()
    other = 0

    async def _send(self, method: str, url: str, **request: Any) -> Any:
        answer = await super()._send(method, url, **request)
        return dataclasses.replace(answer, status=self.other) if answer.status in self.statuses else answer


@breaks("INT-50", ref=REF, also=("INT-56", "INT-74"))
class SignsAnotherTime(_Tampers):
    async def _send(self, method: str, url: str, **request: Any) -> Any:
        sent_at = int(request["headers"]["webhook-timestamp"]) - 1
        request["headers"] = {**request["headers"], "webhook-timestamp": str(sent_at)}
        return await super()._send(method, url, **request)


@breaks("INT-51", ref=REF)
class ForgetsTheKey:
    async def trigger(self, request: Any, context: Any) -> Any:
        context.idempotency_key = None
        return await super().trigger(request, context)  # type: ignore[misc]


@breaks("INT-52", ref=REF)
class KeepsTheFirstFilter:
    async def update_endpoint(self, request: Any, context: Any) -> Any:
        request.event_types = UNSET
        return await super().update_endpoint(request, context)  # type: ignore[misc]


@breaks("INT-53", ref=REF)
class SkipsBetweenPages:
    async def list_endpoints(self, request: Any, context: Any) -> Any:
        if request.cursor is not UNSET:
            request.cursor = str(int(request.cursor) + 1)
        return await super().list_endpoints(request, context)  # type: ignore[misc]


@breaks("INT-54", ref=REF)
class DisablesInSilence:
    async def update_endpoint(self, request: Any, context: Any) -> Any:
        result = await super().update_endpoint(request, context)  # type: ignore[misc]
        context.emitted.clear()
        return result


@breaks("INT-55", ref=REF)
class DeletesWhatIsNotThere:
    async def delete_endpoint(self, request: Any, context: Any) -> Any:
        await super().delete_endpoint(request, context)  # type: ignore[misc]
        return contract.DeleteEndpointResult(deleted=True)


@breaks("INT-56", ref=REF)
class KnowsNoGrace:
    async def rotate_endpoint_secret(self, request: Any, context: Any) -> Any:
        request.grace_seconds = 0
        return await super().rotate_endpoint_secret(request, context)  # type: ignore[misc]


@breaks("INT-57", ref=REF)
class ChangesToAnyAddress:
    async def update_endpoint(self, request: Any, context: Any) -> Any:
        try:
            return await super().update_endpoint(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is not ErrorCode.FAILED_PRECONDITION:
                raise
        request.url = UNSET
        return await super().update_endpoint(request, context)  # type: ignore[misc]


@breaks("INT-58", ref=REF)
class LeavesTheUserOut:
    async def create_endpoint(self, request: Any, context: Any) -> Any:
        request.url = request.url.replace("user:word@", "")
        return await super().create_endpoint(request, context)  # type: ignore[misc]


@breaks("INT-59", ref=REF)
class TakesRedirectsForAYes(_ReadsAnotherStatus):
    statuses, other = frozenset({301, 302, 303, 307, 308}), 204


@breaks("INT-60", ref=REF)
class KnowsNoRate:
    async def create_endpoint(self, request: Any, context: Any) -> Any:
        request.max_per_second = UNSET
        return await super().create_endpoint(request, context)  # type: ignore[misc]


@breaks("INT-61", ref=REF)
class GoneComesBack(_ReadsAnotherStatus):
    statuses, other = frozenset({410}), 500


@breaks("INT-62", ref=REF)
class OneAfterTheOther(_Tampers):
    async def _send(self, method: str, url: str, **request: Any) -> Any:
        async with vars(self).setdefault("lock", asyncio.Lock()):
            return await super()._send(method, url, **request)


@breaks("INT-63", ref=REF, also=("INT-76", "INT-82", "INT-94", "INT-97"))
class TenantsShareEndpoints(Shared):
    """Its tenants meet in one store."""


@breaks("INT-70", ref=REF, also=("INT-61",))
class FailsInSilence:
    async def trigger(self, request: Any, context: Any) -> Any:
        result = await super().trigger(request, context)  # type: ignore[misc]
        context.emitted.clear()
        return result


@breaks("INT-71", ref=REF)
class IsImpatient(_Tampers):
    async def _send(self, method: str, url: str, **request: Any) -> Any:
        answer = await super()._send(method, url, **request)
        return dataclasses.replace(answer, headers={})


@breaks("INT-72", ref=REF)
class ShowsTheLastAttemptFirst:
    async def get_delivery(self, request: Any, context: Any) -> Any:
        result = await super().get_delivery(request, context)  # type: ignore[misc]
        result.attempts.reverse()
        return result


@breaks("INT-73", ref=REF)
class ListsTheOldestFirst:
    async def list_deliveries(self, request: Any, context: Any) -> Any:
        result = await super().list_deliveries(request, context)  # type: ignore[misc]
        result.deliveries.reverse()
        return result


@breaks("INT-74", ref=REF)
class RecoversInSilence:
    async def resend_delivery(self, request: Any, context: Any) -> Any:
        result = await super().resend_delivery(request, context)  # type: ignore[misc]
        context.emitted.clear()
        return result


@breaks("INT-75", ref=REF)
class PretendsToSend:
    async def resend_delivery(self, request: Any, context: Any) -> Any:
        try:
            return await super().resend_delivery(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is not ErrorCode.FAILED_PRECONDITION:
                raise
        attempt = contract.Attempt(number=2, at=datetime.datetime.now(datetime.UTC), status="delivered")
        return contract.ResendDeliveryResult(attempt=attempt)


@breaks("INT-76", ref=REF)
class UnknownIsNotReady:
    async def resend_delivery(self, request: Any, context: Any) -> Any:
        try:
            return await super().resend_delivery(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND:
                raise ProviderError(ErrorCode.FAILED_PRECONDITION, error.message) from error
            raise


@breaks("INT-77", ref=REF)
class SlowIsLost(_Tampers):
    async def _send(self, method: str, url: str, **request: Any) -> Any:
        try:
            return await super()._send(method, url, **request)
        except AnswerTimedOutError as error:
            raise AnswerLostError("Lost.") from error


@breaks("INT-80", ref=REF)
class CountsOneMore:
    async def replay_deliveries(self, request: Any, context: Any) -> Any:
        result = await super().replay_deliveries(request, context)  # type: ignore[misc]
        result.scheduled += request.select == "failed"
        return result


@breaks("INT-81", ref=REF)
class ReplaysAllForTheMissing:
    async def replay_deliveries(self, request: Any, context: Any) -> Any:
        request.select = "all" if request.select == "missing" else request.select
        return await super().replay_deliveries(request, context)  # type: ignore[misc]


@breaks("INT-82", ref=REF)
class ReplaysWithoutEnd:
    async def replay_deliveries(self, request: Any, context: Any) -> Any:
        request.created_until = UNSET
        return await super().replay_deliveries(request, context)  # type: ignore[misc]


@breaks("INT-83", ref=REF)
class ReplaysNothingToTheDisabled:
    async def replay_deliveries(self, request: Any, context: Any) -> Any:
        try:
            return await super().replay_deliveries(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is ErrorCode.FAILED_PRECONDITION:
                return contract.ReplayDeliveriesResult(scheduled=0)
            raise
