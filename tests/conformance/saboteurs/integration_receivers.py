"""Webhooks that break one rule of receiving each."""

from __future__ import annotations

from typing import Any

from tests.conformance.saboteur import breaks
from tests.conformance.saboteurs.bus import Shared

from erp.contracts.models import integration as contract
from erp.runtime.spi import UNSET, ErrorCode, ProviderError

REF = "integration/webhook"
CONFIRMED = 204


@breaks("INT-85", ref=REF)
class AnnouncesNoEmptyList:
    async def receive(self, request: Any, context: Any) -> Any:
        result = await super().receive(request, context)  # type: ignore[misc]
        if request.body == b"[]":
            context.emitted.clear()
        return result


@breaks("INT-86", ref=REF)
class ReceivesRepetitions:
    async def receive(self, request: Any, context: Any) -> Any:
        result = await super().receive(request, context)  # type: ignore[misc]
        if not result.messages:
            result.messages = [contract.ReceivedMessage(id="again", name="again", payload=None)]
        return result


@breaks("INT-87", ref=REF)
class TrustsTheSilent:
    async def receive(self, request: Any, context: Any) -> Any:
        if not request.headers:
            return contract.ReceiveResult(messages=[], reply_status=CONFIRMED)
        return await super().receive(request, context)  # type: ignore[misc]


@breaks("INT-88", ref=REF)
class TakesOldMessages:
    async def receive(self, request: Any, context: Any) -> Any:
        try:
            return await super().receive(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if "too old" in error.message:
                return contract.ReceiveResult(messages=[], reply_status=CONFIRMED)
            raise


@breaks("INT-89", ref=REF)
class GivesASecondName:
    async def create_receiver(self, request: Any, context: Any) -> Any:
        try:
            return await super().create_receiver(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is not ErrorCode.ALREADY_EXISTS:
                raise
        request.name += "-2"
        return await super().create_receiver(request, context)  # type: ignore[misc]


@breaks("INT-90", ref=REF)
class IsAlwaysOpen:
    async def update_receiver(self, request: Any, context: Any) -> Any:
        request.enabled = UNSET
        return await super().update_receiver(request, context)  # type: ignore[misc]


@breaks("INT-91", ref=REF)
class KeepsItsPath:
    async def update_receiver(self, request: Any, context: Any) -> Any:
        request.new_path = False
        return await super().update_receiver(request, context)  # type: ignore[misc]


@breaks("INT-92", ref=REF)
class KnowsNoGrace:
    async def update_receiver(self, request: Any, context: Any) -> Any:
        request.grace_seconds = 0
        return await super().update_receiver(request, context)  # type: ignore[misc]


@breaks("INT-93", ref=REF)
class DeletesWhatIsNotThere:
    async def delete_receiver(self, request: Any, context: Any) -> Any:
        await super().delete_receiver(request, context)  # type: ignore[misc]
        return contract.DeleteReceiverResult(deleted=True)


@breaks("INT-94", ref=REF, also=("INT-97", "INT-63", "INT-76", "INT-82"))
class TenantsShareReceivers(Shared):
    """Its tenants meet in one store."""


@breaks("INT-95", ref=REF)
class ListsNoRepetitions:
    async def list_received(self, request: Any, context: Any) -> Any:
        result = await super().list_received(request, context)  # type: ignore[misc]
        result.received = [one for one in result.received if one.status != "repeated"]
        return result


@breaks("INT-96", ref=REF)
class ReplaysBackwards:
    async def replay_received(self, request: Any, context: Any) -> Any:
        result = await super().replay_received(request, context)  # type: ignore[misc]
        context.emitted.reverse()
        return result


@breaks("INT-97", ref=REF)
class NobodyReceivedNothing:
    async def replay_received(self, request: Any, context: Any) -> Any:
        try:
            return await super().replay_received(request, context)  # type: ignore[misc]
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return contract.ReplayReceivedResult(published=0)
            raise
