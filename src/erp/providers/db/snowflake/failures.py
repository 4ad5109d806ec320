"""What Snowflake's error numbers and states mean for a caller (its documentation, "Client error messages")."""

from __future__ import annotations

import re
from typing import Any

from erp.runtime.spi import ErrorCode, ProviderError

_NUMBERS = {
    603: ErrorCode.UNAVAILABLE,
    604: ErrorCode.TIMEOUT,
    625: ErrorCode.UNAVAILABLE,
    630: ErrorCode.TIMEOUT,
    2002: ErrorCode.ALREADY_EXISTS,
    2003: ErrorCode.NOT_FOUND,
    2043: ErrorCode.NOT_FOUND,
    3001: ErrorCode.PERMISSION_DENIED,
    100072: ErrorCode.FAILED_PRECONDITION,
    200001: ErrorCode.ALREADY_EXISTS,
    390100: ErrorCode.UNAUTHENTICATED,
    390144: ErrorCode.UNAUTHENTICATED,
    390195: ErrorCode.UNAUTHENTICATED,
    394304: ErrorCode.UNAUTHENTICATED,
    390189: ErrorCode.FAILED_PRECONDITION,
    390201: ErrorCode.FAILED_PRECONDITION,
}
_STATES = {
    "02000": ErrorCode.NOT_FOUND,
    "22000": ErrorCode.INVALID_ARGUMENT,
    "40001": ErrorCode.CONFLICT,
    "42501": ErrorCode.PERMISSION_DENIED,
    "42601": ErrorCode.INVALID_ARGUMENT,
    "42S02": ErrorCode.NOT_FOUND,
    "42710": ErrorCode.ALREADY_EXISTS,
    "57014": ErrorCode.TIMEOUT,
}
_TEXTS = {
    604: "The statement took longer than it may; it was stopped and changed nothing.",
    625: "Another transaction holds the table for too long.",
    630: "The statement took longer than it may; it was stopped and changed nothing.",
    390100: "Snowflake refuses the user or its password.",
}
_OF_DRIVER = range(250_000, 260_000)
_PREFIX = re.compile(r"^\d{6} \(\w{5}\): (?:[0-9a-f-]{36}: )?")


def number_of(error: BaseException) -> int:
    """Return the number of an error; 0 where there is none."""
    found = getattr(error, "errno", 0)
    return found if isinstance(found, int) and found > 0 else 0


def is_lost(error: BaseException) -> bool:
    """Whether the connection ended, so that nobody knows what became of the statement."""
    is_strange = _is_strange(error) or isinstance(error, OSError)
    return (
        is_strange or number_of(error) in _OF_DRIVER or type(error).__name__ in {"OperationalError", "InterfaceError"}
    )


def _is_strange(error: BaseException) -> bool:
    """Whether the connector has an answer that it does not understand, as what it makes of one that broke off."""
    return getattr(error, "errno", 0) == -1 or (isinstance(error, KeyError) and error.args == ("success",))


def explained(error: Any) -> ProviderError:
    """Return an error of the connector as the contract names it."""
    import snowflake.connector.errors

    number, state = number_of(error), getattr(error, "sqlstate", None) or ""
    said = _PREFIX.sub("", str(getattr(error, "msg", None) or error)).split("\n")[0].rstrip(".")
    detail = f"{type(error).__name__} {number} {state}: {said}"
    code = _NUMBERS.get(number) or _STATES.get(state)
    if code is None and not is_lost(error) and not isinstance(error, snowflake.connector.errors.Error):
        return ProviderError(ErrorCode.INTERNAL, "The connector failed in a way that was not foreseen.", detail=detail)
    if code is None and is_lost(error):
        return ProviderError(
            ErrorCode.UNAVAILABLE, "Snowflake cannot be reached.", detail=detail, retry_after_seconds=5.0
        )
    code = code or ErrorCode.INVALID_ARGUMENT
    pause = 1.0 if code is ErrorCode.UNAVAILABLE else None
    return ProviderError(code, _TEXTS.get(number) or f"Snowflake: {said}.", detail=detail, retry_after_seconds=pause)
