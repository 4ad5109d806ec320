"""The policy of the conformance suite of ``auth/opa``."""

from __future__ import annotations

import httpx2

DECISION = "erp/conformance/decision"
POLICY = """package erp.conformance
import rego.v1

default decision := {"allow": false, "reason": "nobody allows it"}

decision := {"allow": true, "reason": "readers may read"} if {
	input.tenant == "alpha"
	input.subject.type == "user"
	input.subject.id == "reader-of-the-suite"
	input.action.name == "get"
	input.resource.type == "provider"
}
"""


def push(address: str) -> None:
    """Give the policy to the agent."""
    httpx2.put(f"{address}/v1/policies/erp/conformance", content=POLICY.encode()).raise_for_status()
