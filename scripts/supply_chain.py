#!/usr/bin/env python3
"""Say what is installed (CycloneDX 1.6) and compare it with known advisories. Reads the locks; asks nobody.

Usage: scripts/supply_chain.py sbom [--lock runtime] [--out FILE]
       scripts/supply_chain.py advisories
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = ("runtime", "dev", "tools", "fakesnow")
ADVISORIES = ROOT / "requirements" / "advisories.json"
_ENTRY = re.compile(r"^(?P<name>[a-z0-9._-]+)(?:\[[^]]+\])?==(?P<version>[^ ;\\\s]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def pins(lock: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, version and hashes of everything in a lock."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    for entry in re.split(r"\n(?=\S)", text.strip()):
        found = _ENTRY.match(entry)
        if found is not None:
            yield found["name"], found["version"], sorted(_HASH.findall(entry))


def sbom(lock: str) -> dict[str, Any]:
    """Return the bill of materials of a lock: https://cyclonedx.org/docs/1.6/json/."""
    version = re.search(r'__version__ = "([^"]+)"', (ROOT / "src/erp/__init__.py").read_text())
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "properties": [{"name": "erp:sha256", "value": digest} for digest in hashes],
        }
        for name, version, hashes in sorted(pins(lock))
    ]
    main = {
        "type": "application",
        "bom-ref": "erp-provider-layer",
        "name": "erp-provider-layer",
        "version": version[1] if version else "0",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([main, components], sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": main},
        "components": components,
        "dependencies": [{"ref": main["bom-ref"], "dependsOn": [one["bom-ref"] for one in components]}],
    }


def findings(installed: list[tuple[str, str]], advisories: list[dict[str, str]]) -> list[str]:
    """Return a line for everything installed that an advisory is about."""
    return [
        f"{name} {version}: {one['id']} ({one['affected']}): {one['summary']}"
        for name, version in sorted(set(installed))
        for one in advisories
        if one["package"] == name and Version(version) in SpecifierSet(one["affected"], prereleases=True)
    ]


def check_advisories() -> int:
    """Print what is affected; return 1 when something is."""
    known = json.loads(ADVISORIES.read_text())
    installed = [(name, version) for lock in LOCKS for name, version, _ in pins(lock)]
    found = findings(installed, known["advisories"])
    print("\n".join(found) or f"{len(set(installed))} pins, none affected by {len(known['advisories'])} advisories")
    print(f"advisories as of {known['as_of']}; the list is kept by hand and is not all there are", file=sys.stderr)
    return int(bool(found))


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    bill = commands.add_parser("sbom")
    bill.add_argument("--lock", choices=LOCKS, default="runtime")
    bill.add_argument("--out", type=Path)
    commands.add_parser("advisories")
    chosen = parser.parse_args()
    if chosen.command == "advisories":
        return check_advisories()
    text = json.dumps(sbom(chosen.lock), indent=1) + "\n"
    if chosen.out:
        chosen.out.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
