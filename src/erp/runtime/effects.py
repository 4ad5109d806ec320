"""What effectful calls leave behind: claims, events, audit records, stored answers."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.runtime import call_policy
from erp.runtime.ports import AuditEntry, Claim, ClaimOutcome, Completion, OutboxEvent

if TYPE_CHECKING:
    from erp.runtime.call_policy import Rate
    from erp.runtime.calls import Answer, Call
    from erp.runtime.context import CallContext, EmittedEvent

_WITHOUT_EFFECT = frozenset(
    {
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.UNAUTHENTICATED,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.NOT_FOUND,
        ErrorCode.ALREADY_EXISTS,
        ErrorCode.CONFLICT,
        ErrorCode.FAILED_PRECONDITION,
        ErrorCode.RATE_LIMITED,
        ErrorCode.QUOTA_EXHAUSTED,
        ErrorCode.UNAVAILABLE,
        ErrorCode.UNSUPPORTED,
    }
)


_PROCESS = os.urandom(8).hex()
_attempts = itertools.count()
"""Numbers that, with the process, name one attempt: a system call for each would cost more than the rest."""


class StoredFailure(msgspec.Struct):
    """A failure that a repeated key has to see again."""

    code: str
    message: str
    errors: list[FieldError] = []


def now() -> str:
    """Return the present time in UTC as RFC 3339 text with microseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat()


def tenant_rate(overrides: Mapping[str, Any]) -> Rate:
    """Return the rate limit of a tenant over all its calls."""
    return call_policy.resolve("", {}, {key: value for key, value in overrides.items() if key == "rate"}).rate


def may_have_happened(failure: ProviderError) -> bool:
    """Whether a failed call may have taken effect."""
    return failure.code not in _WITHOUT_EFFECT


def claim(call: Call, request: bytes, *, reentrant: bool, window_seconds: int) -> Claim:
    """Claim the idempotency key of ``call``. Keys of services and of callers never meet."""
    target = target_of(call)
    scope = "s:" if call.actor.kind == "service" else "c:"
    fingerprint = hashlib.blake2b(request, digest_size=16, person=b"erp-request")
    fingerprint.update(f"{target}#{call.connection}".encode())
    return Claim(
        tenant=call.tenant,
        actor=call.actor.id,
        key=scope + (call.idempotency_key or ""),
        target=target,
        fingerprint=fingerprint.digest(),
        token=f"{_PROCESS}-{next(_attempts)}",
        reentrant=reentrant,
        window_seconds=window_seconds,
    )


def target_of(call: Call) -> str:
    """``cache/memory.set`` or ``order.submit``: what audit records and claims call the target."""
    action = call.action
    return action.ref if action.area == "services" else f"{action.group}/{call.provider}.{action.name}"


def settled(call: Call, outcome: ClaimOutcome) -> Answer:
    """Answer a call whose key was claimed before: replay, or refuse.

    ``draft-ietf-httpapi-idempotency-key-header`` section 2.7: 409 while the first request runs, 422
    when the key was used for another request.
    """
    from erp.runtime.calls import Answer

    if outcome.state == "replay":
        if outcome.status != 200:  # noqa: PLR2004  (HTTP OK)
            stored = msgspec.json.decode(outcome.body, type=StoredFailure)
            raise ProviderError(stored.code, stored.message, errors=stored.errors)
        return Answer(outcome.body, _provider_of(call), call.connection, replayed=True)
    if outcome.state == "in_flight":
        message = "The first request with this Idempotency-Key is still running."
        raise ProviderError(ErrorCode.CONFLICT, message, retry_after_seconds=1.0)
    if outcome.state == "mismatch":
        message = "This Idempotency-Key was used for another request. Use a new key for a new request."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, status=422)
    message = "The process that ran the first request with this key died; the request may have taken effect."
    raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, message)


def _provider_of(call: Call) -> str:
    return call.action.group if call.action.area == "services" else f"{call.action.group}/{call.provider}"


def completion(call: Call, context: CallContext, claim: Claim | None, data: bytes) -> Completion:
    """Describe a call that succeeded."""
    return Completion(
        audit=_audit(call, "ok", "done"),
        events=[outbox_event(call, event, number) for number, event in enumerate(context.emitted)],
        claim=claim,
        status=200,
        body=data,
    )


def failed(call: Call, claim: Claim | None, failure: ProviderError, *, keep: bool) -> Completion:
    """Describe a call that failed. ``keep``: a repeat of its key must see the failure, not run again."""
    code = failure.code if failure.code is ErrorCode.PARTIAL else ErrorCode.OUTCOME_UNKNOWN
    body = msgspec.json.encode(StoredFailure(code.value, failure.message, list(failure.errors))) if keep else b""
    return Completion(
        audit=_audit(call, failure.code.value, failure.message),
        claim=claim,
        status=code.spec.status if keep else 0,
        body=body,
        release=not keep,
    )


def gave_back(call: Call, claim: Claim | None, code: str) -> Completion:
    """Describe a call that was never tried."""
    return Completion(audit=_audit(call, code, "not tried"), claim=claim, release=True)


def refusal(call: Call, reason: str) -> AuditEntry:
    """Describe a call that policy refused."""
    return _audit(call, ErrorCode.PERMISSION_DENIED.value, reason)


def _audit(call: Call, outcome: str, reason: str) -> AuditEntry:
    return AuditEntry(
        tenant=call.tenant,
        actor=call.actor.id,
        action=call.action.ref,
        target=target_of(call),
        outcome=outcome,
        reason=reason,
        request_id=call.request_id,
        time=now(),
        effect=call.action.effect,
        traceparent=call.traceparent or None,
        detail=_detail(call),
    )


def _detail(call: Call) -> dict[str, str] | None:
    detail = {"connection": call.connection} if call.connection != "default" else {}
    if call.user is not None:
        detail["user"] = call.user
    return detail or None


def outbox_event(call: Call, event: EmittedEvent, number: int) -> OutboxEvent:
    """Wrap an emitted event for delivery (CloudEvents 1.0 attributes)."""
    action = call.action
    if action.area == "services":
        return service_event(action.group, call.tenant, event, f"{call.request_id}-{number}", call.traceparent)
    return provider_event(
        action.group, call.provider, call.tenant, event, f"{call.request_id}-{number}", call.traceparent
    )


def provider_event(
    domain: str, provider: str, tenant: str, event: EmittedEvent, fallback_id: str, traceparent: str
) -> OutboxEvent:
    """Wrap an event of a provider for delivery."""
    return OutboxEvent(
        tenant=tenant,
        id=event.id or fallback_id,
        topic=f"provider.events.{domain}.{provider}.{event.name}",
        type=f"erp.{domain}.{event.name}",
        source=f"/providers/{domain}/{provider}",
        time=now(),
        data=event.data,
        key=event.key,
        subject=event.subject,
        traceparent=traceparent or None,
    )


def service_event(service: str, tenant: str, event: EmittedEvent, fallback_id: str, traceparent: str) -> OutboxEvent:
    """Wrap an event of a service for delivery."""
    return OutboxEvent(
        tenant=tenant,
        id=event.id or fallback_id,
        topic=f"service.events.{service}.{event.name}",
        type=f"erp.{service}.{event.name}",
        source=f"/services/{service}",
        time=now(),
        data=event.data,
        key=event.key,
        subject=event.subject,
        traceparent=traceparent or None,
    )
