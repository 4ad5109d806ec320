"""AES-256-GCM envelopes: a fresh data key encrypts the value, the key-encryption key wraps the data key.

Layout: version byte, nonce and wrapped data key (12 + 48 bytes), nonce and ciphertext (12 + n + 16).
Both layers are bound to tenant, path and version: an envelope moved to another place does not open. The outer one
is bound to the id of the key too; the inner one is not, so that a data key can be wrapped anew without touching the value.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.security.keyring import Keyring

FORMAT = b"\x01"
DATA_KEY_BITS = 256
NONCE_BYTES = 12
WRAPPED_BYTES = 48
_VALUE_AT = 1 + NONCE_BYTES + WRAPPED_BYTES


def seal(keyring: Keyring, value: bytes, *, tenant: str, path: str, version: int) -> tuple[str, bytes]:
    """Return the id of the key that wraps, and the envelope."""
    key_id = keyring.current_kek_id
    place = _place(tenant, path, str(version))
    data_key = AESGCM.generate_key(DATA_KEY_BITS)
    value_nonce = os.urandom(NONCE_BYTES)
    ciphertext = AESGCM(data_key).encrypt(value_nonce, value, place)
    return key_id, b"".join((FORMAT, _wrapped(keyring, key_id, data_key, place), value_nonce, ciphertext))


def rewrap(
    keyring: Keyring, key_id: str, envelope: bytes, *, tenant: str, path: str, version: int
) -> tuple[str, bytes]:
    """Return the id of the present key, and the envelope with its data key wrapped by that; the value stays sealed.

    Raises:
        ProviderError: as ``unseal``.
    """
    place = _place(tenant, path, str(version))
    data_key = _opening(lambda: _data_key(keyring.kek(key_id), key_id, envelope, place), tenant, path, version)
    current = keyring.current_kek_id
    return current, FORMAT + _wrapped(keyring, current, data_key, place) + envelope[_VALUE_AT:]


def _wrapped(keyring: Keyring, key_id: str, data_key: bytes, place: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(keyring.kek(key_id)).encrypt(nonce, data_key, _place(key_id) + place)


def unseal(keyring: Keyring, key_id: str, envelope: bytes, *, tenant: str, path: str, version: int) -> bytes:
    """Return the value in ``envelope``.

    Raises:
        ProviderError: ``failed_precondition`` when the key is missing, ``internal`` when the
            envelope was changed or belongs to another place.
    """
    kek, place = keyring.kek(key_id), _place(tenant, path, str(version))

    def value() -> bytes:
        data_key = _data_key(kek, key_id, envelope, place)
        nonce, ciphertext = envelope[_VALUE_AT : _VALUE_AT + NONCE_BYTES], envelope[_VALUE_AT + NONCE_BYTES :]
        return AESGCM(data_key).decrypt(nonce, ciphertext, place)

    return _opening(value, tenant, path, version)


def _opening(work: Callable[[], bytes], tenant: str, path: str, version: int) -> bytes:
    try:
        return work()
    except (InvalidTag, ValueError) as error:
        message = "A stored secret is damaged or was moved; it cannot be opened."
        raise ProviderError(ErrorCode.INTERNAL, message, detail=f"{tenant} {path} #{version}") from error


def _data_key(kek: bytes, key_id: str, envelope: bytes, place: bytes) -> bytes:
    if envelope[:1] != FORMAT:
        raise InvalidTag
    nonce, wrapped = envelope[1 : 1 + NONCE_BYTES], envelope[1 + NONCE_BYTES : _VALUE_AT]
    return AESGCM(kek).decrypt(nonce, wrapped, _place(key_id) + place)


def _place(*parts: str) -> bytes:
    """Name a place unambiguously: every part is preceded by its length."""
    encoded = (part.encode() for part in parts)
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
