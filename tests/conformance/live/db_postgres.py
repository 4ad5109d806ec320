"""``db/postgres`` with a schema and a login for each tenant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from erp.vendor_clients.egress import ALLOW_VARIABLE

REF = "db/postgres"
VARIABLE = "ERP_TEST_PGVECTOR"


def config(address: str) -> Mapping[str, Any]:
    """Return the configuration for the server at ``address``, a URL; its network is allowed to tenants meanwhile."""
    url = urlsplit(address)
    os.environ.setdefault(ALLOW_VARIABLE, "127.0.0.1/32")
    return {
        "host": url.hostname or "127.0.0.1",
        "port": url.port or 5432,
        "database": url.path.lstrip("/"),
        "user": unquote(url.username or ""),
        "password": unquote(url.password or ""),
        "tls": "disable",
        "mode": "schema",
    }
