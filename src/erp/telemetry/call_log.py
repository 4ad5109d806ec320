"""One structured line per call, written in batches so that logging costs no system call each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import BinaryIO

import msgspec

FLUSH_SECONDS = 0.1
FLUSH_LINES = 512


class CallLine(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="event", tag="call"):
    """What a log line says about a call. Never parameters or results: they may be personal."""

    level: str
    timestamp: str
    request_id: str
    trace_id: str
    tenant: str
    actor: str
    target: str
    action: str
    connection: str
    code: str
    duration_ms: float
    provider_ms: float
    detail: str | None = None
    replayed: bool = False


class CallLog:
    """Collects lines and writes them at the latest after a tenth of a second."""

    def __init__(self, stream: BinaryIO | None = None, *, enabled: bool = True) -> None:
        self._stream = stream or sys.stderr.buffer
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self.enabled = enabled
        self.treat: Callable[[str, str], str] = lambda _tenant, text: text
        """What takes personal data out of the words of servers; given the tenant and the text."""

    def write(self, line: CallLine) -> None:
        """Queue one line."""
        if line.detail is not None:
            line.detail = self.treat(line.tenant, line.detail)
        self._lines.append(self._encode(line))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what is queued. A stream that cannot be written to loses log lines, never calls."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            self._stream.write(b"\n".join(lines) + b"\n")
            self._stream.flush()
        except (OSError, ValueError):
            return
