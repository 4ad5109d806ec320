"""What object stores refuse with, and what that means; one table for all of them.

Sources: Amazon S3 API reference, "Error responses"; Azure Blob storage, "Blob service error codes"; Cloud Storage XML
API, "HTTP status and error codes"; MinIO, ``cmd/api-errors.go``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from erp.runtime.spi import ErrorCode, ErrorTable, FieldError, ProviderError
from erp.vendor_clients.egress import EgressRefusedError
from erp.vendor_clients.guarded_http import Answer, AnswerLostError, AnswerTimedOutError, ConnectFailedError
from erp.vendor_clients.retry_after import retry_after_seconds

TRANSLATE: ErrorTable = {
    EgressRefusedError: ErrorCode.FAILED_PRECONDITION,
    ConnectFailedError: ErrorCode.UNAVAILABLE,
    AnswerLostError: ErrorCode.UNAVAILABLE,
    AnswerTimedOutError: ErrorCode.TIMEOUT,
}

_BUCKET = (ErrorCode.FAILED_PRECONDITION, "The bucket does not exist. Create it, or correct the setting that names it.")
_CREDENTIALS = (ErrorCode.UNAUTHENTICATED, "The store does not accept the credentials of the connection.")
_CONDITION = (ErrorCode.FAILED_PRECONDITION, "The object is not what the call expects any more.")
_UPLOAD = (ErrorCode.NOT_FOUND, "There is no such upload for this key; it may have been completed or aborted.")
_PARTS = (ErrorCode.FAILED_PRECONDITION, "A part has not arrived, or not with this etag. list_parts says which have.")
_REGION = (ErrorCode.FAILED_PRECONDITION, "The bucket is in another region. Correct the region of the connection.")
_BUSY = (ErrorCode.UNAVAILABLE, "The store is busy.")
_LARGE = (ErrorCode.INVALID_ARGUMENT, "The content is larger than the store takes at once. Send it in parts.")
_SMALL = (ErrorCode.FAILED_PRECONDITION, "A part other than the last is smaller than the store takes (S3: 5 MiB).")
_METADATA = (ErrorCode.INVALID_ARGUMENT, "Key and metadata together are longer than the store takes.")
_KEY = (
    ErrorCode.INVALID_ARGUMENT,
    "The store takes no such key: too long between slashes, or with other signs.",
)
_VERSION = (ErrorCode.NOT_FOUND, "There is no such version.")
_KMS = (ErrorCode.FAILED_PRECONDITION, "The store cannot use the encryption key.")

_CODES: dict[str, tuple[ErrorCode, str]] = {
    **dict.fromkeys(("NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "ContainerBeingDeleted"), _BUCKET),
    **dict.fromkeys(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired"),
        _CREDENTIALS,
    ),
    **dict.fromkeys(
        ("AuthenticationFailed", "AuthorizationFailure", "InvalidAuthenticationInfo", "InvalidSecurity"), _CREDENTIALS
    ),
    **dict.fromkeys(("PreconditionFailed", "ConditionNotMet", "BlobAlreadyExists"), _CONDITION),
    **dict.fromkeys(("ConditionalRequestConflict", "UploadIdConflict"), _CONDITION),
    **dict.fromkeys(("NoSuchUpload",), _UPLOAD),
    **dict.fromkeys(("InvalidPart", "InvalidPartOrder", "InvalidBlockList", "InvalidBlockId"), _PARTS),
    **dict.fromkeys(("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"), _REGION),
    **dict.fromkeys(("SlowDown", "ServiceUnavailable", "ServerBusy", "OperationTimedOut"), _BUSY),
    **dict.fromkeys(("EntityTooLarge", "RequestBodyTooLarge", "MaxMessageLengthExceeded"), _LARGE),
    **dict.fromkeys(("EntityTooSmall",), _SMALL),
    **dict.fromkeys(("KeyTooLongError", "MetadataTooLarge", "InvalidMetadata"), _METADATA),
    **dict.fromkeys(("XMinioInvalidObjectName", "XMinioObjectExistsAsDirectory"), _KEY),
    **dict.fromkeys(("NoSuchVersion", "InvalidVersionId", "InvalidVersion"), _VERSION),
    **dict.fromkeys(("KMS.NotFoundException", "KMS.DisabledException", "EncryptionScopeNotFound"), _KMS),
}
_MISSING = frozenset({None, "NoSuchKey", "BlobNotFound", "NoSuchVersion"})
_STATUSES: dict[int, tuple[ErrorCode, str]] = {
    301: _REGION,
    307: _REGION,
    400: (ErrorCode.FAILED_PRECONDITION, "The store refused the request."),
    401: _CREDENTIALS,
    403: (ErrorCode.PERMISSION_DENIED, "The store does not allow this to the credentials of the connection."),
    404: (ErrorCode.NOT_FOUND, "There is no such object."),
    408: _BUSY,
    409: (ErrorCode.CONFLICT, "The store is changing this object for somebody else."),
    412: _CONDITION,
    413: _LARGE,
    429: (ErrorCode.RATE_LIMITED, "The store takes no more requests for now."),
    501: (ErrorCode.UNSUPPORTED, "The store does not know this request."),
}
_SERVER_ERROR = 500
_CODE = re.compile(r"<Code>([A-Za-z.]{1,100})</Code>")
_STATUS = re.compile(r"(?:non-2xx status code|error response): (\d{3})")
_SAID_BY_THE_LIBRARY = {"Received redirect without LOCATION": 301, "InvalidRangeRequest {": 416}
"""Answers that it judges by itself."""
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a store answered instead of a result."""

    status: int
    code: str | None = None
    retry_after_seconds: float | None = None

    @classmethod
    def of(cls, answer: Answer) -> Refusal:
        """Read a complete answer."""
        found = _CODE.search(answer.body[:16_384].decode("utf-8", "replace"))
        code = found[1] if found else answer.headers.get("x-ms-error-code")
        return cls(answer.status, code, retry_after_seconds(answer.headers.get("retry-after")))

    @property
    def is_missing(self) -> bool:
        """Whether it says that the object, and not the bucket, is not there."""
        return self.status == 404 and self.code in _MISSING  # noqa: PLR2004

    def error(self) -> ProviderError:
        """Return what it means."""
        code, message = _CODES.get(self.code or "") or _STATUSES.get(self.status) or _other(self.status)
        pause = self.retry_after_seconds
        if pause is None and code in {ErrorCode.UNAVAILABLE, ErrorCode.RATE_LIMITED}:
            pause = 1.0
        errors = [FieldError("/params", message)] if code is ErrorCode.INVALID_ARGUMENT else []
        detail = f"{self.status} {self.code or ''}"
        return ProviderError(code, message, detail=detail, retry_after_seconds=pause, errors=errors)


