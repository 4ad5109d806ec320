"""One attempt: sign, send, understand the answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from erp.providers.integration.webhook.answers import refusal
from erp.providers.integration.webhook.deliveries import Task
from erp.providers.integration.webhook.endpoints import CONFIGURED
from erp.providers.integration.webhook.keys import Keys
from erp.providers.integration.webhook.outcomes import Outcome
from erp.runtime.spi import ErrorCode, ErrorTable, ProviderError
from erp.vendor_clients.egress import EgressRefusedError
from erp.vendor_clients.guarded_http import (
    Answer,
    AnswerLostError,
    AnswerTimedOutError,
    ConnectFailedError,
    GuardedHttp,
)
from erp.vendor_clients.standard_webhooks import SigningKeys

MEANING: ErrorTable = {
    EgressRefusedError: ErrorCode.FAILED_PRECONDITION,
    ConnectFailedError: ErrorCode.UNAVAILABLE,
    AnswerLostError: ErrorCode.UNAVAILABLE,
    AnswerTimedOutError: ErrorCode.TIMEOUT,
}
ABORT_HEADER = "webhook-delivery"
ABORT = "abort-message"
"""An endpoint answers this with a failure to say that it never wants the message (as with Svix)."""
_EXCERPT_CHARACTERS = 1000


class Sender:
    """Makes attempts; never raises for what an endpoint does."""

    def __init__(
        self, http: GuardedHttp, keys: Keys, configured: SigningKeys | None, clock: Callable[[], float]
    ) -> None:
        """``configured`` signs for the endpoint of the configuration."""
        self._http = http
        self._keys = keys
        self._configured = configured
        self._clock = clock

    async def attempt(self, task: Task, timeout_seconds: float) -> Outcome:
        """Send ``task`` once.

        Raises:
            ProviderError: the secrets cannot be read now; nothing was sent.
        """
        at, started = self._clock(), time.monotonic()
        try:
            answer = await self._sent(task, at, timeout_seconds)
        except tuple(MEANING) as error:
            return Outcome(at, _passed(started), code=MEANING[type(error)].value, message=str(error))
        except ProviderError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            message = "The secret of the endpoint is gone; give it a new one with rotate_endpoint_secret."
            return Outcome(at, _passed(started), code=ErrorCode.FAILED_PRECONDITION.value, message=message)
        return _outcome(answer, at, _passed(started))

    async def _sent(self, task: Task, at: float, timeout_seconds: float) -> Answer:
        signing = await self._signing(task)
        headers = {"content-type": "application/json"}
        headers |= signing.headers(message_id=task.message_id, body=task.body, sent_at=at)
        if task.traceparent:
            headers["traceparent"] = task.traceparent
        url = task.endpoint.url
        return await self._http.send("POST", url, headers=headers, body=task.body, timeout_seconds=timeout_seconds)

    async def _signing(self, task: Task) -> SigningKeys:
        if task.endpoint.id == CONFIGURED and self._configured is not None:
            return self._configured
        return SigningKeys(await self._keys.all("endpoints", task.endpoint.id, task.endpoint.versions))


def _passed(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 3)


def _outcome(answer: Answer, at: float, duration_ms: float) -> Outcome:
    error = refusal(answer)
    excerpt = answer.body.decode(errors="replace")[:_EXCERPT_CHARACTERS] or None
    status = answer.status if 100 <= answer.status <= 599 else None  # noqa: PLR2004  (what the contract has a place for)
    if error is None:
        return Outcome(at, duration_ms, http_status=status, excerpt=excerpt)
    return Outcome(
        at,
        duration_ms,
        http_status=status,
        code=error.code.value,
        message=error.message,
        excerpt=excerpt,
        retry_after_seconds=error.retry_after_seconds,
        is_gone=answer.status == 410,  # noqa: PLR2004  (Gone)
        is_aborted=answer.headers.get(ABORT_HEADER, "").strip().lower() == ABORT,
    )
