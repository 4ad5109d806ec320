"""Keys that wrap data keys, wherever they are kept: in this process, in a cloud's KMS, in a hardware module.

WrappingKey        wraps and unwraps a data key for one place
LocalKey           one whose bytes this process holds
Place              tenant, path and version of a secret: what wrapping is bound to
"""

from __future__ import annotations

import os
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

NONCE_BYTES = 12


class Place(NamedTuple):
    """Where a secret lives. What is wrapped for one place does not open at another."""

    tenant: str
    path: str
    version: int

    def encoded(self, *before: str) -> bytes:
        """Name the place unambiguously: every part is preceded by its length."""
        parts = (part.encode() for part in (*before, self.tenant, self.path, str(self.version)))
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class WrappingKey(Protocol):
    """A key-encryption key. Its repr and its failures show nothing of it."""

    @property
    def id(self) -> str:
        """The public name, stored beside what it wraps; it never changes."""

    async def wrap(self, data_key: bytes, place: Place) -> bytes:
        """Return the wrapped data key.

        Raises:
            ProviderError: ``unavailable`` when the key cannot be reached now, ``failed_precondition`` when it
                refuses (disabled, no permission).
        """

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        """Return the data key.

        Raises:
            ProviderError: as ``wrap``; ``internal`` when what is wrapped was changed or belongs to another place.
        """

    async def close(self) -> None:
        """Let go of the key; safe twice."""


class LocalKey:
    """AES-256-GCM with a key in memory; both the place and the key's own name are authenticated."""

    def __init__(self, key_id: str, key: bytes) -> None:
        self.id = key_id
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return f"LocalKey({self.id!r})"

    async def wrap(self, data_key: bytes, place: Place) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data_key, place.encoded(self.id))

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        try:
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], place.encoded(self.id))
        except (InvalidTag, ValueError) as error:
            raise damaged(place) from error

    async def close(self) -> None:
        """Nothing to let go of."""


def damaged(place: Place) -> ProviderError:
    """Return how reading what was changed, or moved from another place, fails."""
    message = "A stored secret is damaged or was moved; it cannot be opened."
    return ProviderError(ErrorCode.INTERNAL, message, detail=f"{place.tenant} {place.path} #{place.version}")
