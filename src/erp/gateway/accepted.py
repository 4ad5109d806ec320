"""Operations on the wire: ``202 Accepted`` for ``Prefer: respond-async`` (RFC 7240), and what ``/operations`` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from erp.errors import Problem, ProviderError
from erp.gateway import answers
from erp.runtime.effects import target_text

if TYPE_CHECKING:
    from starlette.types import Scope, Send

    from erp.gateway.inbound import Inbound
    from erp.runtime.call import Call
    from erp.runtime.operation import Operation
    from erp.runtime.operations import OperationRunner

LONGEST_WAIT_SECONDS = 60.0
POLL_SECONDS = 1

_encode = msgspec.json.Encoder(decimal_format="string").encode


async def send(scope: Scope, send_to: Send, inbound: Inbound, operations: OperationRunner, call: Call) -> None:
    """Accept ``call``. Answer as the call itself when it ends within ``wait=n`` seconds, else with its operation, 202."""
    call.timeout_seconds = None  # wait=n is how long the answer may take, not the call
    operation = await operations.accept(call)
    wait = min(inbound.wait_seconds or 0.0, LONGEST_WAIT_SECONDS)
    if wait:
        operation = await operations.wait(call.tenant, operation.id, wait) or operation
    headers = [*answers.common_headers(inbound), *headers_of(operation), (b"preference-applied", b"respond-async")]
    headers += call.action.deprecation_headers
    status, body, content_type = _answer(operation)
    await answers.send(scope, send_to, status, body, content_type, headers)


def _answer(operation: Operation) -> tuple[int, bytes, bytes]:
    outcome = operation.outcome
    if outcome is not None and outcome.result is not None:
        return 200, outcome.result.encode(), answers.JSON
    if outcome is not None and outcome.problem is not None:
        status: int = msgspec.json.decode(outcome.problem)["status"]
        return status, outcome.problem.encode(), answers.PROBLEM
    return 202, _encode(shown(operation)), answers.JSON


def response(inbound: Inbound, operation: Operation) -> Response:
    """Return the answer to a request whose operation goes on."""
    lines = [*answers.common_headers(inbound), *headers_of(operation)]
    headers = {name.decode(): value.decode() for name, value in lines}
    return Response(_encode(shown(operation)), 202, headers=headers, media_type="application/json")


def failure(problem: str) -> ProviderError:
    """Return the failure that a problem document describes."""
    found = msgspec.json.decode(problem, type=Problem)
    return ProviderError(found.code, found.detail, errors=found.errors, status=found.status, retryable=found.retryable)


def headers_of(operation: Operation) -> answers.Headers:
    """Say where the operation is, and when to look again while it runs."""
    found = [(b"location", f"/operations/{operation.id}".encode())]
    return found if operation.ended_at is not None else [*found, (b"retry-after", b"%d" % POLL_SECONDS)]


def shown(operation: Operation) -> dict[str, Any]:
    """Return what answers show of an operation."""
    order = operation.order
    outcome = operation.outcome
    facts = {
        "started_at": operation.started_at,
        "ended_at": operation.ended_at,
        "progress": operation.progress,
        "result": _json(outcome.result) if outcome else None,
        "problem": _json(outcome.problem) if outcome else None,
    }
    return {
        "id": operation.id,
        "state": operation.state,
        "target": target_text(order.area, order.group, order.provider, order.name),
        "connection": order.connection,
        "actor": order.actor.id,
        "request_id": order.request_id,
        "created_at": operation.created_at,
        "cancel_wanted": operation.is_cancel_wanted,
        "attempts": operation.attempts,
        **{name: value for name, value in facts.items() if value is not None},
    }


def _json(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())
