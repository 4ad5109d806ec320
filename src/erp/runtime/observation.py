"""What is written down about every call: metrics, a log line, a span."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.runtime.effects import now
from erp.telemetry.call_log import CallLine

if TYPE_CHECKING:
    from erp.errors import ProviderError
    from erp.runtime.call import Answer, Call
    from erp.telemetry.call_log import CallLog
    from erp.telemetry.call_metrics import CallMetrics
    from erp.telemetry.trace import Spans

_log = logging.getLogger(__name__)
_PLATFORM_FAULTS = frozenset({ErrorCode.INTERNAL, ErrorCode.OUTCOME_UNKNOWN})


class Observer:
    """Writes down how calls ended."""

    def __init__(self, metrics: CallMetrics, log: CallLog, spans: Spans) -> None:
        self.metrics = metrics
        self.log = log
        self.spans = spans

    def observe(self, call: Call, seconds: float, answer: Answer | None, failure: ProviderError | None) -> None:
        """Note one ended call; never raises, never waits."""
        action = call.action
        target = action.group if action.area == "services" else f"{action.group}/{call.provider}"
        code = "ok" if failure is None else failure.code.value
        provider_seconds = call.context.provider_seconds if call.context is not None else 0.0
        self.metrics.series(call.tenant, target, action.name).observe(code, seconds, provider_seconds)
        if self.log.enabled:
            self._log(call, target, seconds, answer=answer, failure=failure)
        if self.spans.enabled and call.traceparent:
            self._span(call, target, seconds, failure)

    def _log(
        self, call: Call, target: str, seconds: float, *, answer: Answer | None, failure: ProviderError | None
    ) -> None:
        bad = failure is not None and failure.code in _PLATFORM_FAULTS
        if failure is not None and failure.code is ErrorCode.INTERNAL and failure.__cause__ is not None:
            _log.error("call %s failed in a way nobody foresaw", call.request_id, exc_info=failure.__cause__)
        provider_seconds = call.context.provider_seconds if call.context is not None else 0.0
        self.log.write(
            CallLine(
                level="error" if bad else "info",
                timestamp=now(),
                request_id=call.request_id,
                trace_id=call.traceparent[3:35],
                tenant=call.tenant,
                actor=call.actor.id,
                target=target,
                action=call.action.name,
                connection=call.connection,
                code="ok" if failure is None else failure.code.value,
                duration_ms=round(seconds * 1000, 3),
                provider_ms=round(provider_seconds * 1000, 3),
                detail=None if failure is None else failure.detail or failure.message,
                replayed=answer is not None and answer.replayed,
            )
        )

    def _span(self, call: Call, target: str, seconds: float, failure: ProviderError | None) -> None:
        end = time.time_ns()
        self.spans.record(
            call.action.ref,
            traceparent=call.traceparent,
            parent=call.parent,
            start_ns=end - int(seconds * 1e9),
            end_ns=end,
            attributes={
                "erp.tenant": call.tenant,
                "erp.target": target,
                "erp.connection": call.connection,
                "erp.request_id": call.request_id,
            },
            error=failure.code.value if failure is not None else None,
        )
