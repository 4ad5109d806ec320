"""Checkpoints of logs as signed notes, Ed25519.

Form: https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint. A key is written ``NAME+HASH+BASE64``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ED25519 = b"\x01"
_DASH = "\u2014 "
_ID_BYTES, _KEY_BYTES, _ROOT_BYTES = 4, 32, 32


class InvalidNoteError(ValueError):
    """A note or key is malformed, or none of its signatures is by a known key."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who signs."""

    name: str
    raw: bytes

    @property
    def id(self) -> bytes:
        """Return what tells keys of one name apart."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.raw).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.raw).decode()}"

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read ``NAME+HASH+BASE64``.

        Raises:
            InvalidNoteError: it is malformed.
        """
        name, _, rest = text.strip().partition("+")
        id_, _, encoded = rest.partition("+")
        raw = _decoded(encoded)
        made = cls(name, raw[1:])
        if not name or raw[:1] != ED25519 or len(raw) != 1 + _KEY_BYTES or made.id.hex() != id_:
            message = "The public key is malformed. Use the text that `erp audit key` prints: NAME+HASH+BASE64."
            raise InvalidNoteError(message)
        return made


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How many records a log had, and the root of the tree over them."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """Return what is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def signed(checkpoint: Checkpoint, name: str, key: Ed25519PrivateKey) -> str:
    """Return ``checkpoint`` as a note signed under ``name``."""
    public = PublicKey(name, key.public_key().public_bytes_raw())
    signature = public.id + key.sign(checkpoint.text.encode())
    return f"{checkpoint.text}\n{_DASH}{name} {base64.b64encode(signature).decode()}\n"


def opened(note: str, keys: Sequence[PublicKey]) -> Checkpoint:
    """Return what a note says that one of ``keys`` has signed.

    Raises:
        InvalidNoteError: it is malformed, or no signature is by one of ``keys``.
    """
    text, separator, signatures = note.partition("\n\n")
    if not separator or not any(_is_by(key, f"{text}\n", line) for line in signatures.splitlines() for key in keys):
        message = "The checkpoint is not signed by the key."
        raise InvalidNoteError(message)
    origin, size, root, *_ = [*text.split("\n"), "", "", ""]
    decoded = _decoded(root)
    if not size.isascii() or not size.isdigit() or len(decoded) != _ROOT_BYTES:
        message = "The checkpoint is malformed."
        raise InvalidNoteError(message)
    return Checkpoint(origin, int(size), decoded)


def _is_by(key: PublicKey, text: str, line: str) -> bool:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    signature = _decoded(encoded)
    if not line.startswith(_DASH) or name != key.name or signature[:_ID_BYTES] != key.id:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature[_ID_BYTES:], text.encode())
    except InvalidSignature:
        return False
    return True


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
