"""Answers a NATS server's challenge with an nkey seed (ADR-14 of NATS: Ed25519 keys in base32 with a CRC-16).

Source: https://github.com/nats-io/nkeys, ``strkey.go`` (encoding) and https://docs.nats.io/reference/reference-protocols/nats-protocol
(``sig``, ``nkey``, ``jwt`` of CONNECT).
"""

from __future__ import annotations

import base64
import binascii
import re

USER_PREFIX = 20 << 3
"""What the public key of a user begins with: the letter U in base32."""
SEED_LETTER = 18 << 3
KEY_LENGTH = 32
CHECKSUM_LENGTH = 2
SEED_LENGTH = 2 + KEY_LENGTH + CHECKSUM_LENGTH

_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+")


class SeedError(ValueError):
    """The text is no seed of a user, or no credentials file."""


def split(credentials: str) -> tuple[str, str]:
    """Return the JWT and the seed of a ``.creds`` file."""
    jwt, seed = _JWT.search(credentials), _SEED.search(credentials)
    if jwt is None or seed is None:
        raise SeedError("A credentials file holds a user JWT and a seed.")
    return jwt[1], seed[1]


class UserKey:
    """The key pair of a NATS user."""

    def __init__(self, seed: str) -> None:
        from cryptography.hazmat.primitives.asymmetric import ed25519

        self._private = ed25519.Ed25519PrivateKey.from_private_bytes(_raw(seed))

    @property
    def public(self) -> str:
        """The public key as NATS writes it: ``U...``."""
        body = bytes([USER_PREFIX]) + self._private.public_key().public_bytes_raw()
        return base64.b32encode(body + _checksum(body)).decode().rstrip("=")

    def sign(self, nonce: str) -> bytes:
        """Return the base64 signature of a server's nonce."""
        return base64.b64encode(self._private.sign(nonce.encode()))


def _raw(seed: str) -> bytes:
    try:
        decoded = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        decoded = b""
    body, checksum = decoded[:-CHECKSUM_LENGTH], decoded[-CHECKSUM_LENGTH:]
    if len(decoded) != SEED_LENGTH or decoded[0] & 0xF8 != SEED_LETTER or _checksum(body) != checksum:
        raise SeedError("An nkey seed of a user begins with SU and has 58 characters.")
    if (decoded[0] & 7) << 5 | decoded[1] >> 3 != USER_PREFIX:
        raise SeedError("The nkey seed is not one of a user: those begin with SU.")
    return body[2:]


def _checksum(body: bytes) -> bytes:
    return binascii.crc_hqx(body, 0).to_bytes(CHECKSUM_LENGTH, "little")
