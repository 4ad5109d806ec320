"""How a business service reaches providers: through the same pipeline, as its tenant."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import effects
from erp.runtime.call import Call
from erp.runtime.calls import Calls
from erp.runtime.context import Actor, CallContext, EmittedEvent
from erp.runtime.ports import AuditEntry, Completion
from erp.telemetry.ids import continued, new_request_id

if TYPE_CHECKING:
    from erp.runtime.ports import Journal


def service_actor(service: str, tenant: str) -> Actor:
    """Return the actor a service of the layer acts as."""
    return Actor(id=f"service:{service}", tenant=tenant, roles=frozenset({"service"}), kind="service")


def service_context(calls: Calls, journal: Journal, *, service: str, tenant: str, seconds: float) -> CallContext:
    """Return a context for work a service does on its own (no caller waits for it)."""
    context = CallContext(
        tenant=tenant,
        actor=service_actor(service, tenant),
        request_id=new_request_id(),
        deadline=time.monotonic() + seconds,
        traceparent=continued(None),
    )
    equip(context, calls, journal, service)
    return context


def equip(context: CallContext, calls: Calls, journal: Journal, service: str) -> None:
    """Give ``context`` its ``invoke`` and ``publish``."""
    reach = _Reach(context, calls, journal, service)
    context.invoke = reach.invoke
    context.publish = reach.publish


class _Reach:
    """What one service call can reach."""

    def __init__(self, context: CallContext, calls: Calls, journal: Journal, service: str) -> None:
        self._context = context
        self._calls = calls
        self._journal = journal
        self._service = service

    async def invoke(
        self,
        domain: str,
        action: str,
        request: Any,
        *,
        idempotency_key: str | None = None,
        provider: str | None = None,
        connection: str | None = None,
    ) -> Any:
        """Call the tenant's provider of ``domain`` and return the typed result.

        Raises:
            ProviderError: from the call, or ``unsupported`` when the tenant has no
                provider for ``domain``.
        """
        provider, connection = await self._target(domain, provider, connection)
        context = self._context
        call = Call(
            action=self._calls.plans.catalog.action("providers", domain, action),
            actor=service_actor(self._service, context.tenant),
            provider=provider,
            connection=connection,
            request=request,
            request_id=context.request_id,
            traceparent=continued(context.traceparent),
            parent=context.traceparent,
            idempotency_key=idempotency_key,
            timeout_seconds=max(context.remaining_seconds(), 0.001),
        )
        try:
            answer = await self._calls.invoke(call)
        finally:
            if call.context is not None:
                context.provider_seconds += call.context.provider_seconds
        if answer.replayed:
            return msgspec.json.decode(answer.data, type=call.action.result_type)
        return answer.result

    async def _target(self, domain: str, provider: str | None, connection: str | None) -> tuple[str, str]:
        if provider is not None:
            return provider, connection or "default"
        chosen = await self._calls.plans.default_of(self._context.tenant, domain)
        if chosen is None:
            raise ProviderError(
                ErrorCode.UNSUPPORTED,
                f'The tenant has no provider for the domain {domain}. Configure one with "default": true.',
            )
        return chosen[0], connection or chosen[1]

    async def publish(
        self,
        event: str,
        data: dict[str, Any],
        *,
        key: str | None = None,
        id: str | None = None,  # noqa: A002  (the CloudEvents attribute is called id)
    ) -> None:
        """Put an event of the service in the outbox; return when it is durable."""
        context = self._context
        emitted = EmittedEvent(name=event, data=data, key=key, id=id, subject=key)
        wrapped = effects.service_event(
            self._service, context.tenant, emitted, new_request_id(), context.traceparent or ""
        )
        audit = AuditEntry(
            tenant=context.tenant,
            actor=f"service:{self._service}",
            action=f"{self._service}.publish",
            target=wrapped.topic,
            outcome="ok",
            reason="announced",
            request_id=context.request_id,
            time=effects.now(),
            effect="write",
            traceparent=context.traceparent,
        )
        await self._journal.complete(Completion(audit=audit, events=[wrapped]))
