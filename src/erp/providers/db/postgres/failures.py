"""What PostgreSQL's codes mean for a caller (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""

from __future__ import annotations

import re
import ssl
from typing import Any

from erp.runtime.spi import ErrorCode, FieldError, ProviderError

_STATES = {
    "23505": ErrorCode.ALREADY_EXISTS,
    "25006": ErrorCode.INVALID_ARGUMENT,
    "25001": ErrorCode.INVALID_ARGUMENT,
    "25P01": ErrorCode.UNAVAILABLE,
    "25P02": ErrorCode.FAILED_PRECONDITION,
    "25P03": ErrorCode.UNAVAILABLE,
    "25P04": ErrorCode.UNAVAILABLE,
    "3D000": ErrorCode.FAILED_PRECONDITION,
    "3F000": ErrorCode.NOT_FOUND,
    "40001": ErrorCode.CONFLICT,
    "40P01": ErrorCode.CONFLICT,
    "42501": ErrorCode.PERMISSION_DENIED,
    "42P01": ErrorCode.NOT_FOUND,
    "42P07": ErrorCode.ALREADY_EXISTS,
    "42710": ErrorCode.ALREADY_EXISTS,
    "42P06": ErrorCode.ALREADY_EXISTS,
    "55P03": ErrorCode.UNAVAILABLE,
    "57014": ErrorCode.TIMEOUT,
}
_CLASSES = {
    "08": ErrorCode.UNAVAILABLE,
    "0A": ErrorCode.INVALID_ARGUMENT,
    "21": ErrorCode.INVALID_ARGUMENT,
    "22": ErrorCode.INVALID_ARGUMENT,
    "23": ErrorCode.FAILED_PRECONDITION,
    "25": ErrorCode.FAILED_PRECONDITION,
    "26": ErrorCode.CONFLICT,
    "28": ErrorCode.UNAUTHENTICATED,
    "2B": ErrorCode.FAILED_PRECONDITION,
    "34": ErrorCode.FAILED_PRECONDITION,
    "38": ErrorCode.FAILED_PRECONDITION,
    "39": ErrorCode.FAILED_PRECONDITION,
    "40": ErrorCode.CONFLICT,
    "42": ErrorCode.INVALID_ARGUMENT,
    "44": ErrorCode.FAILED_PRECONDITION,
    "53": ErrorCode.UNAVAILABLE,
    "54": ErrorCode.INVALID_ARGUMENT,
    "55": ErrorCode.FAILED_PRECONDITION,
    "57": ErrorCode.UNAVAILABLE,
    "58": ErrorCode.UNAVAILABLE,
    "72": ErrorCode.CONFLICT,
    "HV": ErrorCode.UNAVAILABLE,
    "P0": ErrorCode.FAILED_PRECONDITION,
}
_LOST = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"})
_TEXTS = {
    "25006": "Nothing can be written here: a query only reads (use execute), and so does a standby server.",
    "25P01": "The connection to the server was lost, and the transaction with it.",
    "25P03": "The transaction was idle for too long; the server has undone it.",
    "25P04": "The transaction took too long; the server has undone it.",
    "28P01": "The server refuses the user or its password.",
    "40001": "Another transaction changed the same rows. Run the whole transaction again.",
    "40P01": "Two transactions waited for each other; this one was undone. Run it again.",
    "53100": "The server's disk is full; nothing was changed.",
    "53300": "The server has no connection left.",
    "55P03": "Another transaction holds the rows for too long.",
    "57014": "The statement took longer than it may; it was stopped and changed nothing.",
}
_ARGUMENT = re.compile(r"invalid input for query argument \$(\d+)")
"""What the driver says of a value that it cannot send, under the class of one of the server's errors."""


