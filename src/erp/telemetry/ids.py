"""Ids of traces, spans and requests, made by a generator that nothing else in the process can seed.

Header format: https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import os
import random
import re

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_INVALID = {"0" * 32, "0" * 16}
_random = random.Random()  # noqa: S311  (ids, not secrets)
# A forked child would go on with the numbers of its parent, and so would its brothers and sisters.
os.register_at_fork(after_in_child=_random.seed)


def continued(traceparent: str | None) -> str:
    """Return the ``traceparent`` of a new span: a child of the given one, or the root of a new trace."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None or match[1] in _INVALID or match[2] in _INVALID:
        return f"00-{new_trace_id():032x}-{new_span_id():016x}-01"
    return f"00-{match[1]}-{new_span_id():016x}-{match[3]}"


def new_trace_id() -> int:
    """Return 128 random bits that are not all zero (W3C trace context, 3.2.2.3)."""
    return _random.getrandbits(128) or 1


def new_span_id() -> int:
    """Return 64 random bits that are not all zero (W3C trace context, 3.2.2.4)."""
    return _random.getrandbits(64) or 1


def new_request_id() -> str:
    """Return an id for a request that came without one (96 random bits)."""
    return f"req_{_random.getrandbits(96):024x}"
