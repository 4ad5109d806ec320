"""OpenTelemetry spans of calls, when an exporter is configured."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

CLOSE_SECONDS = 2.0


class Spans:
    """Exports one span per call when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set; otherwise costs nothing."""

    def __init__(self, tracer: Tracer | None = None, close: Any = None) -> None:
        self._tracer = tracer
        self._close = close

    @property
    def enabled(self) -> bool:
        """Whether spans are exported."""
        return self._tracer is not None

    @classmethod
    def from_environment(cls) -> Spans:
        """Configure the exporter named in the environment.

        Raises:
            ProviderError: ``failed_precondition`` when an endpoint is set but the extra ``otlp`` is
                not installed.
        """
        if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            message = "OTEL_EXPORTER_OTLP_ENDPOINT is set; install it with: pip install 'erp-provider-layer[otlp]'"
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
        from erp.telemetry.spans import WantedIds

        resource = Resource.create({"service.name": "erp"})
        provider = TracerProvider(resource=resource, id_generator=WantedIds())  # type: ignore[arg-type]
        exporter = OTLPSpanExporter()
        provider.add_span_processor(BatchSpanProcessor(exporter))

        def close() -> None:
            # The exporter would repeat a failed delivery for ten seconds, which belong to the calls that drain.
            giving_up = threading.Timer(CLOSE_SECONDS, exporter.shutdown)
            giving_up.start()
            provider.shutdown()
            giving_up.cancel()

        return cls(provider.get_tracer("erp"), close)

    def record(
        self,
        name: str,
        *,
        traceparent: str,
        parent: str | None,
        start_ns: int,
        end_ns: int,
        attributes: dict[str, str | float],
        error: str | None,
    ) -> None:
        """Export a finished span with the ids that ``traceparent`` carried."""
        if self._tracer is None:
            return
        from erp.telemetry.spans import export

        export(
            self._tracer,
            name,
            traceparent=traceparent,
            parent=parent if parent and parent[3:35] == traceparent[3:35] else None,
            start_ns=start_ns,
            end_ns=end_ns,
            attributes=attributes,
            error=error,
        )

    def close(self) -> None:
        """Send what is queued; a collector that does not answer is given up after ``CLOSE_SECONDS``."""
        if self._close is not None:
            self._close()
