"""Log lines are written in batches, soon, and a broken stream harms no call."""

import asyncio
import io
from typing import Any

import msgspec
import pytest

from erp.telemetry import call_log
from erp.telemetry.call_log import CallLine, CallLog

pytestmark = pytest.mark.anyio


class CountingStream(io.BytesIO):
    """A stream that counts its writes."""

    writes = 0

    def write(self, data: Any) -> int:
        self.writes += 1
        return super().write(data)


def line(request_id: str = "req_1", **more: Any) -> CallLine:
    facts: dict[str, Any] = {
        "level": "info",
        "timestamp": "2026-01-01T00:00:00+00:00",
        "request_id": request_id,
        "trace_id": "",
        "tenant": "acme",
        "actor": "key",
        "target": "cache/memory",
        "action": "get",
        "connection": "default",
        "code": "ok",
        "duration_ms": 1.0,
        "provider_ms": 0.5,
    }
    return CallLine(**facts | more)


def written(stream: io.BytesIO) -> list[str]:
    return [msgspec.json.decode(text)["request_id"] for text in stream.getvalue().splitlines()]


async def test_lines_are_written_together_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_log, "FLUSH_SECONDS", 0.02)
    stream = CountingStream()
    log = CallLog(stream)
    for number in range(10):
        log.write(line(f"req_{number}"))
    assert stream.writes == 0

    await asyncio.sleep(0.04)

    assert (stream.writes, written(stream)) == (1, [f"req_{number}" for number in range(10)])
    log.write(line("later"))
    await asyncio.sleep(0.04)
    assert written(stream)[-1] == "later"


async def test_a_full_batch_is_written_at_once() -> None:
    stream = CountingStream()
    log = CallLog(stream)
    for _ in range(call_log.FLUSH_LINES + 1):
        log.write(line())

    assert (stream.writes, len(written(stream))) == (1, call_log.FLUSH_LINES)
    log.flush()
    assert len(written(stream)) == call_log.FLUSH_LINES + 1


async def test_flushing_nothing_writes_nothing() -> None:
    stream = CountingStream()
    CallLog(stream).flush()

    assert stream.writes == 0


async def test_a_line_leaves_out_what_is_not_so() -> None:
    stream = io.BytesIO()
    log = CallLog(stream)
    log.write(line())
    log.write(line(detail='two\n"lines"', replayed=True))
    log.flush()

    plain, rich = (msgspec.json.decode(text) for text in stream.getvalue().splitlines())
    assert "detail" not in plain
    assert "replayed" not in plain
    assert (rich["detail"], rich["replayed"]) == ('two\n"lines"', True)


class BrokenStream(io.BytesIO):
    """A stream whose reader has gone away."""

    is_broken = True

    def write(self, data: Any) -> int:
        if self.is_broken:
            raise BrokenPipeError
        return super().write(data)


async def test_a_broken_stream_loses_lines_and_later_ones_are_written() -> None:
    stream = BrokenStream()
    log = CallLog(stream)
    log.write(line("lost"))
    log.flush()
    stream.is_broken = False
    log.write(line("kept"))
    log.flush()

    assert written(stream) == ["kept"]


async def test_a_closed_stream_is_survived() -> None:
    stream = io.BytesIO()
    log = CallLog(stream)
    stream.close()

    for _ in range(call_log.FLUSH_LINES * 2):
        log.write(line())
    log.flush()

    assert log._lines == []
