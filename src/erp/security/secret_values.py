"""New values of secrets, from the operating system's source of randomness."""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Mapping
from typing import Any

DEFAULT_BYTES, DEFAULT_LENGTH, DEFAULT_SYMBOLS = 32, 32, "-_."


def random_text(source: Mapping[str, Any]) -> str:
    """Return random bytes as text: ``base64url`` without padding, ``hex`` or ``whsec`` (Standard Webhooks)."""
    value = secrets.token_bytes(source.get("bytes", DEFAULT_BYTES))
    kind = source.get("format", "base64url")
    if kind == "hex":
        return value.hex()
    if kind == "whsec":
        return f"whsec_{base64.b64encode(value).decode()}"
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def password(source: Mapping[str, Any]) -> str:
    """Return a password with at least one character of every class; each that has so is as likely as another."""
    symbols = source.get("symbols", DEFAULT_SYMBOLS)
    classes = [string.ascii_lowercase, string.ascii_uppercase, string.digits, *([symbols] if symbols else [])]
    alphabet = "".join(sorted(set("".join(classes))))
    while True:
        made = "".join(secrets.choice(alphabet) for _ in range(source.get("length", DEFAULT_LENGTH)))
        if all(set(made) & set(one) for one in classes):
            return made
