"""Where the layer may open a connection that is not HTTP, for a host that a tenant has configured.

The name is resolved here and the driver is given the very address that was judged, so that it cannot resolve to
something else a moment later. TLS still proves the name: ``PinnedTls`` keeps it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.egress import ALLOW_VARIABLE, EgressRule


async def permitted_address(host: str, port: int, rule: EgressRule | None = None) -> str:
    """Return an address of ``host`` to which a connection may be opened.

    Raises:
        ProviderError: ``unavailable`` when the name has no address now, ``failed_precondition`` when the operator does not
            allow any of them.
    """
    rule = rule or EgressRule.from_environment()
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ProviderError(ErrorCode.UNAVAILABLE, f"{host} has no address.", retry_after_seconds=5.0) from error
    addresses = [str(entry[4][0]) for entry in found]
    permitted = [address for address in addresses if rule.permits(address, port)]
    if not permitted:
        message = (
            f"{host} is not a public address; the operator of the platform can allow its network ({ALLOW_VARIABLE})."
        )
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return permitted[0]


class PinnedTls(ssl.SSLContext):
    """TLS that proves one name, whatever address the connection was opened to."""

    name: str = ""

    def wrap_bio(self, *args: Any, **words: Any) -> ssl.SSLObject:
        """Wrap as always, under the pinned name."""
        return super().wrap_bio(*args, **{**words, "server_hostname": self.name})


def tls_for(host: str, *, verify: bool, authority: str | None) -> PinnedTls:
    """Return TLS for ``host``; ``authority`` are certificates in PEM to trust instead of the system's.

    Raises:
        ProviderError: ``failed_precondition`` when ``authority`` is no certificate.
    """
    context = PinnedTls(ssl.PROTOCOL_TLS_CLIENT)
    context.name = host
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context.load_verify_locations(cadata=authority) if authority else context.load_default_certs()
    except (ssl.SSLError, ValueError) as error:
        message = "The certificates of the authority are not PEM. Send them with their BEGIN and END lines."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
    return context
