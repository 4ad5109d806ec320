"""Client certificates -> actors. That a certificate is genuine was proven before: by the TLS handshake, or by a trusted proxy."""

from __future__ import annotations

import datetime
import hashlib
import time
from typing import TYPE_CHECKING, NoReturn

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.revisions import Topic
from erp.errors import ProviderError
from erp.runtime.context import Actor
from erp.security.identity import ACCOUNT_PREFIX, CAPACITY, MAX_CACHED_SECONDS, REFUSAL

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from erp.control_plane.client_certificates import ClientCertificates, Kind

MOST_NAMES = 20
"""Of a certificate that are looked at."""


class CertificateIdentity:
    """Remembers actors by the fingerprint of their certificate; a mapping that is removed ends within a second."""

    def __init__(self, certificates: ClientCertificates) -> None:
        self._certificates = certificates
        self._revisions = certificates.revisions
        self._known: dict[bytes, tuple[float, Actor]] = {}
        self._generation = 0
        self._revisions.watch(Topic.API_KEYS, self.forget_all)

    def forget_all(self) -> None:
        """Look every certificate up again when it comes next."""
        self._known.clear()
        self._generation += 1

    async def authenticate(self, certificate: bytes) -> Actor:
        """Return whose certificate (DER) this is: by its fingerprint, else by the URIs and host names in it.

        Raises:
            ProviderError: ``unauthenticated``, always with the same message: for a certificate that nobody registered,
                that is not valid now, or whose names belong to different accounts.
        """
        now = time.monotonic()
        if now >= self._revisions.trusted_until:
            await self._revisions.refresh()
        fingerprint = hashlib.sha256(certificate).digest()
        found = self._known.get(fingerprint)
        if found is not None and found[0] > now:
            return found[1]
        return await self._look_up(certificate, fingerprint)

    async def _look_up(self, certificate: bytes, fingerprint: bytes) -> Actor:
        generation = self._generation
        parsed = _parsed(certificate)
        seconds = _seconds_left(parsed)
        holders = await self._certificates.holders([("fingerprint", fingerprint.hex())])
        names = [] if holders else _names(parsed)
        if names:
            holders = await self._certificates.holders(names)
        if len(holders) != 1:
            _refuse()
        (holder,) = holders
        actor = Actor(
            id=f"{ACCOUNT_PREFIX}{holder.service_account}",
            tenant=holder.tenant,
            roles=frozenset({holder.role}),
            scopes=holder.scopes,
        )
        if generation == self._generation:
            while len(self._known) >= CAPACITY:
                del self._known[next(iter(self._known))]
            self._known[fingerprint] = (time.monotonic() + min(seconds, MAX_CACHED_SECONDS), actor)
        return actor


def _parsed(certificate: bytes) -> Certificate:
    from cryptography import x509

    try:
        return x509.load_der_x509_certificate(certificate)
    except ValueError:
        _refuse()


def _seconds_left(certificate: Certificate) -> float:
    """Return how long a certificate is still valid: a connection can outlive the one it began with."""
    now = datetime.datetime.now(datetime.UTC)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        _refuse()
    return (certificate.not_valid_after_utc - now).total_seconds()


def _names(certificate: Certificate) -> list[tuple[Kind, str]]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        hosts = names.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    found: list[tuple[Kind, str]] = [("uri", uri) for uri in uris]
    found += [("dns", host.lower()) for host in hosts]
    return found[:MOST_NAMES]


def _refuse() -> NoReturn:
    raise ProviderError(ErrorCode.UNAUTHENTICATED, REFUSAL)
