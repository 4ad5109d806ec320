"""``bus/nats`` on a NATS server with JetStream."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

REF = "bus/nats"
VARIABLE = "ERP_TEST_NATS"


def config(address: str) -> Mapping[str, Any]:
    """Return the settings for ``nats://user:password@host:port``."""
    parts = urlsplit(address)
    prefix = f"run-{secrets.token_hex(4)}"  # the server keeps what an earlier run has published
    found: dict[str, Any] = {"url": f"nats://{parts.hostname}:{parts.port}", "prefix": prefix}
    if parts.username and parts.password:
        found |= {"user": parts.username, "password": parts.password}
    return found
