"""What is done to personal data that must not stand as it is: redacted, hashed or replaced by a token.

Hashes are HMAC-SHA256 and tokens AES-SIV (RFC 5297) under keys of the tenant, derived from the platform's pepper
(HKDF-SHA256, RFC 5869): equal values of one tenant stay equal, and those of two tenants do not. A token can be turned
back by this layer alone, a hash by nobody who does not know the value already.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

Treatment = Literal["none", "keep", "redact", "hash", "tokenise"]
"""``keep`` is what ``none`` was called first."""

_KEY_BYTES = 64
_HASH_DIGITS = 32
_TOKEN = re.compile(r"tok_([a-z0-9_]{1,32})\.([A-Za-z0-9_-]{22,8192})")


class Treatments:
    """The treatments of all tenants."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    def __repr__(self) -> str:
        return "Treatments()"

    def of(self, tenant: str, treatment: Treatment) -> Callable[[str, str], str]:
        """Return what replaces a value of a kind; ``none`` replaces it by itself."""
        match treatment:
            case "none" | "keep":
                return lambda _, value: value
            case "redact":
                return lambda kind, _: f"[{kind}]"
            case "hash":
                key = self._key(tenant, b"hash")
                return lambda kind, value: f"[{kind}:{_digest(key, kind, value)}]"
            case "tokenise":
                cipher = AESSIV(self._key(tenant, b"token"))
                return lambda kind, value: _token(cipher, tenant, kind, value)

    def revealed(self, tenant: str, token: str) -> tuple[str, str]:
        """Return the kind and the value that a token of ``tenant`` stands for.

        Raises:
            ProviderError: ``not_found`` for what is no token of this tenant.
        """
        cipher, match = AESSIV(self._key(tenant, b"token")), _TOKEN.fullmatch(token)
        kind, sealed = (match[1], match[2]) if match else ("", "")
        try:
            raw = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
            value = cipher.decrypt(raw, [tenant.encode(), kind.encode()])
        except (InvalidTag, ValueError, binascii.Error) as error:
            message = "This is no token of the tenant. Give it whole, from tok_ on."
            raise ProviderError(ErrorCode.NOT_FOUND, message) from error
        return kind, value.decode()

    def _key(self, tenant: str, purpose: bytes) -> bytes:
        context = b"erp privacy 1 " + purpose + b" " + tenant.encode()
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=context).derive(self._pepper)


def _digest(key: bytes, kind: str, value: str) -> str:
    return hmac.digest(key, f"{kind}\x00{value}".encode(), "sha256").hex()[:_HASH_DIGITS]


def _token(cipher: AESSIV, tenant: str, kind: str, value: str) -> str:
    if not value:
        return value
    sealed = cipher.encrypt(value.encode(), [tenant.encode(), kind.encode()])
    return f"tok_{kind}.{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}"
