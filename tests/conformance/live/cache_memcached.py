"""``cache/memcached`` on the Memcached that ``ERP_TEST_MEMCACHED`` names."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

REF = "cache/memcached"
VARIABLE = "ERP_TEST_MEMCACHED"


def config(address: str) -> Mapping[str, Any]:
    """Return the configuration for the server at ``address``, a URL or ``host:port``."""
    url = urlsplit(address if "://" in address else f"memcached://{address}")
    # What an earlier run has left on the server must not be met.
    found = {"hosts": [f"{url.hostname}:{url.port or 11211}"], "key_prefix": f"test-{secrets.token_hex(6)}"}
    if url.password:
        return {**found, "username": unquote(url.username or ""), "password": unquote(url.password)}
    return found
