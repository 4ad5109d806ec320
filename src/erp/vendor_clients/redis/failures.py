"""What a failure of Redis means for the caller.

The first error of a reply is its code (https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors), which
redis-py turns into an exception type. Whether a request may have been carried out depends on how far it came: one that was
never sent has had no effect, and one whose answer was lost may have had.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from erp.runtime.spi import ErrorCode, ProviderError

RETRY_SECONDS = 1.0

_MESSAGES: Mapping[ErrorCode, str] = {
    ErrorCode.UNAUTHENTICATED: "Redis refused the user name or password.",
    ErrorCode.PERMISSION_DENIED: "The Redis user may not run a command that is needed; see the README for its rights.",
    ErrorCode.FAILED_PRECONDITION: "Redis holds something else under a key of this connection; use another key_prefix.",
    ErrorCode.UNAVAILABLE: "Redis cannot serve the request now.",
    ErrorCode.INTERNAL: "Redis answered with an error that was not foreseen.",
}


@cache
def table() -> Mapping[type[BaseException], ErrorCode]:
    """Exception type -> error code of replies and of connecting; the most specific type wins."""
    from redis import exceptions

    return {
        exceptions.AuthenticationError: ErrorCode.UNAUTHENTICATED,
        exceptions.AuthenticationWrongNumberOfArgsError: ErrorCode.UNAUTHENTICATED,
        exceptions.AuthorizationError: ErrorCode.PERMISSION_DENIED,
        exceptions.NoPermissionError: ErrorCode.PERMISSION_DENIED,
        exceptions.OutOfMemoryError: ErrorCode.UNAVAILABLE,
        exceptions.ReadOnlyError: ErrorCode.UNAVAILABLE,
        exceptions.BusyLoadingError: ErrorCode.UNAVAILABLE,
        exceptions.ClusterDownError: ErrorCode.UNAVAILABLE,
        exceptions.ClusterError: ErrorCode.UNAVAILABLE,
        exceptions.TryAgainError: ErrorCode.UNAVAILABLE,
        exceptions.RedisClusterException: ErrorCode.UNAVAILABLE,
        exceptions.ConnectionError: ErrorCode.UNAVAILABLE,
        exceptions.TimeoutError: ErrorCode.UNAVAILABLE,
        exceptions.ResponseError: ErrorCode.INTERNAL,
        exceptions.RedisError: ErrorCode.INTERNAL,
        OSError: ErrorCode.UNAVAILABLE,
    }


_BY_REPLY: Mapping[str, ErrorCode] = {
    "WRONGTYPE": ErrorCode.FAILED_PRECONDITION,
    "NOAUTH": ErrorCode.UNAUTHENTICATED,
    "WRONGPASS": ErrorCode.UNAUTHENTICATED,
    "NOREPLICAS": ErrorCode.UNAVAILABLE,
    "MISCONF": ErrorCode.UNAVAILABLE,
    "BUSY": ErrorCode.UNAVAILABLE,
    "LOADING": ErrorCode.UNAVAILABLE,
    "MASTERDOWN": ErrorCode.UNAVAILABLE,
    "UNKILLABLE": ErrorCode.UNAVAILABLE,
}
"""Error codes of replies for which redis-py has no exception of its own."""

_FORBIDDEN_IN_SCRIPT = "The user executing the script can't"
"""How Redis refuses a command of a script; it has no code of its own."""


def explained(error: BaseException) -> ProviderError:
    """Return what a failure means that came before the request was sent, or as its answer."""
    code = _code(error)
    pause = RETRY_SECONDS if code is ErrorCode.UNAVAILABLE else None
    made = ProviderError(code, _MESSAGES[code], detail=f"{type(error).__name__}: {error}", retry_after_seconds=pause)
    made.__cause__ = error
    return made


def lost(error: BaseException, *, repeatable: bool) -> ProviderError:
    """Return what it means that a request was sent and its answer was lost."""
    if repeatable:
        message = "The connection to Redis broke before the answer came."
        made = ProviderError(ErrorCode.UNAVAILABLE, message, detail=_text(error), retry_after_seconds=RETRY_SECONDS)
    else:
        message = "The answer of Redis was lost; the request may have taken effect."
        made = ProviderError(ErrorCode.OUTCOME_UNKNOWN, message, detail=_text(error))
    made.__cause__ = error
    return made


def _code(error: BaseException) -> ErrorCode:
    if type(error).__name__ == "RedisClusterException" and error.__cause__ is not None:
        return _code(error.__cause__)  # no node could be asked, each for a reason such as this
    found = next((table()[kind] for kind in type(error).__mro__ if kind in table()), ErrorCode.INTERNAL)
    if found is not ErrorCode.INTERNAL:
        return found
    text = str(error)
    if _FORBIDDEN_IN_SCRIPT in text:
        return ErrorCode.PERMISSION_DENIED
    return _BY_REPLY.get(text.split(" ", 1)[0], found)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
