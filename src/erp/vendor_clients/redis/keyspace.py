"""The keys of one tenant's connection in a Redis that many share.

A key is ``<prefix>:{<tenant>/<connection>}:<kind>:<name>``. Tenant and connection are percent-encoded, so that no name of
theirs can contain what ends them. Whatever the caller's own name contains comes last and is never parsed. What stands in
braces decides about the slot (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags): all
keys of a connection are on one node of a cluster, where scripts and commands on several of them are atomic.
"""

from __future__ import annotations

from urllib.parse import quote

_GLOB = {ord(character): f"\\{character}" for character in "*?[]^-\\"}


class Keyspace:
    """Makes the keys of one tenant's connection."""

    __slots__ = ("base",)

    def __init__(self, prefix: str, tenant: str, connection: str) -> None:
        self.base = f"{prefix}:{{{quote(tenant, safe='')}/{quote(connection, safe='')}}}:"

    def of(self, kind: str) -> str:
        """Return what all keys of a kind begin with."""
        return f"{self.base}{kind}:"


def literal(text: str) -> str:
    """Return the pattern of ``SCAN MATCH`` that stands for exactly ``text``."""
    return text.translate(_GLOB)
