"""``secrets/aws`` on moto, a simulator of AWS that checks permissions and signatures."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import unquote, urlsplit

REF = "secrets/aws"
VARIABLE = "ERP_TEST_AWS_MOTO"
LEVEL = "P2"


def config(address: str) -> dict[str, Any]:
    """Read ``http://KEY:SECRET@HOST:PORT/REGION``."""
    url = urlsplit(address)
    return {
        "namespace": f"run-{secrets.token_hex(4)}",  # the account keeps what an earlier run has left
        "endpoint": f"{url.scheme}://{url.netloc.rpartition('@')[2]}",
        "region": url.path.strip("/"),
        "access_key_id": unquote(url.username or ""),
        "secret_access_key": unquote(url.password or ""),
    }
