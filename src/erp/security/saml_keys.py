"""The key pair of a tenant as a service provider of SAML: identity providers encrypt assertions for it.

Kept as versions of a secret of the tenant. The certificate only carries the public key (saml-metadata-2.0-os, section
2.4.1.1): it is self-signed, and nobody is asked to trust it.
"""

from __future__ import annotations

import asyncio
import datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from erp.runtime.ports import SecretVault

PATH = "identity/saml-key"
BITS = 3072
MOST = 3
"""Versions that are tried: two processes may have made one at the same time."""
_YEARS = 20


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """A private key and the certificate of its public key, PEM."""

    key: str
    certificate: str

    def __repr__(self) -> str:
        return "KeyPair()"


class SamlKeys:
    """The key pairs of all tenants."""

    def __init__(self, vault: SecretVault) -> None:
        self._vault = vault

    async def newest(self, tenant: str) -> KeyPair:
        """Return the pair whose certificate is given to identity providers; it is made when there is none."""
        found = await self.known(tenant)
        if not found:
            made = await asyncio.to_thread(made_for, tenant)
            await self._vault.put(tenant, PATH, msgspec.json.encode(made).decode())
            found = await self.known(tenant)
        return found[0]

    async def known(self, tenant: str) -> list[KeyPair]:
        """Return the pairs with which something may have been encrypted, the newest first."""
        versions = [one.version for one in await self._vault.versions(tenant, PATH) if one.state != "destroyed"]
        texts = [await self._vault.get(tenant, PATH, version) for version in sorted(versions, reverse=True)[:MOST]]
        return [msgspec.json.decode(text, type=KeyPair) for text in texts]


def made_for(tenant: str) -> KeyPair:
    """Return a new pair."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=BITS)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{tenant} (SAML)")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return KeyPair(key=private.decode(), certificate=public.decode())
