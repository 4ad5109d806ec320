"""What DuckDB's exceptions mean for a caller (https://duckdb.org/docs/stable/clients/python/overview)."""

from __future__ import annotations

import re

from erp.runtime.spi import ErrorCode, ProviderError

_MEANINGS = {
    "ParserException": ErrorCode.INVALID_ARGUMENT,
    "SyntaxException": ErrorCode.INVALID_ARGUMENT,
    "BinderException": ErrorCode.INVALID_ARGUMENT,
    "CatalogException": ErrorCode.INVALID_ARGUMENT,
    "InvalidInputException": ErrorCode.INVALID_ARGUMENT,
    "InvalidTypeException": ErrorCode.INVALID_ARGUMENT,
    "ConversionException": ErrorCode.INVALID_ARGUMENT,
    "OutOfRangeException": ErrorCode.INVALID_ARGUMENT,
    "TypeMismatchException": ErrorCode.INVALID_ARGUMENT,
    "PermissionException": ErrorCode.INVALID_ARGUMENT,
    "NotImplementedException": ErrorCode.INVALID_ARGUMENT,
    "DependencyException": ErrorCode.FAILED_PRECONDITION,
    "ConstraintException": ErrorCode.FAILED_PRECONDITION,
    "TransactionException": ErrorCode.CONFLICT,
    "InterruptException": ErrorCode.TIMEOUT,
    "OutOfMemoryException": ErrorCode.FAILED_PRECONDITION,
    "IOException": ErrorCode.UNAVAILABLE,
    "ConnectionException": ErrorCode.UNAVAILABLE,
    "FatalException": ErrorCode.UNAVAILABLE,
}
_DUPLICATE = re.compile(r"duplicate key|violates (primary key|unique) constraint", re.IGNORECASE)
_ABORTED = "Current transaction is aborted"
_READ_ONLY = "read-only mode"
_PLACE = re.compile(r"\s*\n\s*LINE \d+:.*", re.DOTALL)
_HINT = re.compile(r"\s*(Did you mean|Candidate bindings)[^\n]*")
_TEXTS = {
    "PermissionException": "The statement reaches beyond its own database, which is not allowed.",
    "InterruptException": "The statement took longer than it may; it was stopped and changed nothing.",
    "OutOfMemoryException": "The statement needs more memory than memory_megabytes allows. Aggregate or select less at once.",
}


def explained(error: Exception) -> ProviderError:
    """Return ``error``, one of DuckDB's, as the contract names it."""
    name, text = type(error).__name__, str(error)
    code = _MEANINGS.get(name, ErrorCode.INVALID_ARGUMENT)
    if _DUPLICATE.search(text):
        code = ErrorCode.ALREADY_EXISTS
    elif _ABORTED in text:
        code, text = ErrorCode.FAILED_PRECONDITION, "A statement of the transaction has failed. Roll it back"
    elif _READ_ONLY in text:
        code, text = ErrorCode.INVALID_ARGUMENT, "A query cannot write. Use execute"
    shown = _TEXTS.get(name) or f"DuckDB: {_HINT.sub('', _PLACE.sub('', text)).strip().rstrip('.')}."
    pause = 0.1 if code in {ErrorCode.UNAVAILABLE, ErrorCode.CONFLICT} else None
    return ProviderError(code, shown, detail=f"{name}: {text.partition(chr(10))[0]}", retry_after_seconds=pause)
