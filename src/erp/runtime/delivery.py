"""Carries events from the outbox to the bus provider of their tenant."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from erp.contracts.models.bus import CloudEvent, PublishRequest
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.call import Call
from erp.runtime.calls import Calls
from erp.runtime.service_calls import service_actor
from erp.telemetry.ids import continued, new_request_id

if TYPE_CHECKING:
    from erp.runtime.ports import OutboxEvent

RELAY = "relay"


class BusDelivery:
    """Publishes outbox events through the pipeline, as the tenant they belong to."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def deliver(self, event: OutboxEvent) -> None:
        """Publish ``event`` on the tenant's bus; the bus deduplicates by its id.

        Raises:
            ProviderError: the event has to be delivered again later.
        """
        chosen = await self._calls.plans.default_of(event.tenant, "bus")
        if chosen is None:
            message = "The tenant has no provider for the domain bus."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        await self._calls.invoke(
            Call(
                action=self._calls.plans.catalog.action("providers", "bus", "publish"),
                actor=service_actor(RELAY, event.tenant),
                provider=chosen[0],
                connection=chosen[1],
                request=PublishRequest(topic=event.topic, event=cloud_event(event), key=_or_unset(event.key)),
                request_id=new_request_id(),
                traceparent=continued(event.traceparent),
                parent=event.traceparent,
            )
        )


def cloud_event(event: OutboxEvent) -> CloudEvent:
    """Return an event of the outbox as it goes over the wire (CloudEvents 1.0)."""
    return CloudEvent(
        id=event.id,
        source=event.source,
        type=event.type,
        subject=_or_unset(event.subject),
        time=datetime.datetime.fromisoformat(event.time),
        datacontenttype="application/json",
        traceparent=_or_unset(event.traceparent),
        data=event.data,
    )


def _or_unset(value: str | None) -> Any:
    return UNSET if value is None else value
