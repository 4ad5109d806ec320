"""What the headers of a request say, read in one pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.telemetry.ids import continued, new_request_id

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_HEADER_BYTES = 32 * 1024

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")
_CONNECTION = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")
_USER = re.compile(r"^[\x21-\x7e]{1,255}$")
_ASYNC = re.compile(r"(?:^|[,;\s])respond-async(?:$|[,;\s])")
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")

_WANTED = {
    b"authorization": "authorization",
    b"x-api-key": "api_key",
    b"x-request-id": "request_id",
    b"x-tenant-id": "tenant",
    b"x-user-id": "user",
    b"x-connection": "connection",
    b"idempotency-key": "idempotency_key",
    b"traceparent": "parent",
    b"prefer": "prefer",
    b"accept": "accept",
    b"content-type": "content_type",
    b"content-length": "content_length",
    b"cookie": "cookie",
    b"x-csrf-token": "csrf",
    b"sec-fetch-site": "fetch_site",
}


class Inbound:
    """The headers a call depends on."""

    __slots__ = (
        "accept",
        "api_key",
        "authorization",
        "connection",
        "content_length",
        "content_type",
        "cookie",
        "csrf",
        "fetch_site",
        "idempotency_key",
        "parent",
        "prefer",
        "request_id",
        "size",
        "tenant",
        "traceparent",
        "user",
    )

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.authorization: str | None = None
        self.api_key: str | None = None
        self.request_id: str = ""
        self.tenant: str | None = None
        self.user: str | None = None
        self.connection: str = ""
        self.idempotency_key: str | None = None
        self.parent: str | None = None
        self.prefer: str | None = None
        self.accept: str | None = None
        self.content_type: str | None = None
        self.content_length: str | None = None
        self.cookie: str | None = None
        self.csrf: str | None = None
        self.fetch_site: str | None = None
        self.size = 0
        for name, value in headers:
            self.size += len(name) + len(value)
            slot = _WANTED.get(name)
            if slot is not None:
                setattr(self, slot, value.decode("latin-1"))
        if not self.request_id or not _REQUEST_ID.match(self.request_id):
            self.request_id = new_request_id()
        self.traceparent = continued(self.parent)

    @property
    def is_without_credential(self) -> bool:
        """Whether the request brings neither a key nor a token."""
        return self.authorization is None and self.api_key is None

    @property
    def credential(self) -> str:
        """The API key or token.

        Raises:
            ProviderError: ``unauthenticated`` when there is none.
        """
        scheme, _, token = (self.authorization or "").partition(" ")
        if token and scheme.lower() == "bearer":
            return token.strip()
        if self.api_key:
            return self.api_key
        message = 'The request carries no credential. Send "Authorization: Bearer KEY" or "X-API-Key: KEY".'
        raise ProviderError(ErrorCode.UNAUTHENTICATED, message)

    def check(self) -> None:
        """Refuse headers that cannot be right.

        Raises:
            ProviderError: ``invalid_argument`` naming each header.
        """
        if self.size > MAX_HEADER_BYTES:
            message = f"The headers are larger than {MAX_HEADER_BYTES} bytes."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, status=431)
        wrong = []
        if self.connection and not _CONNECTION.match(self.connection):
            hint = "Use lower-case letters, digits, - and _; at most 64."
            wrong.append(FieldError("/headers/X-Connection", hint))
        if self.user is not None and not _USER.match(self.user):
            wrong.append(FieldError("/headers/X-User-Id", "Use 1 to 255 visible ASCII characters."))
        if wrong:
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A header is malformed; see errors[].", errors=wrong)

    @property
    def respond_async(self) -> bool:
        """``Prefer: respond-async`` (RFC 7240, section 4.1): the caller does not want to wait for the end."""
        return bool(self.prefer and _ASYNC.search(self.prefer))

    @property
    def wait_seconds(self) -> float | None:
        """``Prefer: wait=n`` (RFC 7240, section 4.3): the longest the caller wants to wait."""
        match = _WAIT.search(self.prefer) if self.prefer else None
        return float(match[1]) if match else None
