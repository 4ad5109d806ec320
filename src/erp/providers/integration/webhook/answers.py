"""What the answer of an endpoint means for the call that delivered to it."""

from __future__ import annotations

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.guarded_http import Answer
from erp.vendor_clients.retry_after import retry_after_seconds

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
