"""Signing and verifying of webhooks as the Standard Webhooks specification says (symmetric scheme ``v1``).

SigningKeys(secrets)     one current secret, and older ones during a rotation
  .headers(...)          the three headers of an outgoing message, signed with every secret
  .verify(...)           checks an incoming message; raises WebhookVerificationError and nothing else
generate_secret()        a new ``whsec_`` secret

The signed text is ``{webhook-id}.{webhook-timestamp}.{body}``, the signature HMAC-SHA256 in base64. Rules:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets as random_source
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PREFIX = "whsec_"
DEFAULT_TOLERANCE_SECONDS = 300

_SIGNATURE_VERSION = "v1"
_MINIMUM_KEY_BYTES = 24
_MAXIMUM_KEY_BYTES = 64
_MAXIMUM_SIGNATURES = 32
_MESSAGE_ID = re.compile(r"[\x21-\x7e]{1,256}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class WebhookVerificationError(Exception):
    """The message does not prove that it is authentic and fresh. The text says which rule failed."""


class InvalidSecretError(ValueError):
    """A secret is not ``whsec_`` and base64 of 24 to 64 bytes. The text never repeats the secret."""


@dataclass(frozen=True, slots=True)
class VerifiedMessage:
    """What the headers of an authentic message say."""

    id: str
    """The same for every attempt to deliver the message: drop what was seen before."""
    sent_at: int
    """Seconds since the epoch of this attempt."""


class SigningKeys:
    """The secrets two parties share; more than one while a rotation is under way."""

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[str]) -> None:
        """Accept ``secrets`` with or without the prefix ``whsec_``.

        Raises:
            InvalidSecretError: there is none, or one is malformed.
        """
        if not secrets:
            raise InvalidSecretError("At least one secret is needed.")
        self._keys = tuple(_decode_secret(secret) for secret in secrets)

    def __repr__(self) -> str:
        return f"SigningKeys({len(self._keys)} secrets)"

    def headers(self, *, message_id: str, body: bytes, sent_at: float | None = None) -> dict[str, str]:
        """Headers for one attempt; ``message_id`` stays the same over all attempts, ``sent_at`` does not.

        Raises:
            ValueError: ``message_id`` is not 1 to 256 visible ASCII characters without a full stop.
        """
        if not _MESSAGE_ID.fullmatch(message_id) or "." in message_id:
            raise ValueError("A webhook-id is 1 to 256 visible ASCII characters without a full stop.")
        timestamp = str(int(time.time() if sent_at is None else sent_at))
        digests = self._digests(message_id, timestamp, body)
        signatures = " ".join(f"{_SIGNATURE_VERSION},{base64.b64encode(digest).decode()}" for digest in digests)
        return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signatures}

    def verify(
        self,
        headers: Mapping[str, str],
        body: bytes,
        *,
        tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS,
        now: float | None = None,
    ) -> VerifiedMessage:
        """Check that ``body`` (the bytes as received) was signed with one of the secrets not long ago.

        Raises:
            WebhookVerificationError: whatever is wrong, however malformed the headers are.
        """
        message_id, timestamp, signatures = _required_headers(headers)
        _check_age(int(timestamp), tolerance_seconds, time.time() if now is None else now)
        expected = self._digests(message_id, timestamp, body)
        offered = _offered_digests(signatures)
        # Every pair is compared, so that the time taken does not tell which one matched.
        matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in offered]
        if not any(matches):
            raise WebhookVerificationError("No signature matches.")
        return VerifiedMessage(id=message_id, sent_at=int(timestamp))

    def _digests(self, message_id: str, timestamp: str, body: bytes) -> list[bytes]:
        signed = f"{message_id}.{timestamp}.".encode() + body
        return [hmac.digest(key, signed, hashlib.sha256) for key in self._keys]


def generate_secret() -> str:
    """A new secret of 32 random bytes, with its prefix."""
    return PREFIX + base64.b64encode(random_source.token_bytes(32)).decode()


def _decode_secret(secret: str) -> bytes:
    try:
        key = base64.b64decode(_padded(secret.removeprefix(PREFIX)), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSecretError("A webhook secret is whsec_ followed by base64.") from None
    if not _MINIMUM_KEY_BYTES <= len(key) <= _MAXIMUM_KEY_BYTES:
        raise InvalidSecretError(
            f"A webhook secret has {_MINIMUM_KEY_BYTES} to {_MAXIMUM_KEY_BYTES} bytes, this one {len(key)}."
        )
    return key


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)


def _required_headers(headers: Mapping[str, str]) -> tuple[str, str, str]:
    by_name = {name.lower(): value for name, value in headers.items()}
    message_id = by_name.get("webhook-id", "")
    timestamp = by_name.get("webhook-timestamp", "")
    signatures = by_name.get("webhook-signature", "")
    if not _MESSAGE_ID.fullmatch(message_id):
        raise WebhookVerificationError("The header webhook-id is missing or malformed.")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise WebhookVerificationError("The header webhook-timestamp is missing or not whole seconds.")
    if not signatures:
        raise WebhookVerificationError("The header webhook-signature is missing.")
    return message_id, timestamp, signatures


def _check_age(timestamp: int, tolerance_seconds: float, now: float) -> None:
    if timestamp < now - tolerance_seconds:
        raise WebhookVerificationError("The message is too old.")
    if timestamp > now + tolerance_seconds:
        raise WebhookVerificationError("The message is from the future.")


def _offered_digests(signatures: str) -> list[bytes]:
    digests = []
    for offered in signatures.split(" ")[:_MAXIMUM_SIGNATURES]:
        version, _, encoded = offered.partition(",")
        if version != _SIGNATURE_VERSION:
            continue
        try:
            digests.append(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
            continue
    return digests
