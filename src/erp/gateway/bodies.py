"""Reads request bodies within limits of size, time and depth."""

from __future__ import annotations

import re
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

_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


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

    Removing innermost bracket pairs pass by pass runs at memory speed; only when something is left
    (deep, malformed, or brackets inside strings) are the tokens counted one by one.
    """
    brackets = body.translate(None, _ALL_BUT_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        shorter = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if shorter == brackets:
            break
        brackets = shorter
    if brackets and _depth(body) > MAX_DEPTH:
        message = f"The body is nested deeper than {MAX_DEPTH} levels."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError("", message)])


def _depth(body: bytes) -> int:
    depth = deepest = 0
    for match in _TOKENS.finditer(body):
        token = match[0]
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest
