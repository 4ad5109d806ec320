"""The facts of one call, carried from the gateway to the provider and back."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NoReturn

import msgspec

from erp.runtime.call_policy import Rate

Invoke = Callable[..., Awaitable[Any]]
Publish = Callable[..., Awaitable[None]]


async def _not_a_service(*_: object, **__: object) -> NoReturn:
    message = "Only services call other providers or publish events; a provider emits them."
    raise RuntimeError(message)


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls: a person, a machine or a service of the layer itself."""

    id: str
    tenant: str
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    kind: Literal["key", "user", "service"] = "key"
    elevated: str = ""
    """A further role, for a while (break-glass)."""
    elevation: str = ""
    """Which elevation it is by."""
    key: str = ""
    """Id of the API key it came with, when the key has a rate limit of its own."""
    rate: Rate | None = None
    """That limit."""


class EmittedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event a provider or service announced during a call; delivered through the outbox."""

    name: str
    data: dict[str, Any]
    subject: str | None = None
    key: str | None = None
    id: str | None = None


class CallContext:
    """Facts of one call. The only place any code reads a tenant from."""

    __slots__ = (
        "actor",
        "connection",
        "deadline",
        "emitted",
        "idempotency_key",
        "invoke",
        "is_doubtful",
        "metadata",
        "on_report",
        "provider_seconds",
        "publish",
        "request_id",
        "tenant",
        "traceparent",
    )

    def __init__(  # noqa: PLR0913  (one argument per fact; callers pass them by name)
        self,
        *,
        tenant: str,
        actor: Actor,
        request_id: str,
        deadline: float,
        connection: str = "default",
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        metadata: dict[str, Any] | None = None,
        invoke: Invoke = _not_a_service,
        publish: Publish = _not_a_service,
    ) -> None:
        self.tenant = tenant
        self.actor = actor
        self.request_id = request_id
        self.deadline = deadline
        self.connection = connection
        self.idempotency_key = idempotency_key
        self.traceparent = traceparent
        self.metadata = metadata
        self.invoke = invoke
        """``await invoke(domain, action, request, *, idempotency_key=, provider=, connection=)``:
        call a provider through the whole pipeline as this tenant (services only)."""
        self.publish = publish
        """``await publish(event, data, *, key=, id=)``: put an event of the service in the durable
        outbox now; the same id is delivered once (services only)."""
        self.on_report: Callable[[float, str | None], None] | None = None
        self.is_doubtful = False
        """Whether an attempt before the last may have taken effect."""
        self.provider_seconds = 0.0
        self.emitted: list[EmittedEvent] = []

    def remaining_seconds(self) -> float:
        """Seconds left until the deadline (monotonic clock); zero or less when it has passed."""
        return self.deadline - time.monotonic()

    def report(self, fraction: float, message: str | None = None) -> None:
        """Say how far long work has come, from 0 to 1; shown by ``GET /operations/{id}``, free when nobody asks."""
        if self.on_report is not None:
            self.on_report(fraction, message)

    def emit(
        self,
        event: str,
        data: dict[str, Any],
        *,
        subject: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002  (the CloudEvents attribute is called id)
    ) -> None:
        """Announce an event of the contract; it is delivered only if the call succeeds.

        ``key`` orders events among each other; ``id`` makes the event deduplicable.
        """
        self.emitted.append(EmittedEvent(name=event, data=data, subject=subject, key=key, id=id))
