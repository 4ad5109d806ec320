"""The bill of materials names what is locked, and nothing locked is known to be vulnerable."""

from __future__ import annotations

import datetime
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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
