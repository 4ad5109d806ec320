"""What discovery says of how good a provider is: nothing that nobody trusted has shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from erp.contracts.loading import catalog, quality
from erp.gateway.standing import Standing, Standings
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance.scaffold import write_provider
from erp.runtime.evidence import FORMAT, digest, public_key, signed
from erp.runtime.manifest import ProviderManifest

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTING = frozenset({public_key(KEY)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_provider("cache/foreign", tmp_path)


def manifest(folder: Path) -> ProviderManifest:
    return ProviderCatalog.load(folder.parents[1]).provider("cache", "foreign")


def put_evidence(folder: Path, **changed: Any) -> None:
    document = {
        "format": FORMAT,
        "ref": "cache/foreign",
        "version": "0.1.0",
        "digest": digest(folder),
        "layer": {"version": "1"},
        "certified_at": "2026-01-01T00:00:00Z",
        "peer": {"server": "Foreign 7.2"},
        "cases": [{"id": "CALL-01", "outcome": "passed"}, {"id": "CALL-02", "outcome": "gap"}],
        "proof": {"ttl": "P4"},
        "quality": {"level": "silver", "exempt": {}},
    }
    (folder / "evidence.json").write_text(json.dumps(signed({**document, **changed}, KEY)))


def test_built_in_providers_stand_where_ledger_and_scale_say() -> None:
    found = Standings(frozenset()).of(ProviderCatalog.load().provider("cache", "memory"))

    recorded = catalog()["proof"]["cache/memory"]
    assert found == Standing(quality()["cache/memory"], recorded["levels"], None, recorded["date"])
    assert found.proof["ttl"] == "P4"


def test_evidence_of_a_trusted_key_is_proof(folder: Path) -> None:
    put_evidence(folder)

    found = Standings(TRUSTING).of(manifest(folder))

    assert (found.level, found.proof) == ("silver", {"ttl": "P4"})
    assert (found.server, found.date) == ("Foreign 7.2", "2026-01-01")
    assert found.evidence is not None
    assert (found.evidence["passed"], found.evidence["gaps"], found.evidence["trusted"]) == (1, 1, True)


def test_evidence_of_anybody_is_shown_and_proves_nothing(folder: Path) -> None:
    put_evidence(folder)

    found = Standings(frozenset()).of(manifest(folder))

    assert (found.level, found.proof) == (None, {})
    assert found.evidence is not None
    assert found.evidence["trusted"] is False


@pytest.mark.parametrize(
    "changed",
    [{"ref": "cache/other"}, {"version": "9.9.9"}, {"digest": "sha256:0"}],
)
def test_evidence_about_something_else_is_as_good_as_none(changed: dict, folder: Path) -> None:
    put_evidence(folder, **changed)

    assert Standings(TRUSTING).of(manifest(folder)) == Standing()


def test_evidence_of_code_that_has_changed_since_is_as_good_as_none(folder: Path) -> None:
    put_evidence(folder)
    with (folder / "provider.py").open("a") as file:
        file.write("# changed\n")

    assert Standings(TRUSTING).of(manifest(folder)) == Standing()


@pytest.mark.parametrize(
    "changed", [{"proof": {"ttl": "P7"}}, {"quality": None}, {"cases": [1]}, {"certified_at": "soon"}, {"layer": 1}]
)
def test_evidence_of_another_shape_is_as_good_as_none_whoever_signed_it(changed: dict, folder: Path) -> None:
    put_evidence(folder, **changed)

    assert Standings(TRUSTING).of(manifest(folder)) == Standing()


@pytest.mark.parametrize("text", ["", "{}", '{"format": "erp-evidence/1", "signature": 1}'])
def test_evidence_that_is_damaged_is_as_good_as_none(text: str, folder: Path) -> None:
    (folder / "evidence.json").write_text(text)

    assert Standings(TRUSTING).of(manifest(folder)) == Standing()


def test_trusted_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    put_evidence(folder)
    monkeypatch.setenv("ERP_CERTIFY_TRUSTED_KEYS", f" {public_key(KEY)} ,,x")

    assert Standings.from_environment().of(manifest(folder)).level == "silver"
