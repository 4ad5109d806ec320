"""The header ``Retry-After`` (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 86_400.0


def retry_after_seconds(header: str | None, *, now: float | None = None) -> float | None:
    """Seconds to wait by a header that holds seconds or a date, at most a day; None if it is unusable."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_SECONDS)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    wait = moment - (time.time() if now is None else now)
    return min(max(math.ceil(wait), 0.0), LONGEST_SECONDS)
