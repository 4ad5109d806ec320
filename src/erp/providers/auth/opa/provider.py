"""Decisions of an Open Policy Agent."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import msgspec

from erp.contracts.models import auth as contract
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    Dependency,
    ErrorCode,
    ErrorTable,
    Health,
    OpenContext,
    ProviderError,
)
from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.guarded_http import (
    Answer,
    AnswerLostError,
    AnswerTimedOutError,
    ConnectFailedError,
    GuardedHttp,
    HttpLimits,
)

_MEANING: ErrorTable = {
    EgressRefusedError: ErrorCode.FAILED_PRECONDITION,
    ConnectFailedError: ErrorCode.UNAVAILABLE,
    AnswerLostError: ErrorCode.UNAVAILABLE,
    AnswerTimedOutError: ErrorCode.TIMEOUT,
}
_FAILURES: tuple[type[BaseException], ...] = (*_MEANING, ProviderError)
_STATUSES = {401: ErrorCode.UNAUTHENTICATED, 403: ErrorCode.UNAUTHENTICATED, 429: ErrorCode.UNAVAILABLE}
_OK = 200
_FIRST_SERVER_ERROR = 500


class OpenPolicyAgent:
    """Whatever is no clear decision allows nothing."""

    translate: ClassVar[ErrorTable] = _MEANING

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._config = config
        self._tenant = context.tenant
        self._http: GuardedHttp | None = None

    async def open(self) -> None:
        """Ask once, without an input: whether the agent is there and lets us in."""
        seconds = float(self._config.get("timeout_seconds", 2))
        try:
            http = GuardedHttp(EgressRule.from_environment(), limits=HttpLimits(total_seconds=seconds))
            http.check_url(self._config["url"])
        except (EgressRefusedError, ValueError) as error:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
        self._http = http
        try:
            await self._ask("GET")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    async def health(self) -> Health:
        """Ask for the document now."""
        started = time.monotonic()
        try:
            await self._ask("GET")
        except _FAILURES as error:
            agent = Dependency(name="agent", status="down", message=str(error))
            return Health(status="down", dependencies=[agent], message=str(error))
        milliseconds = round((time.monotonic() - started) * 1000, 3)
        return Health(
            status="ok",
            latency_ms=milliseconds,
            dependencies=[Dependency(name="agent", status="ok", latency_ms=milliseconds)],
        )

    async def evaluate(self, request: contract.EvaluateRequest, context: CallContext) -> contract.EvaluateResult:  # noqa: ARG002
        """Ask with the tenant beside what the request says: no request can name another one."""
        input_ = {
            "tenant": self._tenant,
            "subject": _entity(request.subject),
            "action": {"name": request.action},
            "resource": _entity(request.resource),
            "context": {} if request.context is UNSET else request.context,
        }
        return _decision(await self._ask("POST", msgspec.json.encode({"input": input_})))

    async def _ask(self, method: str, body: bytes = b"") -> dict[str, Any]:
        if self._http is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The provider is not open.", retry_after_seconds=1.0)
        headers = {"content-type": "application/json"}
        if token := self._config.get("token"):
            headers["authorization"] = f"Bearer {token}"
        url = f"{self._config['url'].rstrip('/')}/v1/data/{self._config['decision']}"
        return _document(await self._http.send(method, url, headers=headers, body=body))


def _document(answer: Answer) -> dict[str, Any]:
    if answer.status != _OK:
        is_down = answer.status >= _FIRST_SERVER_ERROR
        code = ErrorCode.UNAVAILABLE if is_down else _STATUSES.get(answer.status, ErrorCode.FAILED_PRECONDITION)
        raise ProviderError(code, f"The agent answered with status {answer.status}: there is no decision.")
    try:
        return msgspec.json.decode(answer.body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProviderError(ErrorCode.UNAVAILABLE, "The agent answered no JSON object.") from error


def _decision(document: dict[str, Any]) -> contract.EvaluateResult:
    """Read a decision; an undefined document (no ``result``) allows nothing.

    Source: https://www.openpolicyagent.org/docs/rest-api#get-a-document-with-input
    """
    match document.get("result"):
        case bool(allow):
            return contract.EvaluateResult(decision=allow, reason="the policy says so")
        case {"allow": bool(allow), **more}:
            reason = more.get("reason")
            return contract.EvaluateResult(
                decision=allow, reason=reason if isinstance(reason, str) else "the policy says so"
            )
        case None:
            return contract.EvaluateResult(decision=False, reason="the policy does not say")
    message = "The document is no decision: it must be a boolean, or an object with allow (boolean) and reason (text)."
    raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)


def _entity(entity: contract.Entity) -> dict[str, Any]:
    properties = {} if entity.properties is UNSET else entity.properties
    return {"type": entity.type, "id": entity.id, "properties": properties}
