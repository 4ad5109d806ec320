"""What MySQL's and MariaDB's error numbers mean for a caller (https://mariadb.com/kb/en/mariadb-error-code-reference/)."""

from __future__ import annotations

import ssl

from erp.runtime.spi import ErrorCode, ProviderError

_NUMBERS = {
    1007: ErrorCode.ALREADY_EXISTS,
    1008: ErrorCode.NOT_FOUND,
    1022: ErrorCode.ALREADY_EXISTS,
    1040: ErrorCode.UNAVAILABLE,
    1041: ErrorCode.UNAVAILABLE,
    1044: ErrorCode.PERMISSION_DENIED,
    1045: ErrorCode.UNAUTHENTICATED,
    1049: ErrorCode.FAILED_PRECONDITION,
    1050: ErrorCode.ALREADY_EXISTS,
    1051: ErrorCode.NOT_FOUND,
    1053: ErrorCode.UNAVAILABLE,
    1061: ErrorCode.ALREADY_EXISTS,
    1062: ErrorCode.ALREADY_EXISTS,
    1086: ErrorCode.PERMISSION_DENIED,
    1114: ErrorCode.UNAVAILABLE,
    1142: ErrorCode.PERMISSION_DENIED,
    1143: ErrorCode.PERMISSION_DENIED,
    1146: ErrorCode.NOT_FOUND,
    1158: ErrorCode.UNAVAILABLE,
    1159: ErrorCode.UNAVAILABLE,
    1160: ErrorCode.UNAVAILABLE,
    1161: ErrorCode.UNAVAILABLE,
    1169: ErrorCode.ALREADY_EXISTS,
    1203: ErrorCode.UNAVAILABLE,
    1205: ErrorCode.UNAVAILABLE,
    1213: ErrorCode.CONFLICT,
    1216: ErrorCode.FAILED_PRECONDITION,
    1217: ErrorCode.FAILED_PRECONDITION,
    1227: ErrorCode.PERMISSION_DENIED,
    1290: ErrorCode.FAILED_PRECONDITION,
    1317: ErrorCode.TIMEOUT,
    1451: ErrorCode.FAILED_PRECONDITION,
    1452: ErrorCode.FAILED_PRECONDITION,
    1586: ErrorCode.ALREADY_EXISTS,
    1690: ErrorCode.INVALID_ARGUMENT,
    1698: ErrorCode.UNAUTHENTICATED,
    1792: ErrorCode.INVALID_ARGUMENT,
    1836: ErrorCode.FAILED_PRECONDITION,
    1927: ErrorCode.UNAVAILABLE,
    1969: ErrorCode.TIMEOUT,
    3024: ErrorCode.TIMEOUT,
    3572: ErrorCode.UNAVAILABLE,
    3819: ErrorCode.FAILED_PRECONDITION,
    4025: ErrorCode.FAILED_PRECONDITION,
    1048: ErrorCode.FAILED_PRECONDITION,
    1364: ErrorCode.FAILED_PRECONDITION,
}
_TEXTS = {
    1040: "The server has no connection left.",
    1045: "The server refuses the user or its password.",
    1114: "The server's disk or table space is full; nothing was changed.",
    1142: "The login may not do this. A query cannot write: use execute.",
    1205: "Another transaction holds the rows for too long.",
    1213: "Two transactions waited for each other; this one was undone. Run it again.",
    1317: "The statement took longer than it may; it was stopped and changed nothing.",
    1698: "The server refuses the user or its password.",
    1792: "A query cannot write. Use execute.",
    1969: "The statement took longer than it may; it was stopped and changed nothing.",
    3024: "The statement took longer than it may; it was stopped and changed nothing.",
}
DEADLOCK = 1213
_FIRST_OF_DRIVER, _LAST_OF_DRIVER = 2000, 2999
_LOST = frozenset({1053, 1158, 1159, 1160, 1161, 1927})


def number_of(error: BaseException) -> int:
    """Return the number of an error of the server or the driver; 0 where there is none."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def is_lost(error: BaseException) -> bool:
    """Whether the connection ended, so that nobody knows what became of the statement."""
    import asyncmy.errors

    if isinstance(error, asyncmy.errors.MySQLError):
        number = number_of(error)
        return number in _LOST or _FIRST_OF_DRIVER <= number <= _LAST_OF_DRIVER or number == 0
    return isinstance(error, OSError | EOFError)


def explained(error: BaseException) -> ProviderError:
    """Return ``error`` of asyncmy as the contract names it; a lost connection as ``unavailable``."""
    import asyncmy.errors

    if isinstance(error, ProviderError):
        return error
    if is_lost(error):
        return _made(ErrorCode.UNAVAILABLE, "The connection to the server was lost.", error, pause=1.0)
    if not isinstance(error, asyncmy.errors.MySQLError):
        return _made(ErrorCode.INTERNAL, "The driver of MySQL failed in a way that was not foreseen.", error)
    number = number_of(error)
    code = _NUMBERS.get(number, ErrorCode.INVALID_ARGUMENT)
    said = str(error.args[1]) if len(error.args) > 1 else str(error)
    text = _TEXTS.get(number) or f"MySQL: {said.rstrip('.')}."
    return _made(code, text, error, pause=1.0 if code is ErrorCode.UNAVAILABLE else None)


def unknown(error: BaseException) -> ProviderError:
    """Return the error of a change whose answer was lost."""
    message = "The connection was lost before the server answered; the change may have taken effect."
    return _made(ErrorCode.OUTCOME_UNKNOWN, message, error)


def refused(error: BaseException) -> ProviderError:
    """Return the error of a connection that could not be opened."""
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        message = "The server's certificate is not trusted. Set tls_authority, or tls to the mode the server has."
        return _made(ErrorCode.FAILED_PRECONDITION, message, error)
    if "SSL" in str(error):
        return _made(ErrorCode.FAILED_PRECONDITION, "The server has no TLS. Set tls to disable.", error)
    if isinstance(error, TimeoutError):
        return _made(ErrorCode.UNAVAILABLE, "The server did not answer in time.", error, pause=5.0)
    if is_lost(error):
        return _made(ErrorCode.UNAVAILABLE, "The server cannot be reached.", error, pause=5.0)
    return explained(error)


def _made(code: ErrorCode, text: str, error: BaseException, *, pause: float | None = None) -> ProviderError:
    said = " ".join(str(part) for part in error.args)[:300]
    made = ProviderError(code, text, detail=f"{type(error).__name__}: {said}", retry_after_seconds=pause)
    made.__cause__ = error
    return made
