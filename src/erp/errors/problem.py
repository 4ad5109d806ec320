"""RFC 9457 problem documents with the members every answer of the layer carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from erp.errors.provider_error import FieldError

if TYPE_CHECKING:
    from erp.errors.provider_error import ProviderError


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A failed call on the wire (media type ``application/problem+json``)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    remedy: str
    retryable: bool
    owner: str
    correlation_id: str
    instance: str | None = None
    errors: list[FieldError] = []

    @classmethod
    def of(cls, error: ProviderError, *, correlation_id: str, instance: str | None = None) -> Problem:
        """Describe ``error`` for a caller; the engineer's ``detail`` stays behind."""
        spec = error.code.spec
        return cls(
            type=f"urn:erp:error:{error.code.value}",
            title=spec.title,
            status=error.status,
            code=error.code.value,
            detail=error.message,
            remedy=spec.remedy,
            retryable=error.retryable,
            owner=spec.owner,
            correlation_id=correlation_id,
            instance=instance,
            errors=list(error.errors),
        )
