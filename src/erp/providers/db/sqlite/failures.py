"""What SQLite's result codes mean for a caller (https://www.sqlite.org/rescode.html)."""

from __future__ import annotations

import re
import sqlite3

from erp.runtime.spi import ErrorCode, ProviderError

_MEANINGS = {
    "SQLITE_CONSTRAINT_UNIQUE": ErrorCode.ALREADY_EXISTS,
    "SQLITE_CONSTRAINT_PRIMARYKEY": ErrorCode.ALREADY_EXISTS,
    "SQLITE_CONSTRAINT_ROWID": ErrorCode.ALREADY_EXISTS,
    "SQLITE_CONSTRAINT": ErrorCode.FAILED_PRECONDITION,
    "SQLITE_MISMATCH": ErrorCode.INVALID_ARGUMENT,
    "SQLITE_AUTH": ErrorCode.INVALID_ARGUMENT,
    "SQLITE_READONLY": ErrorCode.INVALID_ARGUMENT,
    "SQLITE_ERROR": ErrorCode.INVALID_ARGUMENT,
    "SQLITE_RANGE": ErrorCode.INVALID_ARGUMENT,
    "SQLITE_TOOBIG": ErrorCode.INVALID_ARGUMENT,
    "SQLITE_BUSY": ErrorCode.UNAVAILABLE,
    "SQLITE_LOCKED": ErrorCode.UNAVAILABLE,
    "SQLITE_FULL": ErrorCode.UNAVAILABLE,
    "SQLITE_IOERR": ErrorCode.UNAVAILABLE,
    "SQLITE_CANTOPEN": ErrorCode.UNAVAILABLE,
    "SQLITE_NOMEM": ErrorCode.UNAVAILABLE,
    "SQLITE_INTERRUPT": ErrorCode.TIMEOUT,
}
_OWN_NAMES = re.compile(r"erp_[0-9a-f]{32}_")
"""Names of the provider that nobody may learn."""
_TEXTS = {
    "SQLITE_AUTH": "The statement does what is not allowed here: query only reads, execute changes only its own database.",
    "SQLITE_READONLY": "A query cannot write. Use execute.",
    "SQLITE_FULL": "The disk is full; nothing was changed.",
    "SQLITE_INTERRUPT": "The statement took longer than it may; it was stopped and changed nothing.",
}


def explained(error: sqlite3.Error | UnicodeEncodeError) -> ProviderError:
    """Return ``error`` as the contract names it."""
    if isinstance(error, UnicodeEncodeError):
        return ProviderError(
            ErrorCode.INVALID_ARGUMENT, "A text is not valid Unicode: it has half of a surrogate pair."
        )
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError | sqlite3.Warning):
        return ProviderError(ErrorCode.INVALID_ARGUMENT, f"SQLite refused the statement: {str(error).rstrip('.')}.")
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    if "not authorized" in str(error):
        # Some statements are refused half-way through their compilation, under a code that is not SQLITE_AUTH.
        name = "SQLITE_AUTH"
    family = next((known for known in (name, "_".join(name.split("_")[:2])) if known in _MEANINGS), None)
    code = _MEANINGS[family] if family else ErrorCode.INTERNAL
    text = _TEXTS.get(family or "", f"SQLite: {_OWN_NAMES.sub('', str(error))}.")
    pause = 0.1 if code is ErrorCode.UNAVAILABLE else None
    return ProviderError(code, text, detail=f"{name}: {_OWN_NAMES.sub('', str(error))}", retry_after_seconds=pause)


def closed() -> ProviderError:
    """Return the error of a call that comes after ``close``, or before ``open``."""
    return ProviderError(ErrorCode.UNAVAILABLE, "The database is closed.", retry_after_seconds=1.0)
