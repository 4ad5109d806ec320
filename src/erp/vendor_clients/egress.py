"""Which addresses the layer may open connections to on behalf of a tenant.

EgressRule()                      public addresses only
EgressRule.from_environment()     and the networks the operator lists in ``ERP_EGRESS_ALLOW``
  .permits(address, port)         decides about one IP address, never about a name

A name proves nothing: it can resolve to anything, and to something else a moment later. So the rule is
asked about the very address a connection is opened to (``guarded_http``).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

ALLOW_VARIABLE = "ERP_EGRESS_ALLOW"

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# Written out because what the standard library calls global differs between Python releases and includes
# multicast and translated addresses. Source: IANA special-purpose address registries.
_RESERVED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",  # public by number, but the host agent of every Azure machine
    )
)
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_RESERVED_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, among them Teredo
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries any IPv4 address
        "3fff::/20",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_MAXIMUM_PORT = 65_535
_ENTRY = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[^\s:\[\]]+)):(?P<port>[1-9]\d{0,4})")


class EgressRefusedError(Exception):
    """The address may not be connected to. The text never tells what a name resolved to."""


@dataclass(frozen=True, slots=True)
class EgressRule:
    """Public addresses, plus networks the operator of the platform (never a tenant) allows."""

    allowed: tuple[Network, ...] = ()
    allowed_at: tuple[tuple[Network, int], ...] = ()
    """Networks of which one port alone is allowed."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> EgressRule:
        """Read the comma-separated networks (CIDR) of ``ERP_EGRESS_ALLOW``.

        An entry can end with a port, which then is the only one allowed: ``10.1.2.3/32:8443``, ``[fd00:1::/64]:8443``.

        Raises:
            ValueError: an entry is not a network.
        """
        text = (os.environ if environment is None else environment).get(ALLOW_VARIABLE, "")
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        try:
            found = [_allowed(entry) for entry in entries]
        except ValueError as error:
            raise ValueError(f"{ALLOW_VARIABLE} must be networks such as 10.1.0.0/16: {error}") from error
        return cls(
            tuple(network for network, port in found if port is None),
            tuple((network, port) for network, port in found if port is not None),
        )

    def permits(self, address: str, port: int | None = None) -> bool:
        """Whether a connection to ``address`` (an IP address, not a name) may be opened; without ``port`` to any port."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None:
            return False
        reached = _reached(parsed)
        return _is_public(reached) or any(
            network.version == reached.version and reached in network for network in self._allowed(port)
        )

    def _allowed(self, port: int | None) -> tuple[Network, ...]:
        return (*self.allowed, *(network for network, only in self.allowed_at if only == port))


def _allowed(entry: str) -> tuple[Network, int | None]:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return ipaddress.ip_network(entry), None
    port = int(match["port"])
    if port > _MAXIMUM_PORT:
        raise ValueError(f"{entry!r} has an impossible port")
    return ipaddress.ip_network(match["bracketed"] or match["plain"]), port


def _reached(address: Address) -> Address:
    """The IPv4 address behind an IPv6 one that only translates to it, else ``address`` itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _RESERVED_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _RESERVED_V6)
