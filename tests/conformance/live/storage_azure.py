"""``storage/azure`` on Azurite, Microsoft's simulator of its blob service, which checks signatures."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import unquote, urlsplit

REF = "storage/azure"
VARIABLE = "ERP_TEST_AZURITE"
LEVEL = "P2"


def config(address: str) -> dict[str, Any]:
    """Read ``http://ACCOUNT:KEY@HOST:PORT/ACCOUNT/CONTAINER``."""
    url = urlsplit(address)
    account, _, container = url.path.strip("/").partition("/")
    return {
        "namespace": f"run-{secrets.token_hex(4)}",  # the container keeps what an earlier run has left
        "endpoint": f"{url.scheme}://{url.hostname}:{url.port}/{account}",
        "account": unquote(url.username or ""),
        "account_key": unquote(url.password or ""),
        "container": container,
    }
