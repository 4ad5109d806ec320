"""A sign-in that has begun, kept by the browser itself: sealed, short-lived, good for one session.

Nothing is stored before somebody has signed in, so a flood of beginnings costs no memory and no row.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

LIFETIME_SECONDS = 600
NONCE_BYTES, KEY_BYTES = 12, 32
MAX_SEALED = 4096
_CONTEXT = b"erp sign-in 1"


class PendingSignIn(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What has to be remembered between the way to the issuer and the way back."""

    tenant: str
    connection: str
    revision: str
    return_to: str
    expires_at: float
    state: str
    nonce: str
    verifier: str


class Expiring(Protocol):
    """What is good for a while."""

    @property
    def expires_at(self) -> float:
        """Seconds since 1970."""


T = TypeVar("T", bound=Expiring)


class Seal(Generic[T]):
    """Seals what a browser keeps for us."""

    def __init__(
        self, pepper: bytes, type_: type[T], context: bytes, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._cipher = AESGCM(HKDF(SHA256(), KEY_BYTES, salt=None, info=context).derive(pepper))
        self._type = type_
        self._context = context
        self._clock = clock

    def seal(self, pending: T) -> str:
        """Return what only this platform can read."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(pending), self._context)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, sealed: str) -> T | None:
        """Return what was sealed; None when it is none of ours, or too old."""
        if len(sealed) > MAX_SEALED:
            return None
        try:
            raw = base64.b64decode(sealed + "=" * (-len(sealed) % 4), altchars=b"-_", validate=True)
            text = self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], self._context)
            found = msgspec.msgpack.decode(text, type=self._type)
        except (binascii.Error, InvalidTag, ValueError, msgspec.MsgspecError):
            return None
        return found if self._clock() < found.expires_at else None


class SignInSeal(Seal[PendingSignIn]):
    """Seals pending sign-ins for the browser's cookie."""

    def __init__(self, pepper: bytes, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(pepper, PendingSignIn, _CONTEXT, clock=clock)

    def begin(self, tenant: str, connection: str, revision: str, return_to: str) -> PendingSignIn:
        """Return a new sign-in with secrets of its own."""
        return PendingSignIn(
            tenant=tenant,
            connection=connection,
            revision=revision,
            return_to=return_to,
            expires_at=self._clock() + LIFETIME_SECONDS,
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
        )
