"""``db/snowflake`` with a schema for each tenant, on fakesnow: a simulator, so it proves P2 at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

REF = "db/snowflake"
VARIABLE = "ERP_TEST_SNOWFLAKE"
LEVEL = "P2"


def config(address: str) -> Mapping[str, Any]:
    """Return the configuration for the server at ``address``, a URL."""
    url = urlsplit(address)
    return {
        "account": "fakesnow",
        "host": url.hostname or "127.0.0.1",
        "port": url.port or 80,
        "tls": "disable",
        "database": url.path.lstrip("/"),
        "user": unquote(url.username or ""),
        "password": unquote(url.password or ""),
        "mode": "schema",
        "max_statement_seconds": 10,
    }
