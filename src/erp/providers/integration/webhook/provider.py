"""Outgoing webhooks: one connection delivers to one endpoint."""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Awaitable
from typing import Any, ClassVar, Literal

import msgspec

from erp.contracts.models.integration import (
    Check,
    DescribeRequest,
    DescribeResult,
    Description,
    TestRequest,
    TestResult,
    TriggerRequest,
    TriggerResult,
)
from erp.providers.integration.webhook.answers import require_delivered
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    Dependency,
    ErrorCode,
    ErrorTable,
    FieldError,
    Health,
    OpenContext,
    ProviderError,
)
from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.guarded_http import (
    AnswerLostError,
    AnswerTimedOutError,
    ConnectFailedError,
    GuardedHttp,
    HttpLimits,
)
from erp.vendor_clients.standard_webhooks import InvalidSecretError, SigningKeys

TEST_EVENT = "erp.test"

_MAX_ANSWER_BYTES = 65_536
_MEANING: ErrorTable = {
    EgressRefusedError: ErrorCode.FAILED_PRECONDITION,
    ConnectFailedError: ErrorCode.UNAVAILABLE,
    AnswerLostError: ErrorCode.UNAVAILABLE,
    AnswerTimedOutError: ErrorCode.TIMEOUT,
}


class OutgoingWebhook:
    """Delivers each trigger as one signed POST.

    The ``webhook-id`` is the same however often a call is attempted or repeated with its idempotency key, so a
    receiver that drops ids it has seen acts once. With a key a lost answer is therefore safe to retry
    (``unavailable``, ``timeout``); without one it is ``outcome_unknown``.
    """

    translate: ClassVar[ErrorTable] = _MEANING

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._url: str = config["url"]
        self._secrets = [config[name] for name in ("secret", "previous_secret") if config.get(name)]
        self._event_types = frozenset(config.get("event_types", ()))
        self._timeout_seconds = float(config.get("timeout_seconds", 15))
        self._tenant = context.tenant
        self._connection = context.connection
        self._keys: SigningKeys | None = None
        self._http: GuardedHttp | None = None

    async def open(self) -> None:
        limits = HttpLimits(total_seconds=self._timeout_seconds, max_answer_bytes=_MAX_ANSWER_BYTES)
        try:
            http = GuardedHttp(EgressRule.from_environment(), limits=limits)
            http.check_url(self._url)
            self._keys = SigningKeys(self._secrets)
        except (EgressRefusedError, InvalidSecretError, ValueError) as error:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
        self._http = http

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def health(self) -> Health:
        """Connect to the endpoint (with TLS for https) and send nothing: whether it accepts messages shows only ``test``."""
        check = await _checked("endpoint", self._opened().probe(self._url))
        status: Literal["ok", "down"] = "ok" if check.status == "passed" else "down"
        latency_ms = check.duration_ms or 0.0
        endpoint = Dependency(name="endpoint", status=status, latency_ms=latency_ms, message=check.message)
        return Health(status=status, latency_ms=latency_ms, dependencies=[endpoint], message=check.message)

    async def trigger(self, request: TriggerRequest, context: CallContext) -> TriggerResult:
        message_id = self._message_id(request.name, context)
        if self._event_types and request.name not in self._event_types:
            return TriggerResult(id=message_id, status="skipped")
        try:
            status = await self._deliver(message_id, _message(request), context)
        except (AnswerLostError, AnswerTimedOutError) as error:
            code = ErrorCode.OUTCOME_UNKNOWN if context.idempotency_key is None else _MEANING[type(error)]
            raise ProviderError(code, str(error)) from error
        except (EgressRefusedError, ConnectFailedError) as error:
            raise ProviderError(_MEANING[type(error)], str(error)) from error
        return TriggerResult(id=message_id, status="completed", result={"http_status": status})

    async def describe(self, request: DescribeRequest, context: CallContext) -> DescribeResult:  # noqa: ARG002
        names = [name for name in sorted(self._event_types) if _wanted(name, request)]
        start = _position(request.cursor)
        page = names[start : start + request.limit]
        result = DescribeResult(
            items=[Description(kind="trigger", name=name) for name in page], any_trigger=not self._event_types
        )
        if start + request.limit < len(names):
            result.next_cursor = str(start + request.limit)
        return result

    async def test(self, request: TestRequest, context: CallContext) -> TestResult:  # noqa: ARG002
        """Connect, then deliver a message of type ``erp.test``, also when ``event_types`` does not list it."""
        reached = await _checked("reachable", self._opened().probe(self._url))
        if reached.status == "failed":
            return TestResult(ok=False, checks=[reached, Check(name="delivered", status="skipped")])
        message = _message(TriggerRequest(name=TEST_EVENT, payload={}))
        delivery = self._deliver(self._message_id(TEST_EVENT, context), message, context)
        delivered = await _checked("delivered", delivery)
        return TestResult(ok=delivered.status == "passed", checks=[reached, delivered])

    async def _deliver(self, message_id: str, body: bytes, context: CallContext) -> int:
        assert self._keys is not None  # noqa: S101  (set by open)
        headers = {"content-type": "application/json"} | self._keys.headers(message_id=message_id, body=body)
        if context.traceparent:
            headers["traceparent"] = context.traceparent
        seconds = min(self._timeout_seconds, context.remaining_seconds())
        answer = await self._opened().send("POST", self._url, headers=headers, body=body, timeout_seconds=seconds)
        require_delivered(answer)
        return answer.status

    def _message_id(self, name: str, context: CallContext) -> str:
        """The same for every attempt: the request stays, and so does the caller's key over requests.

        The name counts because one key may accompany several triggers of one piece of work. The actor does not: a
        retry may run under another one.
        """
        key = context.idempotency_key or context.request_id
        facts = f"{self._tenant}\0{self._connection}\0{name}\0{key}"
        return f"msg_{hashlib.sha256(facts.encode()).hexdigest()[:32]}"

    def _opened(self) -> GuardedHttp:
        if self._http is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The provider is not open.")
        return self._http


def _message(request: TriggerRequest) -> bytes:
    moment = datetime.datetime.now(tz=datetime.UTC) if request.occurred_at is UNSET else request.occurred_at
    message: dict[str, Any] = {"type": request.name, "timestamp": moment}
    message["data"] = None if request.payload is UNSET else request.payload
    if request.subject is not UNSET:
        message["subject"] = request.subject
    return msgspec.json.encode(message)


async def _checked(name: str, step: Awaitable[Any]) -> Check:
    started = time.monotonic()
    check = Check(name=name, status="passed")
    try:
        await step
    except (EgressRefusedError, ConnectFailedError, AnswerLostError, AnswerTimedOutError) as error:
        check = Check(name=name, status="failed", code=_MEANING[type(error)].value, message=str(error))
    except ProviderError as error:
        check = Check(name=name, status="failed", code=error.code.value, message=error.message)
    check.duration_ms = round((time.monotonic() - started) * 1000, 3)
    return check


def _wanted(name: str, request: DescribeRequest) -> bool:
    if request.kind is not UNSET and request.kind != "trigger":
        return False
    if request.names is not UNSET and name not in request.names:
        return False
    return request.text is UNSET or request.text.lower() in name.lower()


def _position(cursor: Any) -> int:
    if cursor is UNSET:
        return 0
    if not (cursor.isascii() and cursor.isdigit()):
        raise ProviderError(
            ErrorCode.INVALID_ARGUMENT,
            "The cursor is not one this provider gave.",
            errors=[FieldError("/params/cursor", "Use next_cursor of the page before.")],
        )
    return int(cursor)
