"""Every embedded provider keeps the contract of its domain, and the ledger says exactly what that proves."""

from __future__ import annotations

from pathlib import Path

import pytest

from erp.contracts import proof
from erp.runtime.conformance.certifying import proven, reached
from erp.runtime.conformance.plugin import Suite, cases_of

pytestmark = pytest.mark.timeout(200)  # a case may take 30 s, and one that measures time has three chances

LEDGER = Path(__file__).parents[2] / "src/erp/contracts/proof.json"
REFS = (
    "ai/local",
    "auth/local",
    "bus/log",
    "cache/memory",
    "db/sqlite",
    "integration/http_api",
    "integration/webhook",
    "secrets/local",
    "storage/filesystem",
)
SUITES = {ref: Suite(ref) for ref in REFS}

test_ai_local = cases_of(SUITES["ai/local"])
test_auth_local = cases_of(SUITES["auth/local"])
test_bus_log = cases_of(SUITES["bus/log"])
test_cache_memory = cases_of(SUITES["cache/memory"])
test_db_sqlite = cases_of(SUITES["db/sqlite"])
test_integration_http_api = cases_of(SUITES["integration/http_api"])
test_integration_webhook = cases_of(SUITES["integration/webhook"])
test_secrets_local = cases_of(SUITES["secrets/local"])
test_storage_filesystem = cases_of(SUITES["storage/filesystem"])


@pytest.mark.parametrize("ref", REFS)
def test_the_ledger_of_proof_says_what_the_suite_proves_now(ref: str) -> None:
    suite = SUITES[ref]
    now = proven(suite.report(), suite.manifest, reached(suite.manifest, None))

    assert proof.read(LEDGER).get(ref, {"levels": {}})["levels"] == now, f"run `erp provider certify {ref} --record`"
