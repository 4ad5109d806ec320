"""auth/opa against a real Open Policy Agent."""

from __future__ import annotations

from typing import Any

from tests.support.opa_policy import DECISION, push

REF = "auth/opa"
VARIABLE = "ERP_TEST_OPA"


def config(address: str) -> dict[str, Any]:
    push(address)
    return {"url": address, "decision": DECISION, "token": "token-of-the-suite"}
