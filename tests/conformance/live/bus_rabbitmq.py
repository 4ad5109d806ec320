"""``bus/rabbitmq`` on a RabbitMQ node."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

REF = "bus/rabbitmq"
VARIABLE = "ERP_TEST_RABBITMQ"


def config(address: str) -> Mapping[str, Any]:
    """Return the settings for ``amqp://user:password@host:port``."""
    parts = urlsplit(address)
    prefix = f"run-{secrets.token_hex(4)}"  # the server keeps what an earlier run has published
    found: dict[str, Any] = {"url": f"amqp://{parts.hostname}:{parts.port}", "prefix": prefix}
    if parts.username and parts.password:
        found |= {"user": parts.username, "password": parts.password}
    return found
