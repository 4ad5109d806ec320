"""The text of an API key: ``erpk_<env>_<11 base62 id><33 base62 secret><6 base62 CRC32>``.

The id is public, the secret has 192 bits. The checksum lets a mistyped key be refused without a
look-up, and lets scanners tell a leaked key from noise.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib

import msgspec

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH, SECRET_LENGTH, CHECK_LENGTH = 11, 33, 6
SECRET_BITS = 192
_SHAPE = re.compile(rf"erpk_([a-z]{{1,8}})_([0-9A-Za-z]{{{ID_LENGTH}}})[0-9A-Za-z]{{{SECRET_LENGTH + CHECK_LENGTH}}}")


class MintedKey(msgspec.Struct, frozen=True):
    """A new key: ``text`` goes to its holder and is kept nowhere."""

    id: str
    text: str

    def __repr__(self) -> str:
        return f"MintedKey(id={self.id!r})"


def mint(environment: str = "live") -> MintedKey:
    """Make a key that nobody can guess."""
    id_ = "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
    body = f"erpk_{environment}_{id_}{_base62(secrets.randbits(SECRET_BITS), SECRET_LENGTH)}"
    return MintedKey(id_, body + _checksum(body))


def key_id(text: str) -> str | None:
    """Return the id in a well-formed key; None when ``text`` cannot be a key."""
    shape = _SHAPE.fullmatch(text)
    if shape is None or _checksum(text[:-CHECK_LENGTH]) != text[-CHECK_LENGTH:]:
        return None
    return shape.group(2)


def digest(pepper: bytes, text: str) -> bytes:
    """Return what is stored of a key. No slow hash is needed for a secret of 192 random bits."""
    return hmac.digest(pepper, text.encode(), hashlib.sha256)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
