"""Values between the contract's JSON and an engine."""

from __future__ import annotations

import base64
import binascii
import datetime
import decimal
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UnsetType

from erp.runtime.spi import ErrorCode, FieldError, ProviderError

Decode = Callable[[str], Any]
Decoders = Mapping[str, Decode]
"""Tag -> what its text becomes; ValueError for text that is none of it."""

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
_AS_IT_IS = (str, int)
_MEASURED = (str, bytes)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        message = "is not base64"
        raise ValueError(message) from None


def _decimal(text: str) -> decimal.Decimal:
    try:
        return decimal.Decimal(text)
    except decimal.InvalidOperation:
        message = "is not a decimal number"
        raise ValueError(message) from None


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


OBJECTS: Decoders = {
    "$decimal": _decimal,
    "$date": datetime.date.fromisoformat,
    "$datetime": _moment,
    "$uuid": uuid.UUID,
    "$bytes": _bytes,
}
"""For drivers that take Python's own types."""
TEXTS: Decoders = {"$decimal": str, "$date": str, "$datetime": str, "$uuid": str, "$bytes": _bytes}
"""For engines to which values are sent as text, which they read themselves."""


def bound(
    parameters: Sequence[Any] | UnsetType, decoders: Decoders = OBJECTS, where: str = "/params/parameters"
) -> list[Any]:
    """Return parameters as a driver takes them.

    Raises:
        ProviderError: ``invalid_argument`` naming every value that has no form in SQL.
    """
    if isinstance(parameters, UnsetType):
        return []
    made, wrong = [], []
    for number, value in enumerate(parameters):
        try:
            made.append(value if value is None or isinstance(value, str) else _bound(value, decoders))
        except ValueError as error:
            wrong.append(FieldError(f"{where}/{number}", str(error)))
    if wrong:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A parameter has no form in SQL; see errors[].", errors=wrong)
    return made


def _bound(value: Any, decoders: Decoders) -> Any:
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        message = "is beyond 64 bits; send it as text"
        raise ValueError(message)
    if isinstance(value, float) and not math.isfinite(value):
        message = "is not finite"
        raise ValueError(message)
    if isinstance(value, int | float):
        return value
    if isinstance(value, dict) and len(value) == 1:
        return _tagged(*next(iter(value.items())), decoders)
    message = (
        'must be null, true, false, a number, text or one of {"$decimal"|"$date"|"$datetime"|"$uuid"|"$bytes": text}'
    )
    raise ValueError(message)


def _tagged(tag: str, text: Any, decoders: Decoders) -> Any:
    decode = decoders.get(tag)
    if decode is None or not isinstance(text, str):
        message = f"has {tag[:50]!r}, which is not one of $decimal, $date, $datetime, $uuid, $bytes with text"
        raise ValueError(message)
    return decode(text)


def shown(row: Iterable[Any]) -> list[Any]:
    """Return a row as JSON values: decimals, dates, times and UUIDs as text, binary values under ``$bytes``.

    Raises:
        ProviderError: ``failed_precondition`` for an infinite number, for which JSON has no form.
    """
    return [value if value is None or isinstance(value, _AS_IT_IS) else _shown(value) for value in row]


def _shown(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        message = "The result has an infinite number, for which JSON has no form. Cast it to text."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    if isinstance(value, decimal.Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, uuid.UUID):
        return str(value)
    # Arrays, documents, ranges: as JSON text, whatever the engine calls them.
    return msgspec.json.encode(value, enc_hook=str).decode()


def weight(row: Iterable[Any]) -> int:
    """Return about how many bytes a row adds to an answer."""
    size = 0
    for value in row:
        size += len(value) if isinstance(value, _MEASURED) else 8
    return size


def fitted(rows: Sequence[Any], max_rows: int, max_bytes: int) -> int:
    """Return how many of ``rows`` fit into an answer.

    Raises:
        ProviderError: ``failed_precondition`` when not even one does.
    """
    size = 0
    for number, row in enumerate(rows):
        size += weight(row)
        if number == max_rows:
            return number
        if size > max_bytes:
            if not number:
                message = (
                    f"One row is larger than an answer may be ({max_bytes} bytes). Select fewer or shorter columns."
                )
                raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
            return number
    return len(rows)
