"""How peers sign their webhooks: a table of rows, one reader for all of them.

SCHEMES                  the rows known by name; a connection can configure rows of its own
read(scheme, ...)        verifies one request; what it says about itself

Sources of the rows: the Standard Webhooks specification; the vendors' documentation of webhook signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets as random_source
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from erp.vendor_clients.standard_webhooks import InvalidSecretError, SigningKeys, generate_secret

TOLERANCE_SECONDS = 300.0
MAX_ID_LENGTH = 256
_MAX_SIGNATURES = 32
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class RefusedError(Exception):
    """The request does not prove that it is the peer's and fresh. The text says which rule failed, never a secret."""


class Scheme(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a peer puts what. Header names are in lower case; an id or name comes from a header or a JSON Pointer."""

    proof: Literal["hmac_sha256", "secret_in_header", "path"] = "hmac_sha256"
    """``path``: knowing the unguessable path is the only proof."""
    signature_header: str = ""
    separator: str | None = None
    """Between several signatures or ``name=value`` parts of the header."""
    prefix: str = ""
    """Stands before each signature, such as ``sha256=`` or ``v1,``."""
    encoding: Literal["hex", "base64"] = "hex"
    key_form: Literal["text", "standard_webhooks"] = "text"
    signed: str = "{body}"
    """What the signature covers: ``{id}``, ``{timestamp}`` and ``{body}`` with anything around."""
    timestamp_header: str | None = None
    timestamp_part: str | None = None
    """Name of the part of the signature header that holds the time, such as ``t``."""
    tolerance_seconds: float = TOLERANCE_SECONDS
    id_header: str | None = None
    id_pointer: str | None = None
    name_header: str | None = None
    name_pointer: str | None = None

    def __post_init__(self) -> None:
        """Refuse a row that could not prove anything."""
        if self.proof != "path" and not self.signature_header:
            raise ValueError("signature_header is missing")
        if self.proof == "hmac_sha256" and "{body}" not in self.signed:
            raise ValueError("signed does not contain {body}: the signature would not cover the message")
        if "{timestamp}" in self.signed and not (self.timestamp_header or self.timestamp_part):
            raise ValueError("signed needs a timestamp: give timestamp_header or timestamp_part")
        if "{id}" in self.signed and not self.id_header:
            raise ValueError("signed needs an id: give id_header")


SCHEMES: Mapping[str, Scheme] = {
    "standard_webhooks": Scheme(
        signature_header="webhook-signature",
        separator=" ",
        prefix="v1,",
        encoding="base64",
        key_form="standard_webhooks",
        signed="{id}.{timestamp}.{body}",
        timestamp_header="webhook-timestamp",
        id_header="webhook-id",
        name_pointer="/type",
    ),
    "hmac_sha256": Scheme(signature_header="x-signature", name_pointer="/type"),
    "github": Scheme(
        signature_header="x-hub-signature-256",
        prefix="sha256=",
        id_header="x-github-delivery",
        name_header="x-github-event",
    ),
    "stripe": Scheme(
        signature_header="stripe-signature",
        separator=",",
        prefix="v1=",
        signed="{timestamp}.{body}",
        timestamp_part="t",
        id_pointer="/id",
        name_pointer="/type",
    ),
    "shopify": Scheme(
        signature_header="x-shopify-hmac-sha256",
        encoding="base64",
        id_header="x-shopify-webhook-id",
        name_header="x-shopify-topic",
    ),
    "gitlab": Scheme(
        proof="secret_in_header",
        signature_header="x-gitlab-token",
        id_header="idempotency-key",
        name_header="x-gitlab-event",
    ),
    "token": Scheme(proof="path", id_header="webhook-id", name_pointer="/type"),
}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What an authentic request says."""

    id: str
    name: str
    sent_at: float | None
    """When the peer signed it, if it says so under its signature."""


def new_secret(scheme: Scheme) -> str | None:
    """A secret for the scheme; None when it has none."""
    if scheme.proof == "path":
        return None
    return generate_secret() if scheme.key_form == "standard_webhooks" else random_source.token_urlsafe(32)


def check_secret(scheme: Scheme, secret: str) -> None:
    """Refuse a secret that the scheme cannot use.

    Raises:
        InvalidSecretError: the text never repeats the secret.
    """
    if scheme.proof == "path":
        raise InvalidSecretError("The scheme has no secret; its path is the proof.")
    if scheme.key_form == "standard_webhooks":
        SigningKeys([secret])
    elif len(secret) < 16 or not secret.isprintable():  # noqa: PLR2004
        raise InvalidSecretError("The secret must have at least 16 printable characters.")


def read(scheme: Scheme, secrets: list[str], headers: Mapping[str, str], body: bytes, now: float) -> Facts:
    """Verify a request against any of ``secrets`` and return what it says.

    Raises:
        RefusedError: whatever is wrong, however malformed the request is.
    """
    timestamp = _timestamp(scheme, headers)
    if scheme.proof != "path":
        _check_proof(scheme, secrets, headers, timestamp, body)
    if timestamp is not None:
        _check_age(float(timestamp), scheme.tolerance_seconds, now)
    document = _document(body) if scheme.id_pointer or scheme.name_pointer else None
    name = _text(headers, scheme.name_header, document, scheme.name_pointer) or "webhook"
    id_ = _text(headers, scheme.id_header, document, scheme.id_pointer)
    if id_ is None:
        id_ = f"sha256_{hashlib.sha256(body).hexdigest()}"
    return Facts(id=_bounded(id_), name=name[:MAX_ID_LENGTH], sent_at=None if timestamp is None else float(timestamp))


def _timestamp(scheme: Scheme, headers: Mapping[str, str]) -> str | None:
    """The time as it was signed; None for a scheme without one."""
    if scheme.timestamp_header is not None:
        found = headers.get(scheme.timestamp_header, "")
    elif scheme.timestamp_part is not None:
        marker = f"{scheme.timestamp_part}="
        parts = [part.strip() for part in headers.get(scheme.signature_header, "").split(scheme.separator or ",")]
        found = next((part.removeprefix(marker) for part in parts if part.startswith(marker)), "")
    else:
        return None
    if not _TIMESTAMP.fullmatch(found):
        raise RefusedError("The time of the message is missing or not whole seconds.")
    return found


def _check_proof(
    scheme: Scheme, secrets: list[str], headers: Mapping[str, str], timestamp: str | None, body: bytes
) -> None:
    offered = _offered(scheme, headers)
    if scheme.proof == "secret_in_header":
        expected = [secret.encode() for secret in secrets]
    else:
        signed = _signed(scheme, headers, timestamp, body)
        expected = [hmac.digest(_key(scheme, secret), signed, hashlib.sha256) for secret in secrets]
    # Every pair is compared, so that the time taken does not tell which one matched.
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in offered]
    if not any(matches):
        raise RefusedError("No signature matches.")


