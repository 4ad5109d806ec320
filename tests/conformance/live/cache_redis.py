"""``cache/redis`` on the Redis that ``ERP_TEST_REDIS`` names."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

REF = "cache/redis"
VARIABLE = "ERP_TEST_REDIS"


def config(address: str) -> Mapping[str, Any]:
    """Return the configuration for the server at ``address``, a URL."""
    url = urlsplit(address)
    found: dict[str, Any] = {"hosts": [f"{url.hostname}:{url.port or 6379}"], "database": int(url.path[1:] or 0)}
    if url.username:
        found["username"] = unquote(url.username)
    if url.password:
        found["password"] = unquote(url.password)
    # What an earlier run has left on the server must not be met.
    return {**found, "tls": url.scheme == "rediss", "key_prefix": f"test-{secrets.token_hex(6)}"}
