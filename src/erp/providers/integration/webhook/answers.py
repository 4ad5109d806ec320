"""What the answer of an endpoint means for the call that delivered to it."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.guarded_http import Answer

_LONGEST_WAIT_SECONDS = 86_400.0

_RETRYABLE = {
    408: ErrorCode.TIMEOUT,
    425: ErrorCode.UNAVAILABLE,
    429: ErrorCode.RATE_LIMITED,
}


def refusal(answer: Answer) -> ProviderError | None:
    """None when the endpoint confirmed (2xx), else what its answer means.

    ``failed_precondition`` when sending the same again hardly helps (redirect, 410 Gone, other 4xx); ``rate_limited``,
    ``timeout`` or ``unavailable`` when it may, after ``Retry-After`` if the endpoint said so.
    """
    if 200 <= answer.status < 300:  # noqa: PLR2004
        return None
    code, message = _meaning(answer.status)
    return ProviderError(code, message, retry_after_seconds=retry_after_seconds(answer.headers.get("retry-after")))


def _meaning(status: int) -> tuple[ErrorCode, str]:
    if status == 410:  # noqa: PLR2004
        return ErrorCode.FAILED_PRECONDITION, "The endpoint is gone (410); it wants no more messages."
    if status in _RETRYABLE:
        return _RETRYABLE[status], f"The endpoint asked to try again later ({status})."
    if 300 <= status < 400:  # noqa: PLR2004
        return ErrorCode.FAILED_PRECONDITION, f"The endpoint redirects ({status}); configure the final address."
    if 400 <= status < 500:  # noqa: PLR2004
        return ErrorCode.FAILED_PRECONDITION, f"The endpoint refused the message ({status})."
    return ErrorCode.UNAVAILABLE, f"The endpoint failed ({status})."


def retry_after_seconds(header: str | None, *, now: float | None = None) -> float | None:
    """Seconds to wait by a ``Retry-After`` header (RFC 9110: seconds or a date), at most a day; none if unusable."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _LONGEST_WAIT_SECONDS)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    wait = moment - (time.time() if now is None else now)
    return min(max(math.ceil(wait), 0.0), _LONGEST_WAIT_SECONDS)
