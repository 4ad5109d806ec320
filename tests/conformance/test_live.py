"""Every provider of an engine keeps the contract of its domain on a live server, and the ledger says what that proves."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import pytest

from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance.case import Case, cases_for
from erp.runtime.conformance.certifying import ledger_text, proven, reached
from erp.runtime.conformance.plugin import Suite, judge

pytestmark = pytest.mark.timeout(200)  # a case may take 30 s, and one that measures time has three chances

HERE = Path(__file__).parent
LEDGER = HERE.parents[1] / "src/erp/contracts/proof.json"
CATALOG = ProviderCatalog.load()


class Live(Protocol):
    """A module of ``live``."""

    REF: str
    VARIABLE: str

    def config(self, address: str) -> Mapping[str, Any]:
        """Return the configuration with which the provider reaches the server."""


def _module(path: Path) -> Live:
    return cast("Live", importlib.import_module(f"tests.conformance.live.{path.stem}"))


LIVE = {one.REF: one for one in map(_module, sorted((HERE / "live").glob("*_*.py")))}
_suites: dict[str, Suite] = {}


def suite(ref: str) -> Suite:
    """The running suite of a provider; without its server the asking test is skipped by name."""
    if ref not in _suites:
        address = os.environ.get(LIVE[ref].VARIABLE)
        if not address:
            pytest.skip(f"{ref} needs {LIVE[ref].VARIABLE}")
        _suites[ref] = Suite(ref, LIVE[ref].config(address))
    return _suites[ref]


def _pairs() -> list[Any]:
    return [
        pytest.param(ref, case, id=f"{ref}-{case.id}")
        for ref in LIVE
        for case in cases_for(CATALOG.provider(*ref.split("/")))
    ]


@pytest.fixture(autouse=True)
def _servers_may_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are on this machine, where no tenant's connection leads otherwise."""
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")


@pytest.mark.live
@pytest.mark.parametrize(("ref", "case"), _pairs())
def test_a_provider_keeps_the_contract_on_a_live_server(ref: str, case: Case) -> None:
    judge(suite(ref).outcome(case))


@pytest.mark.live
@pytest.mark.parametrize("ref", LIVE)
def test_the_ledger_of_proof_says_what_the_suite_proves_on_a_live_server(ref: str) -> None:
    ran = suite(ref)
    level = getattr(LIVE[ref], "LEVEL", reached(ran.manifest, {}))
    now = proven(ran.report(), ran.manifest, level)

    assert json.loads(LEDGER.read_text()).get(ref, {}) == now, f"run `erp provider certify {ref} --record`"


def test_every_provider_that_names_a_server_and_claims_proof_has_a_live_module() -> None:
    claims = set(json.loads(LEDGER.read_text()))
    named = {ref for ref, one in CATALOG.providers.items() if one.conformance.get("server")}

    assert claims & named == set(LIVE) & claims


def test_the_ledger_is_sorted_and_names_only_providers_that_are_here() -> None:
    ledger = json.loads(LEDGER.read_text())

    assert set(ledger) <= set(CATALOG.providers)
    assert LEDGER.read_text() == ledger_text(ledger)
