"""``db/snowflake`` with a schema for each tenant, on fakesnow: a simulator, so it proves P2 at most."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from erp.vendor_clients.egress import ALLOW_VARIABLE

REF = "db/snowflake"
VARIABLE = "ERP_TEST_SNOWFLAKE"
LEVEL = "P2"


def config(address: str) -> Mapping[str, Any]:
    """Return the configuration for the server at ``address``, a URL; its network is allowed to tenants meanwhile."""
    url = urlsplit(address)
    os.environ.setdefault(ALLOW_VARIABLE, "127.0.0.1/32")
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
