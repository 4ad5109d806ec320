"""``storage/s3`` on a real store if there is one, else on moto, a simulator that checks permissions and signatures."""

from __future__ import annotations

import os
import secrets
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

REF = "storage/s3"
VARIABLE = "ERP_TEST_S3" if os.environ.get("ERP_TEST_S3") else "ERP_TEST_S3_MOTO"
LEVEL = "P4" if VARIABLE == "ERP_TEST_S3" else "P2"


def config(address: str) -> dict[str, Any]:
    """Read ``http://KEY:SECRET@HOST:PORT/BUCKET``, with further settings as query."""
    url = urlsplit(address)
    return {
        "namespace": f"run-{secrets.token_hex(4)}",  # the bucket keeps what an earlier run has left
        "endpoint": f"{url.scheme}://{url.netloc.rpartition('@')[2]}",
        "bucket": url.path.strip("/"),
        "access_key_id": unquote(url.username or ""),
        "secret_access_key": unquote(url.password or ""),
        **dict(parse_qsl(url.query)),
    }
