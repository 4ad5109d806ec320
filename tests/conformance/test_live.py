"""Every provider of an engine keeps the contract of its domain on a live server, and the ledger says what that proves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.live import LIVE

from erp.contracts import proof
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance.case import Case, cases_for
from erp.runtime.conformance.certifying import proven
from erp.runtime.conformance.plugin import Suite, judge

pytestmark = pytest.mark.timeout(200)  # a case may take 30 s, and one that measures time has three chances

HERE = Path(__file__).parent
LEDGER = HERE.parents[1] / "src/erp/contracts/proof.json"
CATALOG = ProviderCatalog.load()


_suites: dict[str, Suite] = {}


def suite(ref: str) -> Suite:
    """The running suite of a provider; without its server the asking test is skipped by name."""
    if ref not in _suites:
        address = os.environ.get(LIVE[ref].VARIABLE)
        if not address:
            pytest.skip(f"{ref} needs {LIVE[ref].VARIABLE}")
        module = LIVE[ref]
        credentials = getattr(module, "credentials", None)
        _suites[ref] = Suite(
            ref,
            module.config(address),
            level=getattr(module, "LEVEL", None),
            credentials=credentials and credentials(address),
        )
    return _suites[ref]


@pytest.fixture(autouse=True)
def _servers_may_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are on this machine, where no tenant's connection leads otherwise."""
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")


def _pairs() -> list[Any]:
    return [
        pytest.param(ref, case, id=f"{ref}-{case.id}")
        for ref in LIVE
        for case in cases_for(CATALOG.provider(*ref.split("/")))
    ]


@pytest.mark.live
@pytest.mark.parametrize(("ref", "case"), _pairs())
def test_a_provider_keeps_the_contract_on_a_live_server(ref: str, case: Case) -> None:
    judge(suite(ref).outcome(case))


@pytest.mark.live
@pytest.mark.parametrize("ref", LIVE)
def test_the_ledger_of_proof_says_what_the_suite_proves_on_a_live_server(ref: str) -> None:
    ran = suite(ref)
    now = proven(ran.report(), ran.manifest, ran.level)

    assert proof.read(LEDGER).get(ref, {"levels": {}})["levels"] == now, f"run `erp provider certify {ref} --record`"


def test_every_provider_that_names_a_server_and_claims_proof_has_a_live_module() -> None:
    claims = set(proof.read(LEDGER))
    named = {ref for ref, one in CATALOG.providers.items() if one.conformance.get("server")}

    assert claims & named == set(LIVE) & claims


def test_the_ledger_is_sorted_and_names_only_providers_that_are_here() -> None:
    ledger = proof.read(LEDGER)

    assert set(ledger) <= set(CATALOG.providers)
    assert LEDGER.read_text() == proof.text(ledger), "run `erp contracts generate`"
