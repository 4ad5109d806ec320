"""What SQL Server's errors mean for a caller. The driver tells classes and texts, not numbers (mssql-python, "Exceptions")."""

from __future__ import annotations

import re
from typing import Any

from erp.runtime.spi import ErrorCode, ProviderError

_MEANINGS: tuple[tuple[str, ErrorCode], ...] = (
    (r"violation of (primary|unique) key|cannot insert duplicate key", ErrorCode.ALREADY_EXISTS),
    (r"there is already an object named|already exists|names in each table must be unique", ErrorCode.ALREADY_EXISTS),
    (r"login failed|password .* expired", ErrorCode.UNAUTHENTICATED),
    (r"cannot open database", ErrorCode.FAILED_PRECONDITION),
    (r"permission was denied|does not have permission|permission denied", ErrorCode.PERMISSION_DENIED),
    (r"invalid object name|cannot find the object|does not exist or you do not have permission", ErrorCode.NOT_FOUND),
    (r"deadlock victim|snapshot isolation transaction aborted", ErrorCode.CONFLICT),
    (r"no corresponding begin transaction|cannot be committed", ErrorCode.FAILED_PRECONDITION),
    (r"lock request time out", ErrorCode.UNAVAILABLE),
    (r"timeout expired|query timeout|operation canceled|operation cancelled", ErrorCode.TIMEOUT),
    (r"certificate|ssl provider", ErrorCode.FAILED_PRECONDITION),
    (r"tcp provider|communication link|unable to establish|login timeout|connection is closed|broken", ErrorCode.UNAVAILABLE),
    (r"conflicted with the (foreign key|check|reference)|cannot insert the value null|column does not allow nulls", ErrorCode.FAILED_PRECONDITION),
)  # fmt: skip
_PATTERNS = [(re.compile(pattern, re.IGNORECASE), code) for pattern, code in _MEANINGS]
_TEXTS = {
    ErrorCode.UNAUTHENTICATED: "The server refuses the user or its password.",
    ErrorCode.TIMEOUT: "The statement took longer than it may; it was stopped and changed nothing.",
    ErrorCode.CONFLICT: "Another transaction was in the way, and this one was undone. Run it again.",
}
_TELLS_NAMES = re.compile(
    r"invalid (object|column) name|incorrect syntax|permission was denied|cannot find the object|could not be bound"
    r"|already an object named|login failed|cannot open database|lock request time out|deadlock victim"
    r"|tcp provider|communication link|login timeout|unable to establish|timeout expired|ssl provider|certificate",
    re.IGNORECASE,
)
"""What is said before a row is read, or about the connection: it holds no value of a row."""
_ORIGIN = re.compile(r"^(\[[^\]]*\])+")


def explained(error: Any, *, is_shared: bool = False) -> ProviderError:
    """Return an error of the driver as the contract names it.

    Args:
        error: the driver's.
        is_shared: whether tenants share tables. The server may compute an expression before it hides a row (Microsoft,
            "Row-level security", side-channel attacks), so what it says may hold a value of another tenant's.
    """
    said = _ORIGIN.sub("", str(getattr(error, "ddbc_error", "") or error)).strip().rstrip(".")
    if is_shared and not _TELLS_NAMES.search(said):
        said = "the statement failed; what the server says of it is not shown where tenants share tables"
    detail = f"{type(error).__name__}: {said[:300]}"
    code = next((code for pattern, code in _PATTERNS if pattern.search(str(error))), None)
    if code is None:
        kinds = {
            "IntegrityError": ErrorCode.FAILED_PRECONDITION,
            "OperationalError": ErrorCode.UNAVAILABLE,
            "InterfaceError": ErrorCode.UNAVAILABLE,
            "InternalError": ErrorCode.UNAVAILABLE,
        }
        code = kinds.get(type(error).__name__, ErrorCode.INVALID_ARGUMENT)
    pause = 1.0 if code is ErrorCode.UNAVAILABLE else None
    return ProviderError(
        code, _TEXTS.get(code) or f"SQL Server: {said[:300]}.", detail=detail, retry_after_seconds=pause
    )


def is_lost(error: BaseException) -> bool:
    """Whether the connection ended, so that nobody knows what became of the statement."""
    return bool(re.search(r"tcp provider|communication link|connection is closed|broken", str(error), re.IGNORECASE))
