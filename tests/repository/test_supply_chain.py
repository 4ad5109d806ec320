"""The bill of materials names what is locked, and nothing locked is known to be vulnerable."""

from __future__ import annotations

import datetime
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def script(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply_chain", root / "scripts" / "supply_chain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_that_is_locked_is_known_to_be_vulnerable(root: Path) -> None:
    command = [sys.executable, str(root / "scripts" / "supply_chain.py"), "advisories"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (ended.returncode, "none affected by" in ended.stdout) == (0, True), ended.stdout


def test_an_affected_version_is_found_and_a_mended_one_is_not(root: Path, script: ModuleType) -> None:
    known = json.loads((root / "requirements" / "advisories.json").read_text())
    datetime.date.fromisoformat(known["as_of"])
    found = script.findings([("starlette", "0.48.0"), ("starlette", "1.10.0")], known["advisories"])
    assert found == [
        "starlette 0.48.0: CVE-2025-62727 (>=0.39.0,<0.49.1): quadratic time for the Range header of files"
    ]


def advisory(**facts: Any) -> dict[str, Any]:
    """One in the OSV format, about ``Flask-Thing`` from 1.0 to 1.2."""
    events = [{"introduced": "1.0"}, {"fixed": "1.2"}]
    package = {"ecosystem": "PyPI", "name": "Flask_Thing", "purl": "pkg:pypi/flask-thing"}
    affected = {"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    made = {"id": "GHSA-1", "modified": "2026-11-02T10:00:00Z", "aliases": ["CVE-2026-1"], "summary": "a hole"}
    return {**made, "affected": [affected], **facts}


KNOWN = {
    "as_of": "2026-01-01",
    "advisories": [
        {"package": "flask-thing", "id": "CVE-2026-1", "affected": "<9", "summary": "said too much"},
        {"package": "other", "id": "CVE-2025-9", "affected": "<2", "summary": "found by hand"},
    ],
}


def test_an_export_replaces_what_was_known_of_the_same_advisories_and_leaves_the_rest(script: ModuleType) -> None:
    made = script.merged(KNOWN, [advisory()], {"flask-thing"})
    entry = {"package": "flask-thing", "id": "CVE-2026-1", "affected": ">=1.0,<1.2", "summary": "a hole"}
    assert made == {"as_of": "2026-11-02", "advisories": [entry, KNOWN["advisories"][1]]}
    pins = [("flask-thing", version) for version in ("0.9", "1.0", "1.1.9", "1.2")]
    assert [line.split(":")[0] for line in script.findings(pins, made["advisories"])] == [
        "flask-thing 1.0",
        "flask-thing 1.1.9",
    ]


@pytest.mark.parametrize(
    ("events", "versions", "affected"),
    [
        ([{"introduced": "0"}, {"last_affected": "1.1"}], [], [">=0,<=1.1"]),
        ([{"introduced": "2"}], [], [">=2"]),
        ([{"fixed": "1.10"}, {"introduced": "1.9"}], [], [">=1.9,<1.10"]),
        (
            [{"introduced": "1"}, {"fixed": "1.5"}, {"introduced": "2"}, {"fixed": "2.1"}],
            ["1.4", "2.0"],
            [">=1,<1.5", ">=2,<2.1"],
        ),
        ([{"introduced": "2011k"}, {"fixed": "2012a"}], ["1.0", "2011k"], ["==1.0"]),
        ([], ["1.0", "1.1"], ["==1.0", "==1.1"]),
    ],
)
def test_ranges_and_listed_versions_are_read(
    script: ModuleType, events: list[dict[str, str]], versions: list[str], affected: list[str]
) -> None:
    one = advisory()
    one["affected"][0] |= {"ranges": [{"type": "ECOSYSTEM", "events": events}], "versions": versions}
    assert [found["affected"] for found in script.entries(one, {"flask-thing"})] == affected


def test_withdrawn_advisories_other_packages_and_other_ecosystems_are_left_out(script: ModuleType) -> None:
    npm = advisory()
    npm["affected"][0]["package"] = {"ecosystem": "npm", "name": "flask-thing"}
    for one in (advisory(withdrawn="2026-11-03T00:00:00Z"), npm):
        assert list(script.entries(one, {"flask-thing"})) == []
    assert list(script.entries(advisory(), {"other"})) == []


@pytest.mark.parametrize("kind", ["zip", "folder", "file"])
def test_the_list_is_refreshed_from_an_export(
    script: ModuleType, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = advisory(affected=[{"package": {"ecosystem": "PyPI", "name": "starlette"}, "versions": ["0.1.0"]}])
    (folder := tmp_path / "osv").mkdir()
    (folder / "GHSA-1.json").write_text(json.dumps(one))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(folder / "GHSA-1.json", "GHSA-1.json")
    dump = {"zip": tmp_path / "all.zip", "folder": folder, "file": folder / "GHSA-1.json"}[kind]
    (listed := tmp_path / "advisories.json").write_text(json.dumps(KNOWN))
    monkeypatch.setattr(script, "ADVISORIES", listed)

    assert script.refresh(dump) == 0

    found = json.loads(listed.read_text())
    assert (found["as_of"], [one["id"] for one in found["advisories"]]) == (
        "2026-11-02",
        ["CVE-2026-1", "CVE-2025-9", "CVE-2026-1"],
    )
    assert capsys.readouterr().out.startswith("3 advisories about ")


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ("no JSON", "cannot be read"),
        ("[]", "is not in the OSV format"),
        ('{"id": "X", "modified": "2026-01-01T00:00:00Z", "affected": [{}]}', "X of the export is not"),
    ],
)
def test_what_is_no_export_is_refused_and_the_list_stays(
    script: ModuleType, content: str, refusal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (dump := tmp_path / "dump.json").write_text(content)
    (listed := tmp_path / "advisories.json").write_text(json.dumps(KNOWN))
    monkeypatch.setattr(script, "ADVISORIES", listed)
    with pytest.raises(SystemExit, match=refusal):
        script.refresh(dump)
    with pytest.raises(SystemExit, match="has no advisories"):
        script.refresh(tmp_path / "empty")
    assert json.loads(listed.read_text()) == KNOWN


def test_the_bill_of_materials_names_every_pin_with_its_hashes(root: Path, script: ModuleType) -> None:
    made = script.sbom("runtime")
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    pins = {line.split("==")[0].split("[")[0] for line in lines(root) if "==" in line and not line.startswith(" ")}
    assert {one["name"] for one in made["components"]} == pins
    assert all(one["properties"] for one in made["components"])
    references = [one["bom-ref"] for one in made["components"]]
    assert len(set(references)) == len(references)
    assert made["dependencies"][0]["dependsOn"] == references
    assert script.sbom("runtime") == made


def lines(root: Path) -> list[str]:
    return (root / "requirements" / "runtime.lock").read_text().splitlines()
