"""The certificate with which the sender of a request has proven who it is (RFC 8446, RFC 9440)."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError

if TYPE_CHECKING:
    from starlette.types import Scope

PEER = "erp.peer"
"""ASGI extension: the ``Peer`` at the other end of the connection."""
HEADER = b"client-cert"
MOST_BYTES = 16 * 1024

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Peer(NamedTuple):
    """Who is at the other end of a connection."""

    certificate: bytes | None
    """DER; its chain was verified in the TLS handshake."""
    is_trusted: bool
    """Whether it is a proxy whose ``Client-Cert`` header is believed."""


def trusted_proxies() -> tuple[Network, ...]:
    """Return the networks in ``ERP_TRUSTED_PROXIES``.

    Raises:
        ProviderError: ``failed_precondition`` for what is no network.
    """
    texts = [text.strip() for text in os.environ.get("ERP_TRUSTED_PROXIES", "").split(",")]
    try:
        return tuple(ipaddress.ip_network(text) for text in texts if text)
    except ValueError as error:
        message = f"ERP_TRUSTED_PROXIES is wrong: {error}. Use networks or addresses, separated by commas: 10.1.0.0/24."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from None


def peer_of(transport: Any, proxies: tuple[Network, ...]) -> Peer | None:
    """Return the peer of a connection that has just been made; None when nothing special is known of it."""
    secured = transport.get_extra_info("ssl_object")
    certificate = None if secured is None else secured.getpeercert(binary_form=True)
    is_trusted = bool(proxies) and _is_in(transport.get_extra_info("peername"), proxies)
    return Peer(certificate, is_trusted) if certificate or is_trusted else None


def presented(scope: Scope) -> bytes | None:
    """Return the certificate (DER) of who sent the request, or None.

    A trusted proxy speaks for others: what counts is its ``Client-Cert`` header (RFC 9440, section 2.2), never its own
    certificate. From everybody else the header means nothing.

    Raises:
        ProviderError: ``invalid_argument`` when a trusted proxy sends a malformed header, or more than one.
    """
    peer: Peer | None = scope.get("extensions", {}).get(PEER)
    if peer is None or not peer.is_trusted:
        return None if peer is None else peer.certificate
    values = [value for name, value in scope["headers"] if name == HEADER]
    return _decoded(values) if values else None


def _decoded(values: list[bytes]) -> bytes:
    """Decode a byte sequence of structured fields: base64 between colons (RFC 8941, section 3.3.5)."""
    value = values[0].strip()
    try:
        if len(values) == 1 and len(value) <= MOST_BYTES and value[:1] == value[-1:] == b":":
            return base64.b64decode(value[1:-1], validate=True)
    except binascii.Error:
        pass
    hint = "Use one byte sequence: the certificate (DER) in base64 between colons (RFC 9440)."
    errors = [FieldError("/headers/Client-Cert", hint)]
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The Client-Cert header is malformed.", errors=errors)


def _is_in(address: Any, networks: tuple[Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address[0])
    except (ValueError, TypeError, IndexError):
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return any(found.ipv4_mapped in network for network in networks)
    return any(found in network for network in networks)
