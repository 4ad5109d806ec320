"""How a call fails, wherever in the layer it does."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from erp.contracts.models.errors import ErrorCode


class FieldError(msgspec.Struct, frozen=True):
    """One thing wrong with a request: where (JSON Pointer, RFC 6901) and what to do."""

    pointer: str
    message: str


class ProviderError(Exception):
    """A call ended without its result.

    ``message`` is for the caller and must carry no secret; ``detail`` is for the engineer and
    goes to the log only.
    """

    def __init__(
        self,
        code: ErrorCode | str,
        message: str,
        *,
        detail: str | None = None,
        retry_after_seconds: float | None = None,
        retryable: bool | None = None,
        status: int | None = None,
        errors: Sequence[FieldError] = (),
    ) -> None:
        super().__init__(message)
        self.code = ErrorCode(code)
        self.message = message
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.retryable = self.code.spec.retryable if retryable is None else retryable
        self.status = status or self.code.spec.status
        """HTTP status: the code's own, or a more precise one of the same meaning (413, 422)."""
        self.errors = tuple(errors)

    def __repr__(self) -> str:
        return f"ProviderError({self.code.value!r}, {self.message!r})"
