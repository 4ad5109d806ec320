"""``secrets/vault`` on a real server if there is one, else on a double that follows the published API."""

from __future__ import annotations

import os
import secrets
from typing import Any
from urllib.parse import unquote, urlsplit

REF = "secrets/vault"
VARIABLE = "ERP_TEST_VAULT" if os.environ.get("ERP_TEST_VAULT") else "ERP_TEST_VAULT_DOUBLE"
LEVEL = "P4" if VARIABLE == "ERP_TEST_VAULT" else "P2"


def config(address: str) -> dict[str, Any]:
    """Read ``http://TOKEN@HOST:PORT/ENGINE``."""
    url = urlsplit(address)
    return {
        "namespace": f"run-{secrets.token_hex(4)}",  # the engine keeps what an earlier run has left
        "address": f"{url.scheme}://{url.netloc.rpartition('@')[2]}",
        "engine": url.path.strip("/"),
        "token": unquote(url.username or ""),
    }
