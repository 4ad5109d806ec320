"""What a trigger says: the message, its id, and what its deliveries mean for the caller."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from erp.contracts.models.integration import (
    DescribeRequest,
    DescribeResult,
    Description,
    RecordProblem,
    TriggerRequest,
    TriggerResult,
)
from erp.providers.integration.webhook import tables
from erp.providers.integration.webhook.deliveries import NewMessage, Planned
from erp.providers.integration.webhook.outcomes import Settled
from erp.runtime.spi import CallContext, ErrorCode


def message_id(name: str, place: str, context: CallContext) -> str:
    """The same for every attempt: the request stays, and so does the caller's key over requests.

    The name counts because one key may accompany several triggers of one piece of work. The actor does not: a
    retry may run under another one.
    """
    key = context.idempotency_key or context.request_id
    facts = f"{place}\0{name}\0{key}"
    return f"msg_{hashlib.sha256(facts.encode()).hexdigest()[:32]}"


def new_message(request: TriggerRequest, place: str, context: CallContext, now: float) -> NewMessage:
    """The message of a trigger; ``place`` tells tenants and connections apart."""
    occurred_at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    message: dict[str, Any] = {
        "type": request.name,
        "timestamp": occurred_at if request.occurred_at is UNSET else request.occurred_at,
        "data": None if request.payload is UNSET else request.payload,
    }
    if request.subject is not UNSET:
        message["subject"] = request.subject
    id_ = message_id(request.name, place, context)
    return NewMessage(id_, request.name, msgspec.json.encode(message), context.traceparent)


def result_of(id_: str, planned: Planned, settled: Sequence[Settled]) -> TriggerResult:
    """What the deliveries of a message mean for whoever triggered it.

    ``completed`` when every endpoint confirmed, ``accepted`` while one may still, ``failed`` when none will,
    ``skipped`` when none wants it.
    """
    statuses = dict(planned.waiting) | {item.endpoint: item.status for item in settled}
    if not statuses:
        return _without_delivery(id_, planned)
    found = set(statuses.values())
    if found & {"pending", "failing"}:
        return TriggerResult(id=id_, status="accepted", result=_details(statuses, settled))
    if "delivered" in found:
        return TriggerResult(id=id_, status="completed", result=_details(statuses, settled))
    return TriggerResult(id=id_, status="failed", result=_details(statuses, settled), problem=_problem(settled))


def _without_delivery(id_: str, planned: Planned) -> TriggerResult:
    if not planned.disabled:
        return TriggerResult(id=id_, status="skipped")
    message = (
        "Every endpoint that wants this name is disabled. Enable one with update_endpoint, then replay_deliveries."
    )
    problem = RecordProblem(code=ErrorCode.FAILED_PRECONDITION.value, message=message, retryable=False)
    return TriggerResult(id=id_, status="failed", problem=problem)


def _details(statuses: dict[str, Any], settled: Sequence[Settled]) -> dict[str, Any]:
    answered = {item.endpoint: item.attempt.http_status for item in settled}
    if len(statuses) == 1:
        [status] = [answered.get(endpoint, UNSET) for endpoint in statuses]
        return {} if status is UNSET else {"http_status": status}
    return {"deliveries": [{"endpoint": endpoint, "status": status} for endpoint, status in statuses.items()]}


def _problem(settled: Sequence[Settled]) -> RecordProblem:
    last = settled[-1].attempt if settled else None
    code = ErrorCode.FAILED_PRECONDITION.value if last is None or last.code is UNSET else last.code
    text = "The delivery was given up." if last is None or last.message is UNSET else last.message
    return RecordProblem(code=code, message=text, retryable=False)


def names_page(names: set[str], request: DescribeRequest, *, any_trigger: bool) -> DescribeResult:
    """The names endpoints ask for, page by page."""
    wanted = sorted(name for name in names if _wanted(name, request))
    start = tables.after(request.cursor)
    page = wanted[start : start + request.limit]
    items = [Description(kind="trigger", name=name) for name in page]
    result = DescribeResult(items=items, any_trigger=any_trigger)
    if start + request.limit < len(wanted):
        result.next_cursor = str(start + request.limit)
    return result


def _wanted(name: str, request: DescribeRequest) -> bool:
    if request.kind is not UNSET and request.kind != "trigger":
        return False
    if request.names is not UNSET and name not in request.names:
        return False
    return request.text is UNSET or request.text.lower() in name.lower()
