"""Opaque cursors: where a page ended. Only the store that wrote one can make sense of it."""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError

T = TypeVar("T")


def written(place: object) -> str:
    """Return ``place`` as a cursor."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read(cursor: str | None, kind: type[T]) -> T | None:
    """Return the place a cursor names; None for no cursor.

    Raises:
        ProviderError: ``invalid_argument``.
    """
    if cursor is None:
        return None
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=kind)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        problem = FieldError("/query/cursor", "Use next_cursor of the page before, unchanged.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The cursor is malformed.", errors=[problem]) from error
