"""Links: URLs of the gateway that let their holder do one thing with one connection. Implements ``ports.Links``.

A link is sealed with AES-256-GCM under a key derived from the platform's pepper (HKDF-SHA256, RFC 5869):
nobody else can make one, and nobody learns from it whose it is. Nothing is stored.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import os
import re
import time
from collections.abc import Callable, Mapping

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.ports import LinkPurpose

NONCE_BYTES = 12
KEY_BYTES = 32
_CONTEXT = b"erp link 1"
_TOKEN = re.compile("[A-Za-z0-9_-]{1,16384}")


class Link(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a link says: which connection, what for, until when."""

    purpose: LinkPurpose
    tenant: str
    domain: str
    provider: str
    connection: str
    expires_at: float
    """Seconds since 1970; 0 for ever."""
    claims: dict[str, str]


class SealedLinks:
    """Makes and opens the links of all connections."""

    def __init__(self, pepper: bytes, public_url: str, *, clock: Callable[[], float] = time.time) -> None:
        derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=_CONTEXT).derive(pepper)
        self._cipher = AESGCM(derived)
        self._clock = clock
        self.public_url = public_url
        """Where the gateway is reached from outside, without a slash at the end."""

    def of(self, tenant: str, domain: str, provider: str, connection: str) -> ConnectionLinks:
        """Return the maker of one connection's links."""
        return ConnectionLinks(self, tenant, domain, provider, connection)

    def seal(self, link: Link) -> str:
        """Return the URL of ``link``."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(link), _CONTEXT)
        return f"{self.public_url}/{link.purpose}/{_text(sealed)}"

    def open(self, purpose: LinkPurpose, token: str) -> Link:
        """Return what the link ending in ``token`` says.

        Raises:
            ProviderError: ``not_found`` when it is none of ours or was made for another purpose,
                ``permission_denied`` when its time is over.
        """
        if not _TOKEN.fullmatch(token):
            raise _no_such_link()
        try:
            sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            if _text(sealed) != token:  # the last character has bits that decoding ignores
                raise _no_such_link()
            opened = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _CONTEXT)
            link = msgspec.msgpack.decode(opened, type=Link)
        except (binascii.Error, InvalidTag, ValueError) as error:
            raise _no_such_link() from error
        if link.purpose != purpose:
            raise _no_such_link()
        if link.expires_at and self._clock() >= link.expires_at:
            message = "The link has expired. Ask whoever gave it to you for a new one."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
        return link


class ConnectionLinks:
    """Links that lead to one connection."""

    def __init__(self, links: SealedLinks, tenant: str, domain: str, provider: str, connection: str) -> None:
        self._links = links
        self._place = (tenant, domain, provider, connection)

    def make(
        self, purpose: LinkPurpose, claims: Mapping[str, str], *, expires_at: datetime.datetime | None = None
    ) -> str:
        tenant, domain, provider, connection = self._place
        return self._links.seal(
            Link(
                purpose=purpose,
                tenant=tenant,
                domain=domain,
                provider=provider,
                connection=connection,
                expires_at=expires_at.timestamp() if expires_at else 0.0,
                claims=dict(claims),
            )
        )


def _text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _no_such_link() -> ProviderError:
    return ProviderError(ErrorCode.NOT_FOUND, "There is no such link.")
