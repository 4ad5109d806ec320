"""Signed evidence: what a conformance run has shown of a provider, and who says so.

A JSON document with an Ed25519 signature (RFC 8032) over its canonical form without the member ``signature``:
members sorted, no white space, UTF-8, numbers whole (the subset of RFC 8785 that the documents keep to).
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = "erp-evidence/1"
FILE = "evidence.json"
LARGEST_BYTES = 4 * 1024 * 1024
KEY_BYTES, SIGNATURE_BYTES = 32, 64

Evidence = dict[str, Any]


class _Case(msgspec.Struct):
    id: str
    outcome: str


class _Layer(msgspec.Struct):
    version: str


class _Peer(msgspec.Struct):
    server: str | None


class _Quality(msgspec.Struct):
    level: Literal["none", "bronze", "silver", "gold", "platinum"]


class _Shape(msgspec.Struct):
    """What readers rely on; evidence may state more."""

    ref: str
    version: str
    digest: str
    certified_at: Annotated[datetime.datetime, msgspec.Meta(tz=True)]
    layer: _Layer
    peer: _Peer
    cases: list[_Case]
    proof: dict[str, Literal["P0", "P1", "P2", "P3", "P4", "P5"]]
    quality: _Quality


class EvidenceError(Exception):
    """Evidence or a key is not what it must be. The message says what to do."""


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed."""
    unsigned = {name: value for name, value in document.items() if name != "signature"}
    return json.dumps(unsigned, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def signed(document: Mapping[str, Any], key: Ed25519PrivateKey) -> Evidence:
    """Return the document with the signature of ``key``."""
    signature = {"algorithm": "ed25519", "key": public_key(key), "value": _text(key.sign(canonical(document)))}
    return {**document, "signature": signature}


def public_key(key: Ed25519PrivateKey) -> str:
    """Return the public half in base64."""
    return _text(key.public_key().public_bytes_raw())


def read_evidence(path: Path) -> Evidence:
    """Read a file.

    Raises:
        EvidenceError: it cannot be read, or is no evidence.
    """
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(LARGEST_BYTES + 1))
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path} cannot be read as evidence: {error}."
        raise EvidenceError(message) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        message = f"{path} is no evidence of the format {FORMAT}. How to fix: write it with `erp provider certify`."
        raise EvidenceError(message)
    try:
        msgspec.convert(document, _Shape)
    except msgspec.ValidationError as error:
        message = f"{path} is no evidence: {error}. How to fix: write it with `erp provider certify`."
        raise EvidenceError(message) from error
    return document


def verify(document: Evidence, *, key: str | None = None) -> str:
    """Return the public key that signed the document.

    Args:
        document: as read.
        key: the public key it must be signed with, in base64; None takes the one it names, which proves only that
            nothing was changed since.

    Raises:
        EvidenceError: it was changed, or signed by another.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = document.get("signature")
    stated = signature if isinstance(signature, dict) else {}
    named = str(stated.get("key", ""))
    if key is not None and _bytes(key, "The key") != _bytes(named, "The key of the evidence"):
        message = f"The evidence is signed with {named or 'no key'}, not with {key}."
        raise EvidenceError(message)
    try:
        public = Ed25519PublicKey.from_public_bytes(_bytes(named, "The key of the evidence"))
        value = _bytes(str(stated.get("value", "")), "The signature", length=SIGNATURE_BYTES)
        public.verify(value, canonical(document))
    except (InvalidSignature, ValueError) as error:
        message = "The signature does not fit: the evidence was changed after it was signed."
        raise EvidenceError(message) from error
    return named


def digest(folder: Path) -> str:
    """Return SHA-256 over what makes up a provider: its manifest and every module, tests left out."""
    total = hashlib.sha256()
    files = [folder / "provider.yaml", *sorted(folder.rglob("*.py"))]
    for path in files:
        if not path.name.startswith("test_") and path.is_file():
            name = path.relative_to(folder).as_posix()
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"


def signing_key(file: Path) -> Ed25519PrivateKey:
    """Return the key in ``ERP_CERTIFY_KEY`` (32 bytes, base64), or the one kept in ``file``, made at first use.

    Raises:
        EvidenceError: the key is malformed, or the file cannot be read or written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    configured = os.environ.get("ERP_CERTIFY_KEY")
    if configured:
        return Ed25519PrivateKey.from_private_bytes(_bytes(configured, "ERP_CERTIFY_KEY"))
    try:
        text = _kept(file)
    except (OSError, UnicodeDecodeError) as error:
        message = f"The signing key {file} cannot be used: {error}. How to fix: set ERP_CERTIFY_KEY."
        raise EvidenceError(message) from error
    return Ed25519PrivateKey.from_private_bytes(_bytes(text.strip(), str(file)))


def _kept(file: Path) -> str:
    """The first of two processes makes the key; the other one reads it: a link appears whole or not at all."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = file.with_name(f".{file.name}.{os.getpid()}")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as opened:
                opened.write(_text(os.urandom(KEY_BYTES)) + "\n")
            _linked(made, file)
        finally:
            made.unlink(missing_ok=True)
    return file.read_text(encoding="ascii")


def _linked(made: Path, file: Path) -> None:
    try:
        os.link(made, file)
    except FileExistsError:
        return


def key_file() -> Path:
    """Return where the user's signing key is kept."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    return (Path(configured) if configured else Path.home() / ".config") / "erp" / "certify.key"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str, what: str, *, length: int = KEY_BYTES) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != length:
        message = f"{what} is not {length} bytes in base64. How to fix: `openssl rand -base64 32` makes a private key."
        raise EvidenceError(message)
    return data
