#!/usr/bin/env python3
"""Say what is installed (CycloneDX 1.6) and compare it with known advisories. Reads the locks; asks nobody.

Usage: scripts/supply_chain.py sbom [--lock runtime] [--out FILE]
       scripts/supply_chain.py advisories
       scripts/supply_chain.py refresh DUMP

refresh takes what is about locked packages from an export of OSV (https://osv.dev: all.zip of PyPI, a folder of its JSON
files, or one of them) into requirements/advisories.json. Entries of that file that the export does not know stay.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

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


def dumped(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the advisories of an export in the OSV format: https://ossf.github.io/osv-schema/."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json"))
        return
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        yield json.loads(file.read_text())


def entries(advisory: dict[str, Any], packages: set[str]) -> Iterator[dict[str, str]]:
    """Yield what an advisory says about packages of PyPI, an entry for each range; nothing of one that was withdrawn."""
    if advisory.get("withdrawn"):
        return
    name = next((one for one in advisory.get("aliases", []) if one.startswith("CVE-")), advisory["id"])
    text = advisory.get("summary") or advisory.get("details") or "no summary"
    for affected in advisory.get("affected", []):
        package = canonicalize_name(affected["package"]["name"])
        if affected["package"]["ecosystem"] == "PyPI" and package in packages:
            for one in _affected(affected):
                yield {"package": package, "id": name, "affected": one, "summary": " ".join(text.split())[:120]}


def _affected(affected: dict[str, Any]) -> Iterator[str]:
    """Yield specifiers: the ranges, and listed versions that are in none of them."""
    ranges = [
        text
        for one in affected.get("ranges", [])
        if one["type"] in {"ECOSYSTEM", "SEMVER"}
        for text in _ranges(one["events"])
        if _is_specifier(text)
    ]
    yield from ranges
    for version in affected.get("versions", []):
        if _is_version(version) and not any(SpecifierSet(one, prereleases=True).contains(version) for one in ranges):
            yield f"=={version}"


def _ranges(events: list[dict[str, str]]) -> Iterator[str]:
    begin: str | None = None
    for event in (
        sorted(events, key=_order) if all(_is_version(text) for one in events for text in one.values()) else events
    ):
        if "introduced" in event:
            begin = event["introduced"]
        elif begin is not None and (end := event.get("fixed") or event.get("last_affected")):
            yield f">={begin},{'<' if 'fixed' in event else '<='}{end}"
            begin = None
    if begin is not None:
        yield f">={begin}"


def _order(event: dict[str, str]) -> tuple[Version, bool]:
    """A version that mends one range and begins another ends the first."""
    return next((Version(text), kind == "introduced") for kind, text in event.items())


def _is_specifier(text: str) -> bool:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return True


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def merged(known: dict[str, Any], advisories: Iterable[dict[str, Any]], packages: set[str]) -> dict[str, Any]:
    """Return the list with what an export says in the place of what was known of the same advisories.

    Raises:
        SystemExit: the export has no advisory, or one that is not in the OSV format.
    """
    day, found = "", []
    for advisory in advisories:
        try:
            day = max(day, advisory["modified"][:10])
            found += [one for one in entries(advisory, packages) if one not in found]
        except (KeyError, TypeError, AttributeError) as error:
            name = advisory.get("id") if isinstance(advisory, dict) else None
            raise SystemExit(f"{name or 'an entry'} of the export is not in the OSV format: {error!r}") from error
    if not day:
        raise SystemExit("The export has no advisories; the list stays as it is.")
    replaced = {(one["package"], one["id"]) for one in found}
    kept = [one for one in known["advisories"] if (one["package"], one["id"]) not in replaced]
    rows = sorted(kept + found, key=lambda one: (one["package"], one["id"], one["affected"]))
    return {**known, "as_of": max(day, known["as_of"]), "advisories": rows}


def refresh(path: Path) -> int:
    """Bring the list up to date from an export."""
    known = json.loads(ADVISORIES.read_text())
    packages = {canonicalize_name(name) for lock in LOCKS for name, _, _ in pins(lock)}
    try:
        made = merged(known, dumped(path), packages)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path} cannot be read: {error}. Give an export of OSV.") from error
    ADVISORIES.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(made['advisories'])} advisories about {len(packages)} packages, as of {made['as_of']}")
    return 0


def check_advisories() -> int:
    """Print what is affected; return 1 when something is."""
    known = json.loads(ADVISORIES.read_text())
    installed = [(name, version) for lock in LOCKS for name, version, _ in pins(lock)]
    found = findings(installed, known["advisories"])
    print("\n".join(found) or f"{len(set(installed))} pins, none affected by {len(known['advisories'])} advisories")
    print(
        f"advisories as of {known['as_of']}; the list is not all there are; refresh it from an export of OSV",
        file=sys.stderr,
    )
    return int(bool(found))


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    bill = commands.add_parser("sbom")
    bill.add_argument("--lock", choices=LOCKS, default="runtime")
    bill.add_argument("--out", type=Path)
    commands.add_parser("advisories")
    commands.add_parser("refresh").add_argument("dump", type=Path)
    chosen = parser.parse_args()
    if chosen.command == "advisories":
        return check_advisories()
    if chosen.command == "refresh":
        return refresh(chosen.dump)
    text = json.dumps(sbom(chosen.lock), indent=1) + "\n"
    if chosen.out:
        chosen.out.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
