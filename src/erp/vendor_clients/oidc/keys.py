"""The public keys of an issuer (JWK Set, RFC 7517), as far as they can verify what the tenant allows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from erp.vendor_clients.oidc.failures import TokenRefusedError
from erp.vendor_clients.oidc.refreshed import Refreshed

MOST_KEYS = 100
LEAST_RSA_BITS = 2048
"""NIST SP 800-131A; RFC 7518, section 3.3."""

_TYPES = {"R": "RSA", "P": "RSA", "E": "EC"}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "Ed25519": "Ed25519", "EdDSA": "Ed25519"}

Keys = list[tuple[str | None, Mapping[str, Any], Any]]
"""Key id, the key as the issuer wrote it, the key itself."""


def read_keys(document: Mapping[str, Any]) -> Keys:
    """Return the usable public keys of a JWK Set; what is of another kind, secret, weak or malformed is left out."""
    listed = document.get("keys")
    found: Keys = []
    for text in listed[:MOST_KEYS] if isinstance(listed, list) else []:
        key = _usable(text)
        if key is not None:
            kid = text.get("kid")
            found.append((kid if isinstance(kid, str) else None, text, key))
    return found


def _usable(text: Any) -> Any:
    from joserfc.errors import JoseError, SecurityWarning
    from joserfc.jwk import JWKRegistry

    if not isinstance(text, dict) or text.get("kty") not in {"RSA", "EC", "OKP"} or text.get("use", "sig") != "sig":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # A weak key is left out below.
            key: Any = JWKRegistry.import_key({name: value for name, value in text.items() if name != "d"})
        is_weak = text["kty"] == "RSA" and key.public_key.key_size < LEAST_RSA_BITS
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None if is_weak else key


def fitting(keys: Keys, kid: str | None, algorithm: str) -> Any:
    """Return the one key that a token names, or the only one there is for its algorithm; None: no such key."""
    usable = [
        (name, key) for name, text, key in keys if _fits(text, algorithm) and (kid is None or name in {kid, None})
    ]
    named = [key for name, key in usable if kid is not None and name == kid]
    if named:
        return named[0]
    unnamed = [key for name, key in usable if name is None or kid is None]
    return unnamed[0] if len(unnamed) == 1 else None


def _fits(text: Mapping[str, Any], algorithm: str) -> bool:
    if text.get("alg", algorithm) not in {algorithm, "EdDSA" if algorithm == "Ed25519" else algorithm}:
        return False
    curve = _CURVES.get(algorithm)
    if algorithm in {"Ed25519", "EdDSA"}:
        return text["kty"] == "OKP" and text.get("crv") == curve
    return text["kty"] == _TYPES[algorithm[0]] and (curve is None or text.get("crv") == curve)


async def key_for(keys: Refreshed[Keys], kid: str | None, algorithm: str) -> Any:
    """Return the key of a token; an unknown one is looked for once more, at most once per interval.

    Raises:
        TokenRefusedError: the issuer has no such key.
        IssuerUnavailableError: its keys cannot be read.
    """
    found = fitting(await keys.get(), kid, algorithm)
    if found is None:
        found = fitting(await keys.again(), kid, algorithm)
    if found is None:
        raise TokenRefusedError("The issuer has no such key.")
    return found