def explained(error: BaseException, *, where: str = "/params/parameters") -> ProviderError:
    """Return ``error`` of asyncpg as the contract names it; a lost connection as ``unavailable``."""
    import asyncpg

    if isinstance(error, ProviderError):
        return error
    found = _ARGUMENT.match(str(error))
    if found is not None:
        return _unfit(error, f"{where}/{int(found[1]) - 1}")
    if isinstance(error, asyncpg.PostgresError):
        return _told(error)
    if is_lost(error):
        return _made(ErrorCode.UNAVAILABLE, "The connection to the server was lost.", error, pause=1.0)
    code, text = next((known for kind, known in _of_the_driver() if isinstance(error, kind)), _UNFORESEEN)
    return _made(code, text, error)


_UNFORESEEN = (ErrorCode.INTERNAL, "PostgreSQL's driver failed in a way that was not foreseen.")


def _of_the_driver() -> list[tuple[type[BaseException], tuple[ErrorCode, str]]]:
    import asyncpg

    from erp.vendor_clients.postgres_wire import TooLargeError

    large = "The answer is too large, or a single row of it is. Select fewer rows, fewer or shorter columns."
    changed = "A type changed while it was in use. Send the request again."
    return [
        (TooLargeError, (ErrorCode.FAILED_PRECONDITION, large)),
        (asyncpg.exceptions.OutdatedSchemaCacheError, (ErrorCode.CONFLICT, changed)),
    ]


def is_lost(error: BaseException) -> bool:
    """Whether the connection ended, so that nobody knows what became of the statement."""
    import asyncpg

    if isinstance(error, asyncpg.PostgresError):
        state = getattr(error, "sqlstate", None) or ""
        return state in _LOST or state.startswith("08")
    if isinstance(error, asyncpg.exceptions.OutdatedSchemaCacheError):
        return False
    return isinstance(error, OSError | EOFError | asyncpg.InterfaceError | asyncpg.InternalClientError)


def unknown(error: BaseException) -> ProviderError:
    """Return the error of a change whose answer was lost."""
    message = "The connection was lost before the server answered; the change may have taken effect."
    return _made(ErrorCode.OUTCOME_UNKNOWN, message, error)


def refused(error: BaseException) -> ProviderError:
    """Return the error of a connection that could not be opened."""
    import asyncpg

    if isinstance(error, ssl.SSLError):
        message = "The server's certificate is not trusted. Set tls_authority, or tls to the mode the server has."
        return _made(ErrorCode.FAILED_PRECONDITION, message, error)
    if isinstance(error, ConnectionError) and "SSL" in str(error):
        return _made(ErrorCode.FAILED_PRECONDITION, "The server has no TLS. Set tls to disable.", error)
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return _made(ErrorCode.UNAUTHENTICATED, "The server refuses the user or its password.", error)
    if isinstance(error, TimeoutError):
        return _made(ErrorCode.UNAVAILABLE, "The server did not answer in time.", error, pause=5.0)
    if isinstance(error, OSError):
        return _made(ErrorCode.UNAVAILABLE, "The server cannot be reached.", error, pause=5.0)
    return explained(error)


def _told(error: Any) -> ProviderError:
    state = error.sqlstate or "XX000"
    code = _STATES.get(state) or _CLASSES.get(state[:2]) or ErrorCode.INTERNAL
    text = _TEXTS.get(state) or f"PostgreSQL: {str(error).rstrip('.')}."
    return _made(code, text, error, pause=1.0 if code is ErrorCode.UNAVAILABLE else None, detail=f"{state}: {error}")


def _unfit(error: BaseException, pointer: str) -> ProviderError:
    reason = re.sub(r".*\((.*)\)\Z", r"\1", str(error), flags=re.DOTALL)[:200]
    wrong = FieldError(pointer, f"does not fit its place in the statement: {reason}")
    return ProviderError(ErrorCode.INVALID_ARGUMENT, "A parameter has another type than its place.", errors=[wrong])


def _made(
    code: ErrorCode, text: str, error: BaseException, *, pause: float | None = None, detail: str | None = None
) -> ProviderError:
    made = ProviderError(code, text, detail=detail or f"{type(error).__name__}: {error}", retry_after_seconds=pause)
    made.__cause__ = error
    return made
