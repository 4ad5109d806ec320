"""``bus/kafka`` on the cluster that librdkafka plays: its protocol, not a broker, hence P2."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

REF = "bus/kafka"
VARIABLE = "ERP_TEST_KAFKA_MOCK"
LEVEL = "P2"


def config(address: str) -> Mapping[str, Any]:
    """Return the settings for ``host:port``."""
    # The simulator writes no checksum on the records that end a transaction.
    return {"servers": address, "prefix": f"run-{secrets.token_hex(4)}", "verify_checksums": False}
