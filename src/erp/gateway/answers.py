"""Sends answers and problems over raw ASGI, with the headers every answer carries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import Problem, ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope, Send

    from erp.gateway.inbound import Inbound
    from erp.runtime.resilience import TokenBucket

Header = tuple[bytes, bytes]
Headers = list[Header]

JSON = b"application/json"
PROBLEM = b"application/problem+json"

_encode = msgspec.json.Encoder(decimal_format="string").encode


async def send(scope: Scope, send: Send, status: int, body: bytes, content_type: bytes, headers: Headers) -> None:
    """Send one complete response, in one piece where the server can.

    Header values must be free of control characters: all of ours are made or matched by the layer.
    """
    lines = [(b"content-type", content_type), *headers]
    if "erp.response" in scope.get("extensions", ()):
        head = b"".join([b"%b: %b\r\n" % line for line in lines])
        await send({"type": "erp.response", "status": status, "head": head, "body": body})
        return
    lines.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def send_problem(
    scope: Scope, send_to: Send, inbound: Inbound, error: ProviderError, more: Iterable[Header] = ()
) -> None:
    """Send ``error`` as an RFC 9457 problem, with the headers ``more``."""
    headers = [*common_headers(inbound), *problem_headers(error), *more]
    body = problem_body(error, inbound.request_id, scope["path"])
    await send(scope, send_to, error.status, body, PROBLEM, headers)


def problem_body(error: ProviderError, correlation_id: str, path: str) -> bytes:
    """Return the problem document of ``error``."""
    return _encode(Problem.of(error, correlation_id=correlation_id, instance=path))


def problem_headers(error: ProviderError) -> Headers:
    """Return ``Retry-After`` (RFC 9110, 10.2.3) and ``WWW-Authenticate`` (RFC 6750) where they apply."""
    headers: Headers = []
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_seconds))))
    if error.code is ErrorCode.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b'Bearer realm="erp"'))
    return headers


def common_headers(inbound: Inbound) -> Headers:
    """Headers of every answer."""
    return [
        (b"x-request-id", inbound.request_id.encode()),
        (b"traceparent", inbound.traceparent.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]


def rate_headers(bucket: TokenBucket, of_key: TokenBucket | None = None) -> Headers:
    """Return ``RateLimit`` and ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10).

    Args:
        bucket: that of the tenant.
        of_key: that of the API key, if it has one.
    """
    left, policy = _rate(b"tenant", bucket)
    if of_key is not None:
        left, policy = (b", ".join(both) for both in zip((left, policy), _rate(b"key", of_key), strict=True))
    return [(b"ratelimit", left), (b"ratelimit-policy", policy)]


def _rate(name: bytes, bucket: TokenBucket) -> tuple[bytes, bytes]:
    settings = bucket.settings
    seconds = max(1, math.ceil(settings.period_seconds))
    left = b'"%b";r=%d;t=%d' % (name, bucket.remaining, seconds)
    return left, b'"%b";q=%d;w=%d' % (name, settings.requests, seconds)
