"""Trace context in and out, and spans that carry the ids of the headers."""

import random
import re

import pytest
from opentelemetry import trace as opentelemetry_trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from erp.telemetry.ids import continued, new_request_id
from erp.telemetry.spans import WantedIds
from erp.telemetry.trace import Spans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    made = TracerProvider(id_generator=WantedIds())
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


def record(provider: TracerProvider, traceparent: str, parent: str | None = None, error: str | None = None) -> None:
    Spans(provider.get_tracer("test")).record(
        "cache.get",
        traceparent=traceparent,
        parent=parent,
        start_ns=1_000,
        end_ns=3_000,
        attributes={"erp.tenant": "acme"},
        error=error,
    )


def context_of(span: ReadableSpan) -> SpanContext:
    assert span.context is not None
    return span.context


def ids(span: ReadableSpan) -> str:
    context = context_of(span)
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def test_a_trace_is_continued_with_a_new_span() -> None:
    first, second = continued(PARENT), continued(PARENT)

    assert re.fullmatch(r"00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01", first)
    assert len({PARENT, first, second}) == 3
    assert continued(UNSAMPLED).endswith("-00"), "the caller's choice not to sample is passed on"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        PARENT.upper(),
        PARENT + "-extra",
        PARENT + "\n",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        "ff" + PARENT[2:],
    ],
)
def test_without_a_valid_header_a_new_trace_begins(header: str | None) -> None:
    made = continued(header)

    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", made)
    assert "0af7651916cd43dd8448eb211c80319c" not in made


def test_request_ids_are_unlike_each_other() -> None:
    made = {new_request_id() for _ in range(1000)}

    assert len(made) == 1000
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", item) for item in made)


def test_a_span_has_the_ids_of_the_header(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    mine = continued(PARENT)
    record(provider, mine, PARENT)

    [span] = exporter.get_finished_spans()
    assert ids(span) == mine
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT[36:52]
    assert span.parent.is_remote
    assert (span.start_time, span.end_time) == (1_000, 3_000)
    assert (span.name, span.attributes, span.status.is_ok) == ("cache.get", {"erp.tenant": "acme"}, True)


def test_a_root_span_has_no_parent_even_inside_another_span(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    mine = continued(None)
    with opentelemetry_trace.use_span(provider.get_tracer("other").start_span("outer")):
        record(provider, mine)

    [span] = [item for item in exporter.get_finished_spans() if item.name == "cache.get"]
    assert (ids(span), span.parent) == (mine, None)


def test_a_parent_of_another_trace_is_not_a_parent(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    mine = continued("garbage")
    record(provider, mine, "garbage")
    record(provider, mine, PARENT)

    assert [(ids(span), span.parent) for span in exporter.get_finished_spans()] == [(mine, None)] * 2


def test_a_failed_call_is_a_failed_span(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    record(provider, continued(None), error="timeout")

    [span] = exporter.get_finished_spans()
    assert span.attributes is not None
    assert (span.attributes["error.type"], span.status.description) == ("timeout", "timeout")
    assert not span.status.is_ok


def test_a_trace_the_caller_does_not_sample_is_not_exported(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    record(provider, continued(UNSAMPLED), UNSAMPLED)

    assert exporter.get_finished_spans() == ()


def test_other_spans_of_the_process_keep_their_random_ids(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    record(provider, PARENT)
    provider.get_tracer("other").start_span("other").end()

    first, other = exporter.get_finished_spans()
    assert ids(first) == PARENT
    assert context_of(other).trace_id != context_of(first).trace_id
    assert WantedIds().is_trace_id_random()


def test_without_an_exporter_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    spans = Spans.from_environment()

    assert not spans.enabled
    spans.record("x", traceparent="", parent=None, start_ns=0, end_ns=0, attributes={}, error=None)
    spans.close()


def test_an_endpoint_in_the_environment_turns_spans_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    spans = Spans.from_environment()

    assert spans.enabled
    spans.close()


def test_an_application_that_seeds_the_generator_of_the_process_does_not_make_ids_repeat() -> None:
    ids_of_spans = set()
    for _ in range(3):
        random.seed(7)  # noqa: TID251  (what an application may do)
        ids_of_spans.add((WantedIds().generate_trace_id(), WantedIds().generate_span_id(), new_request_id()))

    assert len(ids_of_spans) == 3
