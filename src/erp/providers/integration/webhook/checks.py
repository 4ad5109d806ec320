"""Whether the store and the endpoints work: health and the steps of a test."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from erp.contracts.models.integration import Check, TestResult, TriggerRequest
from erp.providers.integration.webhook import endpoints, messages
from erp.providers.integration.webhook.deliveries import Task
from erp.providers.integration.webhook.endpoints import CONFIGURED, Target
from erp.providers.integration.webhook.outcomes import Outcome
from erp.providers.integration.webhook.sender import MEANING, Sender
from erp.runtime.spi import UNSET, CallContext, Dependency, Health, ProviderError
from erp.vendor_clients.group_commit import GroupCommit
from erp.vendor_clients.guarded_http import GuardedHttp

TEST_EVENT = "erp.test"
MAX_TESTED = 10
"""Endpoints a test delivers to, the oldest first."""


class Checks:
    """Asks and tells; changes nothing."""

    def __init__(
        self,
        store: GroupCommit,
        http: GuardedHttp,
        sender: Sender,
        *,
        url: str | None,
        clock: Callable[[], float],
        timeout_seconds: float,
        place: str,
    ) -> None:
        """``url`` is that of the configuration."""
        self._store = store
        self._http = http
        self._sender = sender
        self._url = url
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._place = place

    async def health(self) -> Health:
        """Read the store and connect to the configured endpoint, sending nothing."""
        started = time.monotonic()
        failing = await self._store.run(endpoints.failing)
        made = Health(status="ok", latency_ms=round((time.monotonic() - started) * 1000, 3))
        if self._url is not None:
            check = await _checked("endpoint", self._http.probe(self._url))
            is_up = check.status == "passed"
            endpoint = Dependency(
                name="endpoint",
                status="ok" if is_up else "down",
                latency_ms=check.duration_ms or 0.0,
                message=check.message,
            )
            made.dependencies.append(endpoint)
            made.latency_ms += check.duration_ms or 0.0
            if not is_up:
                made.status, made.message = "down", check.message
        if failing and made.status == "ok":
            made.status, made.message = (
                "degraded",
                f"Deliveries fail to {len(failing)} endpoints: {', '.join(failing[:5])}.",
            )
        return made

    async def test(self, context: CallContext) -> TestResult:
        """Connect to each endpoint, then deliver a message of type ``erp.test``, also where no filter lists it."""
        now = self._clock()
        rows = await self._store.run(lambda open_: endpoints.enabled(open_, MAX_TESTED))
        if not rows:
            message = "There is no enabled endpoint to deliver to."
            return TestResult(ok=True, checks=[Check(name="delivered", status="skipped", message=message)])
        checks: list[Check] = []
        for row in rows:
            checks += await self._tested(endpoints.target(row, now), context)
        return TestResult(ok=all(check.status != "failed" for check in checks), checks=checks)

    async def _tested(self, target: Target, context: CallContext) -> list[Check]:
        suffix = "" if target.id == CONFIGURED else f" {target.id}"
        reached = await _checked(f"reachable{suffix}", self._http.probe(target.url))
        if reached.status == "failed":
            return [reached, Check(name=f"delivered{suffix}", status="skipped")]
        new = messages.new_message(TriggerRequest(name=TEST_EVENT, payload={}), self._place, context, self._clock())
        task = Task(0, new.id, new.body, new.traceparent, target, due_at=None)
        seconds = min(self._timeout_seconds, context.remaining_seconds() - 0.5)
        return [reached, _delivered(f"delivered{suffix}", await self._sender.attempt(task, max(seconds, 0.05)))]


def _delivered(name: str, outcome: Outcome) -> Check:
    if outcome.code is None:
        return Check(name=name, status="passed", duration_ms=outcome.duration_ms)
    message = outcome.message or UNSET
    return Check(name=name, status="failed", code=outcome.code, message=message, duration_ms=outcome.duration_ms)


async def _checked(name: str, step: Awaitable[Any]) -> Check:
    started = time.monotonic()
    check = Check(name=name, status="passed")
    try:
        await step
    except tuple(MEANING) as error:
        check = Check(name=name, status="failed", code=MEANING[type(error)].value, message=str(error))
    except ProviderError as error:
        check = Check(name=name, status="failed", code=error.code.value, message=error.message)
    check.duration_ms = round((time.monotonic() - started) * 1000, 3)
    return check
