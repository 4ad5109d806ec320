"""``storage/s3`` on moto, a simulator of S3 that checks permissions and signatures."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import unquote, urlsplit

REF = "storage/s3"
VARIABLE = "ERP_TEST_S3_MOTO"
LEVEL = "P2"


def config(address: str) -> dict[str, Any]:
    """Read ``http://KEY:SECRET@HOST:PORT/BUCKET``."""
    url = urlsplit(address)
    return {
        "namespace": f"run-{secrets.token_hex(4)}",  # the bucket keeps what an earlier run has left
        "endpoint": f"{url.scheme}://{url.hostname}:{url.port}",
        "bucket": url.path.strip("/"),
        "access_key_id": unquote(url.username or ""),
        "secret_access_key": unquote(url.password or ""),
    }
