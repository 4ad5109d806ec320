"""Every ended call is counted, logged and traced, whatever became of it."""

import io
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.conftest import MakeCallContext
from tests.runtime.conftest import ToyLayer

from erp.errors import ProviderError
from erp.runtime.call import Answer
from erp.runtime.observation import Observer
from erp.telemetry.call_log import CallLog
from erp.telemetry.call_metrics import CallMetrics
from erp.telemetry.spans import WantedIds
from erp.telemetry.trace import Spans

pytestmark = pytest.mark.anyio

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Watched:
    """An observer and what it wrote."""

    def __init__(self) -> None:
        self.stream = io.BytesIO()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(id_generator=WantedIds())
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = Observer(CallMetrics(), CallLog(self.stream), Spans(provider.get_tracer("test")))

    def lines(self) -> list[dict[str, Any]]:
        self.observer.log.flush()
        return [msgspec.json.decode(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
async def watched() -> Watched:
    return Watched()


async def test_a_good_call_is_one_line_one_count_and_one_span(
    toy: ToyLayer, watched: Watched, call_context: MakeCallContext
) -> None:
    call = toy.call("get", traceparent=TRACEPARENT, context=call_context())
    assert call.context is not None
    call.context.provider_seconds = 0.25

    watched.observer.observe(call, 0.5, Answer(b"", "toy/box", "default"), None)

    [line] = watched.lines()
    assert line.pop("timestamp")
    assert line == {
        "event": "call",
        "level": "info",
        "request_id": "req_1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "tenant": "acme",
        "actor": "key_acme",
        "target": "toy/box",
        "action": "get",
        "connection": "default",
        "code": "ok",
        "duration_ms": 500.0,
        "provider_ms": 250.0,
    }
    series = watched.observer.metrics.series("acme", "toy/box", "get")
    assert (series.codes, series.seconds, series.provider_seconds) == ({"ok": 1}, 0.5, 0.25)
    [span] = watched.exporter.get_finished_spans()
    assert span.name == "toy.get"
    assert span.attributes == {
        "erp.tenant": "acme",
        "erp.target": "toy/box",
        "erp.connection": "default",
        "erp.request_id": "req_1",
    }
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == 500_000_000


async def test_a_failure_is_logged_with_the_detail_for_the_engineer(toy: ToyLayer, watched: Watched) -> None:
    detailed = ProviderError("internal", "Broken.", detail="KeyError: 7")
    watched.observer.observe(toy.call("get"), 0.1, None, detailed)
    watched.observer.observe(toy.call("get"), 0.1, None, ProviderError("not_found", "Gone."))

    first, second = watched.lines()
    assert (first["level"], first["code"], first["detail"]) == ("error", "internal", "KeyError: 7")
    assert (second["level"], second["code"], second["detail"]) == ("info", "not_found", "Gone.")
    assert [span.status.is_ok for span in watched.exporter.get_finished_spans()] == [False, False]


async def test_parameters_and_results_are_never_logged(toy: ToyLayer, watched: Watched) -> None:
    call = toy.call("get", b'{"params":{"key":"hunter2"}}', metadata={"note": "hunter2"}, idempotency_key="hunter2")
    watched.observer.observe(call, 0.1, Answer(b'"hunter2"', "toy/box", "default", result="hunter2"), None)

    watched.observer.log.flush()
    assert b"hunter2" not in watched.stream.getvalue()


async def test_a_replay_is_marked(toy: ToyLayer, watched: Watched) -> None:
    watched.observer.observe(toy.call("append"), 0.1, Answer(b"", "toy/box", "default", replayed=True), None)

    assert watched.lines()[0]["replayed"] is True


async def test_a_service_is_named_without_a_provider(toy: ToyLayer, watched: Watched) -> None:
    watched.observer.observe(toy.call("buy", area="services"), 0.1, None, None)

    assert watched.lines()[0]["target"] == "shop"


async def test_a_call_without_a_trace_is_counted_all_the_same(toy: ToyLayer, watched: Watched) -> None:
    watched.observer.observe(toy.call("get", traceparent=""), 0.1, None, None)

    assert watched.observer.metrics.series("acme", "toy/box", "get").codes == {"ok": 1}
    assert watched.exporter.get_finished_spans() == ()
