"""Spans leave the process for a collector, with the ids the caller sent."""

from __future__ import annotations

import queue
import signal
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.system.conftest import StartServer

from erp.telemetry import trace

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otlp")

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
Received = queue.Queue[tuple[str, Any]]


@contextmanager
def collecting() -> Iterator[tuple[str, Received]]:
    """A collector of OTLP over HTTP; its address and the requests it got: path and decoded body."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: Received = queue.Queue()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.put((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def test_a_span_carries_the_trace_that_was_sent_and_the_id_that_was_answered(
    start_server: StartServer, furnished: Path
) -> None:
    with collecting() as (address, received):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
        server = start_server(furnished, environment=environment)
        with server.client() as client:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "traced"}
            answer = client.post("/providers/cache/memory/get", json={"params": {"key": "a"}}, headers=headers)
            unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
            client.post("/providers/cache/memory/get", json={"params": {"key": "a"}}, headers=unsampled)
            failed = client.post("/providers/db/sqlite/query", json={"params": {"sql": "nonsense"}})

        server.signal(signal.SIGTERM)  # what waits in the batch is sent before the process ends
        path, exported = received.get(timeout=10)

        assert server.ended() == 0
    (resource,) = exported.resource_spans
    assert path == "/v1/traces"
    assert ("service.name", "erp") in [(item.key, item.value.string_value) for item in resource.resource.attributes]
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"cache.get", "db.query"}
    good, bad = spans["cache.get"], spans["db.query"]
    assert (good.trace_id.hex(), good.parent_span_id.hex()) == (TRACE, PARENT)
    assert answer.headers["traceparent"] == f"00-{TRACE}-{good.span_id.hex()}-01"
    attributes = {item.key: item.value.string_value for item in good.attributes}
    assert attributes == {
        "erp.tenant": "acme",
        "erp.target": "cache/memory",
        "erp.connection": "default",
        "erp.request_id": "traced",
    }
    assert good.start_time_unix_nano < good.end_time_unix_nano
    assert failed.headers["traceparent"].split("-")[1:3] == [bad.trace_id.hex(), bad.span_id.hex()]
    assert bad.status.message == failed.json()["code"]


def test_a_collector_that_is_gone_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as (address, _):
        pass
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    given_up: list[float] = []

    class Timer(threading.Timer):
        def __init__(self, interval: float, function: Any) -> None:
            given_up.append(interval)
            super().__init__(0.05, function)

    monkeypatch.setattr(trace, "threading", types.SimpleNamespace(Timer=Timer))
    spans = trace.Spans.from_environment()
    spans.record(
        "cache.get",
        traceparent=f"00-{TRACE}-{PARENT}-01",
        parent=None,
        start_ns=1,
        end_ns=2,
        attributes={},
        error=None,
    )

    spans.close()

    assert given_up == [trace.CLOSE_SECONDS]
