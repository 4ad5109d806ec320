"""AES-256-GCM envelopes: a fresh data key encrypts the value, the key-encryption key wraps the data key.

Layout: version byte, nonce and wrapped data key (12 + 48 bytes), nonce and ciphertext (12 + n + 16).
Both layers are bound to key id, tenant, path and version: an envelope moved to another place does
not open.
"""

from __future__ import annotations

import os

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
    place = _place(key_id, tenant, path, version)
    data_key = AESGCM.generate_key(DATA_KEY_BITS)
    wrap_nonce, value_nonce = os.urandom(NONCE_BYTES), os.urandom(NONCE_BYTES)
    wrapped = AESGCM(keyring.kek(key_id)).encrypt(wrap_nonce, data_key, place)
    ciphertext = AESGCM(data_key).encrypt(value_nonce, value, place)
    return key_id, b"".join((FORMAT, wrap_nonce, wrapped, value_nonce, ciphertext))


def unseal(keyring: Keyring, key_id: str, envelope: bytes, *, tenant: str, path: str, version: int) -> bytes:
    """Return the value in ``envelope``.

    Raises:
        ProviderError: ``failed_precondition`` when the key is missing, ``internal`` when the
            envelope was changed or belongs to another place.
    """
    kek = keyring.kek(key_id)
    try:
        return _opened(kek, envelope, _place(key_id, tenant, path, version))
    except (InvalidTag, ValueError) as error:
        message = "A stored secret is damaged or was moved; it cannot be opened."
        raise ProviderError(ErrorCode.INTERNAL, message, detail=f"{tenant} {path} #{version}") from error


def _opened(kek: bytes, envelope: bytes, place: bytes) -> bytes:
    if envelope[:1] != FORMAT:
        raise InvalidTag
    wrap_nonce, wrapped = envelope[1 : 1 + NONCE_BYTES], envelope[1 + NONCE_BYTES : _VALUE_AT]
    value_nonce, ciphertext = envelope[_VALUE_AT : _VALUE_AT + NONCE_BYTES], envelope[_VALUE_AT + NONCE_BYTES :]
    data_key = AESGCM(kek).decrypt(wrap_nonce, wrapped, place)
    return AESGCM(data_key).decrypt(value_nonce, ciphertext, place)


def _place(key_id: str, tenant: str, path: str, version: int) -> bytes:
    """Name the place unambiguously: every part is preceded by its length."""
    parts = (key_id.encode(), tenant.encode(), path.encode(), str(version).encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
