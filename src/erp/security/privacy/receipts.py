"""Receipts of what was found, erased and kept, signed with Ed25519 (RFC 8032) so that others can hold them against us."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Receipts:
    """Signs with a key derived from the platform's pepper (HKDF-SHA256, RFC 5869)."""

    def __init__(self, pepper: bytes) -> None:
        seed = HKDF(SHA256(), 32, salt=None, info=b"erp privacy receipt 1").derive(pepper)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    def __repr__(self) -> str:
        return f"Receipts(public_key={self.public_key!r})"

    @property
    def public_key(self) -> str:
        """Base64 of the 32 bytes of the public key."""
        return base64.b64encode(self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()

    def signed(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``facts`` with a signature over their canonical form."""
        value = base64.b64encode(self._key.sign(canonical(facts))).decode()
        return {**facts, "signature": {"algorithm": "Ed25519", "key": self.public_key, "value": value}}


def canonical(facts: Mapping[str, Any]) -> bytes:
    """Return JSON with sorted names and no spaces; of text, whole numbers and truth values as RFC 8785 has it."""
    return json.dumps(facts, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def is_genuine(receipt: Mapping[str, Any], public_key: str) -> bool:
    """Whether the holder of ``public_key`` has signed exactly this receipt."""
    facts = {name: value for name, value in receipt.items() if name != "signature"}
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        key.verify(base64.b64decode(receipt["signature"]["value"], validate=True), canonical(facts))
    except (InvalidSignature, ValueError, KeyError, TypeError, binascii.Error):
        return False
    return True


def subject_digest(subject: str) -> str:
    """Name a subject in a receipt: SHA-256, so that whoever knows the identifier can tell whose receipt it is."""
    return hashlib.sha256(subject.encode()).hexdigest()
