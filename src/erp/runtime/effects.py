"""What effectful calls leave behind: claims, events, audit records, stored answers."""

from __future__ import annotations

import asyncio
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
from erp.runtime.marks import unmarked
from erp.runtime.ports import AuditEntry, Claim, ClaimOutcome, Completion, OutboxEvent

if TYPE_CHECKING:
    from erp.runtime.call import Answer, Call
    from erp.runtime.call_policy import Rate
    from erp.runtime.context import CallContext, EmittedEvent

MAX_KEY_LENGTH = 255

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


_attempts = itertools.count()
"""Numbers that, with the process, name one attempt: a system call for each would cost more than the rest."""


class _Process:
    """The name of this process. A forked child has another one: two processes with one name would win each other's claims."""

    name = os.urandom(8).hex()

    @classmethod
    def rename(cls) -> None:
        cls.name = os.urandom(8).hex()


os.register_at_fork(after_in_child=_Process.rename)


_OF_AN_EARLIER_RUN = frozenset(
    {ErrorCode.ALREADY_EXISTS, ErrorCode.CONFLICT, ErrorCode.FAILED_PRECONDITION, ErrorCode.NOT_FOUND}
)


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


def of_a_second_run(failure: ProviderError) -> ProviderError:
    """Return what a call that was cut off and run again failed with.

    What its first run has done may be the very reason: an object that it was to create is there already.
    """
    if failure.code not in _OF_AN_EARLIER_RUN:
        return failure
    message = (
        f"The first run of this request was cut off and may have taken effect; the second one failed: {failure.message}"
    )
    made = ProviderError(ErrorCode.OUTCOME_UNKNOWN, message, detail=failure.detail, errors=failure.errors)
    made.__cause__ = failure
    return made


def check_key(key: str | None) -> None:
    """Raise ``invalid_argument`` when ``key`` is none that can be kept."""
    if key is not None and not (0 < len(key) <= MAX_KEY_LENGTH and key.isprintable()):
        raise ProviderError(
            ErrorCode.INVALID_ARGUMENT,
            f"The Idempotency-Key must be 1 to {MAX_KEY_LENGTH} printable characters.",
            errors=[FieldError("/headers/Idempotency-Key", "Use a UUID, for example.")],
        )


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
        token=f"{_Process.name}-{next(_attempts)}",
        reentrant=reentrant,
        window_seconds=window_seconds,
    )


def target_of(call: Call) -> str:
    """``cache/memory.set`` or ``order.submit``: what audit records and claims call the target."""
    return target_text(call.action.area, call.action.group, call.provider, call.action.name)


def target_text(area: str, group: str, provider: str, action: str) -> str:
    """Name the target of a call."""
    return f"{group}.{action}" if area == "services" else f"{group}/{provider}.{action}"


def settled(call: Call, outcome: ClaimOutcome) -> Answer:
    """Answer a call whose key was claimed before: replay, or refuse.

    ``draft-ietf-httpapi-idempotency-key-header`` section 2.7: 409 while the first request runs, 422
    when the key was used for another request.
    """
    from erp.runtime.call import Answer

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


def failed(
    call: Call, claim: Claim | None, failure: ProviderError, *, may_repeat: bool, is_second_run: bool = False
) -> Completion:
    """Describe a call that failed.

    A repeat of its key sees the failure again when it may have happened, unless it ``may_repeat``: then it runs again,
    and knows that it is not the first. What certainly changed nothing gives its key back.
    """
    is_in_doubt = is_second_run or may_have_happened(failure)
    audit = _audit(call, failure.code.value, unmarked(call, failure.message))
    if is_in_doubt and not may_repeat:
        code = failure.code if failure.code is ErrorCode.PARTIAL else ErrorCode.OUTCOME_UNKNOWN
        body = msgspec.json.encode(StoredFailure(code.value, failure.message, list(failure.errors)))
        return Completion(audit=audit, claim=claim, status=code.spec.status, body=body)
    return Completion(audit=audit, claim=claim, is_open=is_in_doubt, release=not is_in_doubt)


def gave_back(call: Call, claim: Claim | None, code: str, *, is_second_run: bool = False) -> Completion:
    """Describe a call that was not tried, or not a second time."""
    audit = _audit(call, code, "not tried")
    return Completion(audit=audit, claim=claim, is_open=is_second_run, release=not is_second_run)


def refusal(call: Call, reason: str) -> AuditEntry:
    """Describe a call that policy refused."""
    return _audit(call, ErrorCode.PERMISSION_DENIED.value, reason)


def elevated_read(call: Call) -> AuditEntry:
    """Describe a read of an elevated actor: of others, reads are not recorded."""
    return _audit(call, "ok", "read under break-glass")


def mirrored(call: Call, outcome: str) -> AuditEntry:
    """Describe an effect that a shadow route has mirrored."""
    return _audit(call, outcome, "mirrored")


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
    if call.served is not None:
        detail["served_by"] = "#".join(call.served)
    if call.user is not None:
        detail["user"] = call.user
    if call.actor.elevation:
        detail["break_glass"] = call.actor.elevation
    return detail or None


def outbox_event(call: Call, event: EmittedEvent, number: int) -> OutboxEvent:
    """Wrap an emitted event for delivery (CloudEvents 1.0 attributes)."""
    action = call.action
    if action.area == "services":
        return service_event(action.group, call.tenant, event, f"{call.request_id}-{number}", call.traceparent)
    provider = call.served[0] if call.served else call.provider
    return provider_event(action.group, provider, call.tenant, event, f"{call.request_id}-{number}", call.traceparent)


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


def unforeseen(error: BaseException) -> ProviderError:
    """Return what a failure that nobody foresaw is called."""
    made = ProviderError(
        ErrorCode.CANCELLED if isinstance(error, asyncio.CancelledError) else ErrorCode.INTERNAL,
        "The layer failed in a way it did not foresee.",
        detail=f"{type(error).__name__}: {error}",
    )
    made.__cause__ = error
    return made