class RefusedError(Exception):
    """The store answered with a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.status} {refusal.code or ''}")
        self.refusal = refusal


def _other(status: int) -> tuple[ErrorCode, str]:
    if status >= _SERVER_ERROR:
        return ErrorCode.UNAVAILABLE, "The store failed to answer the request."
    return ErrorCode.INTERNAL, f"The store answered with the unexpected status {status}."


def of_library(error: Exception, name: str) -> Exception:
    """Return what an error of ``obstore`` means, which says it only in its text: a refusal, or why there is no answer.

    ``name`` is taken out of the text first: the caller chose it, and could spell an answer of its own with it.
    """
    text = str(error).replace(name, "") if name else str(error)
    status, kind = _STATUS.search(text), _KIND.search(text)
    if status:
        return _refused(int(status[1]), _CODE.search(text))
    for words, meant in _SAID_BY_THE_LIBRARY.items():
        if words in text:
            return RefusedError(Refusal(meant))
    if kind and kind[1] == "Connect":
        return ConnectFailedError("No connection to the store could be opened.")
    if kind and kind[1] == "Timeout":
        return AnswerTimedOutError("The store did not answer in time.")
    return AnswerLostError("The connection to the store broke before its answer was complete.")


def _refused(status: int, found: re.Match[str] | None) -> Exception:
    code = found[1] if found else None
    if code == "GateRefused":
        return EgressRefusedError("The endpoint has no public address; the operator can allow private networks.")
    if code == "GateUnreachable":
        return ConnectFailedError("No connection to the store could be opened.")
    return RefusedError(Refusal(status, code))


@contextmanager
def of_a_read() -> Iterator[None]:
    """Nothing was changed, whatever broke."""
    try:
        yield
    except RefusedError as error:
        raise error.refusal.error() from error
    except ConnectFailedError as error:
        message = "The store cannot be reached; nothing was sent."
        raise ProviderError(ErrorCode.UNAVAILABLE, message, detail=str(error), retry_after_seconds=1.0) from error
    except AnswerLostError as error:
        message = "The connection to the store broke before its answer was complete."
        raise ProviderError(ErrorCode.UNAVAILABLE, message, detail=str(error), retry_after_seconds=1.0) from error
    except (AnswerTimedOutError, TimeoutError) as error:
        raise ProviderError(ErrorCode.TIMEOUT, "The store did not answer in time.", detail=str(error)) from error
    except EgressRefusedError as error:
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error)) from error


@contextmanager
def of_a_write(*, is_conditional: bool = False) -> Iterator[None]:
    """A write without an answer may have happened: repeating it is safe, unless it depends on what is there."""
    try:
        with of_a_read():
            yield
    except ProviderError as error:
        if not _may_have_happened(error.__cause__):
            raise
        if is_conditional:
            message = "The answer of the store was lost; the object may have been written. Repeat the call to find out."
            raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, message, detail=error.detail) from error
        message = "The answer of the store was lost. The write may have happened; repeating it does no harm."
        raise ProviderError(ErrorCode.TIMEOUT, message, detail=error.detail) from error


def _may_have_happened(cause: BaseException | None) -> bool:
    if isinstance(cause, RefusedError):
        return cause.refusal.status in {500, 502, 504}
    return isinstance(cause, (AnswerLostError, AnswerTimedOutError, TimeoutError))
