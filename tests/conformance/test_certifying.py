"""What a run proves, and how the ledger keeps it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from erp.contracts import proof
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance.case import cases_for
from erp.runtime.conformance.certifying import proof_of, proven, reached, record
from erp.runtime.conformance.outcome import Outcome, Report, Status

MEMORY = ProviderCatalog.load().provider("cache", "memory")


@pytest.mark.parametrize(
    ("embedded", "server", "config", "expected"),
    [
        (True, None, None, "P4"),
        (True, "redis", None, "P0"),
        (False, None, None, "P0"),
        (False, None, {"url": "x"}, "P0"),
        (False, "redis", None, "P0"),
        (False, "redis", {"url": "x"}, "P4"),
    ],
)
def test_a_run_is_live_only_when_the_real_thing_answered(
    embedded: bool, server: str | None, config: dict | None, expected: str
) -> None:
    manifest = msgspec.structs.replace(MEMORY, embedded=embedded, conformance={"server": server})

    assert reached(manifest, config) == expected


def report(**odd: Status) -> Report:
    outcomes = [Outcome(case, odd.get(str(case.capability), "passed")) for case in cases_for(MEMORY)]
    return Report("cache/memory", "1.0.0", "1.0.0", outcomes)


@pytest.mark.parametrize("status", ["failed", "gap", "not_run"])
def test_a_capability_is_proven_only_when_all_its_cases_passed(status: Status) -> None:
    found = proven(report(ttl=status), MEMORY, "P4")

    assert found == dict.fromkeys(sorted(set(MEMORY.capabilities) - {"ttl"}), "P4")


TODAY = datetime.date(2026, 11, 28)
DATED = {"levels": {"ttl": "P4"}, "server": "Redis 8.0.2", "date": "2026-11-28"}


def test_the_ledger_says_what_answered_and_when() -> None:
    ran = report()
    ran.server = "Redis 8.0.2"

    found = proof_of(ran, MEMORY, "P4", today=TODAY)

    assert found == {**DATED, "levels": dict.fromkeys(sorted(MEMORY.capabilities), "P4")}


def test_the_ledger_keeps_what_it_knows_of_others_and_drops_what_is_no_longer_proven(tmp_path: Path) -> None:
    ledger = tmp_path / "proof.json"
    assert record(ledger, "cache/a", proof.entry(DATED))
    assert record(ledger, "cache/b", proof.entry({"ttl": "P2"}))
    assert not record(ledger, "cache/b", proof.entry({"ttl": "P2"}))
    assert record(ledger, "cache/a", {"levels": {}, "date": "2026-11-29"})

    found: Any = json.loads(ledger.read_text())
    assert found == {"cache/b": {"levels": {"ttl": "P2"}}}
    assert [path.name for path in tmp_path.iterdir()] == ["proof.json"]


def test_an_entry_of_levels_alone_is_read_and_brought_into_form_when_the_ledger_is_written(tmp_path: Path) -> None:
    ledger = tmp_path / "proof.json"
    ledger.write_text(json.dumps({"cache/b": {"tti": "P2"}, "cache/a": DATED}))

    assert proof.read(ledger) == {"cache/a": DATED, "cache/b": {"levels": {"tti": "P2"}}}
    assert record(ledger, "cache/a", proof.entry(DATED))
    assert ledger.read_text() == proof.text({"cache/a": proof.entry(DATED), "cache/b": {"levels": {"tti": "P2"}}})