def _offered(scheme: Scheme, headers: Mapping[str, str]) -> list[bytes]:
    text = headers.get(scheme.signature_header)
    if not text:
        raise RefusedError(f"The header {scheme.signature_header} is missing.")
    parts = text.split(scheme.separator)[:_MAX_SIGNATURES] if scheme.separator else [text]
    trimmed = [part.strip() for part in parts]
    values = [part.removeprefix(scheme.prefix) for part in trimmed if part.startswith(scheme.prefix)]
    if scheme.proof == "secret_in_header":
        return [value.encode() for value in values]
    return [digest for digest in (_decoded(scheme, value) for value in values) if digest is not None]


def _decoded(scheme: Scheme, value: str) -> bytes | None:
    try:
        return bytes.fromhex(value) if scheme.encoding == "hex" else base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


def _signed(scheme: Scheme, headers: Mapping[str, str], timestamp: str | None, body: bytes) -> bytes:
    before, _, after = scheme.signed.partition("{body}")
    values = {"{timestamp}": timestamp or "", "{id}": headers.get(scheme.id_header or "", "")}
    if "{id}" in scheme.signed and not values["{id}"]:
        raise RefusedError(f"The header {scheme.id_header} is missing.")
    return _filled(before, values) + body + _filled(after, values)


def _filled(template: str, values: Mapping[str, str]) -> bytes:
    parts = re.split(r"(\{timestamp\}|\{id\})", template)
    return "".join(values.get(part, part) for part in parts).encode()


def _key(scheme: Scheme, secret: str) -> bytes:
    if scheme.key_form == "text":
        return secret.encode()
    text = secret.removeprefix("whsec_")
    return base64.b64decode(text + "=" * (-len(text) % 4))


def _check_age(sent_at: float, tolerance_seconds: float, now: float) -> None:
    if sent_at < now - tolerance_seconds:
        raise RefusedError("The message is too old.")
    if sent_at > now + tolerance_seconds:
        raise RefusedError("The message is from the future.")


def _document(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _text(headers: Mapping[str, str], header: str | None, document: Any, pointer: str | None) -> str | None:
    if header is not None and headers.get(header):
        return headers[header]
    if pointer is None:
        return None
    found = document
    for step in pointer.split("/")[1:]:
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    if isinstance(found, bool) or not isinstance(found, str | int):
        return None
    return str(found) or None


def _bounded(id_: str) -> str:
    """An id of any length as one that can be stored and compared."""
    is_plain = len(id_) <= MAX_ID_LENGTH and id_.isprintable()
    return id_ if is_plain else f"sha256_{hashlib.sha256(id_.encode('utf-8', 'replace')).hexdigest()}"
