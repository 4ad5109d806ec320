"""Values between the contract's JSON and SQLite."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import UnsetType

from erp.runtime.spi import ErrorCode, FieldError, ProviderError

_MEASURED = (str, bytes)
_AS_IT_IS = (str, int)
_TEXTS = frozenset({"$decimal", "$date", "$datetime", "$uuid"})
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1


def bound(parameters: Sequence[Any] | UnsetType, where: str = "/params/parameters") -> list[Any]:
    """Return parameters as SQLite takes them.

    Raises:
        ProviderError: ``invalid_argument`` naming every value that has no form in SQLite.
    """
    if isinstance(parameters, UnsetType):
        return []
    made, wrong = [], []
    for number, value in enumerate(parameters):
        try:
            made.append(_bound(value))
        except ValueError as error:
            wrong.append(FieldError(f"{where}/{number}", str(error)))
    if wrong:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A parameter has no form in SQL; see errors[].", errors=wrong)
    return made


def _bound(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        message = "The number is beyond 64 bits; send it as text."
        raise ValueError(message)
    if isinstance(value, float) and not math.isfinite(value):
        message = "The number is not finite."
        raise ValueError(message)
    if isinstance(value, int | float):
        return value
    if isinstance(value, dict) and len(value) == 1:
        return _tagged(*next(iter(value.items())))
    message = 'Use null, true, false, a number, text or one of {"$decimal"|"$date"|"$datetime"|"$uuid"|"$bytes": text}.'
    raise ValueError(message)


def _tagged(tag: str, text: Any) -> Any:
    if tag in _TEXTS and isinstance(text, str):
        return text
    if tag == "$bytes" and isinstance(text, str):
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            message = "The text of $bytes is not base64."
            raise ValueError(message) from None
    message = f"{tag[:50]!r} is not one of $decimal, $date, $datetime, $uuid, $bytes with text."
    raise ValueError(message)


def shown(row: Iterable[Any]) -> list[Any]:
    """Return a row as JSON values.

    Raises:
        ProviderError: ``failed_precondition`` for an infinite number, which JSON would show as null.
    """
    return [value if isinstance(value, _AS_IT_IS) else _shown(value) for value in row]


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        message = "The result has an infinite number, for which JSON has no form. Cast it to text."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return value


def weight(row: Iterable[Any]) -> int:
    """Return about how many bytes a row adds to an answer."""
    size = 0
    for value in row:
        size += len(value) if isinstance(value, _MEASURED) else 8
    return size
