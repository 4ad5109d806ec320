"""AES-256-GCM envelopes: a fresh data key encrypts the value, a wrapping key wraps the data key.

Layout 1: version byte, wrapped data key (60 bytes), nonce and ciphertext (12 + n + 16).
Layout 2: version byte, length of the wrapped data key (2 bytes), wrapped data key, nonce and ciphertext.

Both layers are bound to tenant, path and version: an envelope moved to another place does not open. The outer one
is bound to the wrapping key too; the inner one is not, so that a data key can be wrapped anew without touching the value.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from erp.security.keyring import Keyring
from erp.security.wrapping import NONCE_BYTES, Place, damaged

SHORT = b"\x01"
LONG = b"\x02"
DATA_KEY_BITS = 256
SHORT_BYTES = 60
"""What a key in memory or in a hardware module makes of a data key: nonce, key, tag."""
LENGTH_BYTES = 2


async def seal(keyring: Keyring, value: bytes, *, tenant: str, path: str, version: int) -> tuple[str, bytes]:
    """Return the id of the key that wraps, and the envelope.

    Raises:
        ProviderError: ``unavailable`` or ``failed_precondition`` when the present key cannot be used.
    """
    place = Place(tenant, path, version)
    key = keyring.current
    data_key = AESGCM.generate_key(DATA_KEY_BITS)
    nonce = os.urandom(NONCE_BYTES)
    ciphertext = AESGCM(data_key).encrypt(nonce, value, place.encoded())
    return key.id, _joined(await key.wrap(data_key, place), nonce + ciphertext)


async def rewrap(
    keyring: Keyring, key_id: str, envelope: bytes, *, tenant: str, path: str, version: int
) -> tuple[str, bytes]:
    """Return the id of the present key, and the envelope with its data key wrapped by that; the value stays sealed.

    Raises:
        ProviderError: as ``unseal``.
    """
    place = Place(tenant, path, version)
    wrapped, sealed = _parted(envelope, place)
    current = keyring.current
    data_key = await keyring.key(key_id).unwrap(wrapped, place)
    return current.id, _joined(await current.wrap(data_key, place), sealed)


async def unseal(keyring: Keyring, key_id: str, envelope: bytes, *, tenant: str, path: str, version: int) -> bytes:
    """Return the value in ``envelope``.

    Raises:
        ProviderError: ``failed_precondition`` when the key is missing or refuses, ``unavailable`` when it cannot be
            reached, ``internal`` when the envelope was changed or belongs to another place.
    """
    place = Place(tenant, path, version)
    wrapped, sealed = _parted(envelope, place)
    data_key = await keyring.data_key(key_id, wrapped, place)
    try:
        return AESGCM(data_key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encoded())
    except (InvalidTag, ValueError) as error:
        raise damaged(place) from error


def _joined(wrapped: bytes, sealed: bytes) -> bytes:
    if len(wrapped) == SHORT_BYTES:
        return SHORT + wrapped + sealed
    return LONG + len(wrapped).to_bytes(LENGTH_BYTES, "big") + wrapped + sealed


def _parted(envelope: bytes, place: Place) -> tuple[bytes, bytes]:
    """Return the wrapped data key, and what it sealed."""
    layout = envelope[:1]
    if layout not in {SHORT, LONG}:
        raise damaged(place)
    begins = 1 if layout == SHORT else 1 + LENGTH_BYTES
    length = SHORT_BYTES if layout == SHORT else int.from_bytes(envelope[1:begins], "big")
    return envelope[begins : begins + length], envelope[begins + length :]
