"""``db/mysql`` with a database and logins for each tenant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

REF = "db/mysql"
VARIABLE = "ERP_TEST_MARIADB"


def config(address: str) -> Mapping[str, Any]:
    """Return the configuration for the server at ``address``, a URL."""
    url = urlsplit(address)
    return {
        "host": url.hostname or "127.0.0.1",
        "port": url.port or 3306,
        "database": url.path.lstrip("/"),
        "user": unquote(url.username or ""),
        "password": unquote(url.password or ""),
        "tls": "disable",
        "mode": "database",
    }
