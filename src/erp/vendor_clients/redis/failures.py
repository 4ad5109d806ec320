"""What a failure of Redis means for the caller.

The first word of an error reply is its code (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors),
which redis-py turns into an exception type. Whether a request may have been carried out depends on how far it came: one
that was never sent has had no effect, and one whose answer was lost may have had.
"""

from __future__ import annotations

from collections.abc import Mapping

from redis import exceptions

from erp.runtime.spi import ErrorCode, ErrorTable, ProviderError

RETRY_SECONDS = 1.0

TABLE: ErrorTable = {
    exceptions.AuthenticationError: ErrorCode.UNAUTHENTICATED,
    exceptions.AuthenticationWrongNumberOfArgsError: ErrorCode.UNAUTHENTICATED,
    exceptions.AuthorizationError: ErrorCode.PERMISSION_DENIED,
    exceptions.NoPermissionError: ErrorCode.PERMISSION_DENIED,
    exceptions.OutOfMemoryError: ErrorCode.UNAVAILABLE,
    exceptions.ReadOnlyError: ErrorCode.UNAVAILABLE,
    exceptions.BusyLoadingError: ErrorCode.UNAVAILABLE,
    exceptions.ClusterError: ErrorCode.UNAVAILABLE,
    exceptions.ClusterDownError: ErrorCode.UNAVAILABLE,
    exceptions.TryAgainError: ErrorCode.UNAVAILABLE,
    exceptions.RedisClusterException: ErrorCode.UNAVAILABLE,
    exceptions.ConnectionError: ErrorCode.UNAVAILABLE,
    exceptions.TimeoutError: ErrorCode.UNAVAILABLE,
    exceptions.ResponseError: ErrorCode.INTERNAL,
    exceptions.RedisError: ErrorCode.INTERNAL,
    OSError: ErrorCode.UNAVAILABLE,
}
"""Exception type -> error code; the most specific type wins."""

_BY_REPLY: Mapping[str, ErrorCode] = {
    "WRONGTYPE": ErrorCode.FAILED_PRECONDITION,
    "NOREPLICAS": ErrorCode.UNAVAILABLE,
    "MISCONF": ErrorCode.UNAVAILABLE,
    "BUSY": ErrorCode.UNAVAILABLE,
}
"""Codes of replies for which redis-py has no exception of its own."""

_FORBIDDEN_IN_SCRIPT = "The user executing the script can't"
"""How Redis refuses a command of a script; it has no code of its own."""

CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"
"""What OpenSSL's text contains; redis-py keeps the text alone."""

_MESSAGES: Mapping[ErrorCode, str] = {
    ErrorCode.UNAUTHENTICATED: "Redis refused the user name or password.",
    ErrorCode.PERMISSION_DENIED: "The Redis user may not run a command that is needed; see the README for its rights.",
    ErrorCode.FAILED_PRECONDITION: "Redis holds something else under a key of this connection; use another key_prefix.",
    ErrorCode.UNAVAILABLE: "Redis cannot serve the request now.",
    ErrorCode.INTERNAL: "Redis answered with an error that was not foreseen.",
}


def explained(error: BaseException) -> ProviderError:
    """Return what a failure means that came before the request was sent, or as its answer."""
    refused = _refusal(error)
    if refused is not None:
        return ProviderError(refused.code, refused.message, retry_after_seconds=refused.retry_after_seconds)
    if CERTIFICATE in str(error):
        message = "The server's certificate is not trusted or is another one's; name its authority in tls_ca."
        return ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=_text(error))
    code = _code(error)
    pause = RETRY_SECONDS if code is ErrorCode.UNAVAILABLE else None
    return ProviderError(code, _MESSAGES[code], detail=_text(error), retry_after_seconds=pause)


def after_sending(error: Exception, *, repeatable: bool) -> ProviderError:
    """Return what a failure means of a request that was, or may have been, sent."""
    if not _is_lost(error):
        return explained(error)
    if repeatable:
        message = "The connection to Redis broke before the answer came."
        return ProviderError(ErrorCode.UNAVAILABLE, message, detail=_text(error), retry_after_seconds=RETRY_SECONDS)
    message = "The answer of Redis was lost; the request may have taken effect."
    return ProviderError(ErrorCode.OUTCOME_UNKNOWN, message, detail=_text(error))


def _is_lost(error: Exception) -> bool:
    """Whether no answer came; an answer that is an error is another matter, and has a type of its own."""
    if _refusal(error) is not None:
        return False
    return type(error) in {exceptions.ConnectionError, exceptions.TimeoutError} or isinstance(error, OSError)


def _refusal(error: BaseException) -> ProviderError | None:
    """Why the address was not connected to at all; redis-py wraps it, and a cluster wraps that."""
    cause: BaseException | None = error
    for _ in range(4):
        if cause is None or isinstance(cause, ProviderError):
            return cause
        cause = cause.__cause__
    return None


def _code(error: BaseException) -> ErrorCode:
    if type(error) is exceptions.RedisClusterException and error.__cause__ is not None:
        return _code(error.__cause__)  # no node could be asked, each for a reason such as this
    found = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), ErrorCode.INTERNAL)
    if found is not ErrorCode.INTERNAL:
        return found
    text = str(error)
    if _FORBIDDEN_IN_SCRIPT in text:
        return ErrorCode.PERMISSION_DENIED
    return _BY_REPLY.get(text.split(" ", 1)[0], found)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
