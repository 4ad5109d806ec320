"""Reads request bodies within limits of size, time and depth."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.runtime.deadline import TimeLimit

if TYPE_CHECKING:
    from starlette.types import Receive

    from erp.gateway.inbound import Inbound

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 64
BODY_SECONDS = 15.0

_ALL_BUT_OPENING = bytes(set(range(256)) - set(b"[{"))
_ALL_BUT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[{]}", bytes([1, 1, 255, 255]))
"""Opening is +1 and closing -1, as signed bytes."""


async def read_json(inbound: Inbound, receive: Receive) -> bytes:
    """Return the whole body of a JSON request.

    Raises:
        ProviderError: ``invalid_argument`` (415 not JSON, 413 too large, 408 too slow, 400 too
            deep) or ``cancelled`` when the caller went away.
    """
    kind = inbound.content_type
    if kind is not None and not kind.lower().startswith("application/json"):
        message = f"The body must be application/json, not {kind[:100]!r}."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, status=415)
    body = await read(inbound, receive)
    check_depth(body)
    return body


async def read(inbound: Inbound, receive: Receive) -> bytes:
    """Return the whole body of a request, whatever it is.

    Raises:
        ProviderError: ``invalid_argument`` (413 too large, 408 too slow) or ``cancelled`` when the caller went away.
    """
    declared = inbound.content_length
    if declared is not None and declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        return await TimeLimit(BODY_SECONDS).keep(_whole(receive))
    except TimeoutError:
        message = f"The body did not arrive within {BODY_SECONDS:g} seconds."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, status=408) from None


async def _whole(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ProviderError(ErrorCode.CANCELLED, "The caller went away before the body was complete.")
        parts.append(message["body"])
        size += len(message["body"])
        if size > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large() -> ProviderError:
    message = f"The body is larger than {MAX_BODY_BYTES} bytes. Use a batch, a page or a multipart upload."
    return ProviderError(ErrorCode.INVALID_ARGUMENT, message, status=413)


def check_depth(body: bytes) -> None:
    """Refuse JSON nested deeper than ``MAX_DEPTH``.

    All of it runs at the speed of C: whoever may send 16 MiB of brackets must not hold up the others
    for seconds. Most bodies have too few brackets to be deep at all.
    """
    if len(body.translate(None, _ALL_BUT_OPENING)) > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        message = f"The body is nested deeper than {MAX_DEPTH} levels."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError("", message)])


def _depth(body: bytes) -> int:
    """Return how deep valid JSON is; brackets inside strings do not count."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(body.translate(None, _ALL_BUT_STRUCTURE).split(b'"')[::2])
    steps = memoryview(outside_strings.translate(_STEPS)).cast("b")
    return max(accumulate(steps), default=0)
