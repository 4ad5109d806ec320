"""auth/opa against a real Open Policy Agent."""

from __future__ import annotations

import os
from typing import Any

from tests.support.opa_policy import DECISION, push

REF = "auth/opa"
VARIABLE = "ERP_TEST_OPA"


def config(address: str) -> dict[str, Any]:
    push(address)
    # The operator lets the layer reach this port of this machine, and no other.
    allowed = os.environ.get("ERP_EGRESS_ALLOW", "")
    os.environ["ERP_EGRESS_ALLOW"] = ",".join(filter(None, (allowed, f"127.0.0.1/32:{address.rpartition(':')[2]}")))
    return {"url": address, "decision": DECISION, "token": "token-of-the-suite"}
