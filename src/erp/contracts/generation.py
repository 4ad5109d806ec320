"""Generates everything that derives from the contracts, and finds what has drifted from them.

Usage: python -m erp.contracts.generation generate|check
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from erp.contracts import asyncapi_writer, dialect, manifests, models_writer, openapi_writer, proof, reference_writer
from erp.contracts.authored import PACKAGE, Authored, AuthoredError, Contract, read
from erp.contracts.models_writer import pascal
from erp.contracts.schemas import inlined, needs_full_check

STATE_SCHEMA = "state.schema.json"


def problems(authored: Authored, package: Path = PACKAGE) -> list[str]:
    """Return everything wrong with what was authored, each with how to fix it."""
    codes = frozenset(authored.errors)
    found = [text for contract in authored.contracts for text in dialect.findings(contract, codes)]
    return found + manifests.findings(authored, package / "providers")


def outputs(authored: Authored, package: Path = PACKAGE) -> dict[Path, str]:
    """Return path -> text of every generated file."""
    here, docs = package / "contracts", package.parents[1] / "docs" / "reference"
    ledger = proof.read(here / proof.FILE)
    found = {here / "models" / "errors.py": models_writer.errors(authored.errors)}
    for contract in authored.contracts:
        found[here / "models" / f"{contract.name}.py"] = models_writer.models(contract)
    found = dict(zip(found, _formatted(list(found.values())), strict=True))
    if ledger:
        found[here / proof.FILE] = proof.text(ledger)
    found[here / "catalog.json"] = _compact(catalog(authored, ledger))
    found[here / "openapi.json"] = _compact(openapi_writer.openapi(authored))
    found[here / "asyncapi.json"] = _readable(asyncapi_writer.asyncapi(authored))
    found[here / STATE_SCHEMA] = _readable(state_schema(authored))
    if docs.parent.is_dir():
        found |= {docs / name: text for name, text in reference_writer.pages(authored, ledger).items()}
    return found


def catalog(authored: Authored, ledger: dict[str, proof.Proof]) -> dict[str, Any]:
    """Return what the running layer reads: self-contained schemas, models' names, manifests, proofs."""
    operations = authored.gateway["operations"]
    definitions = authored.gateway["$defs"]
    return {
        "domains": {name: _catalogued(item) for name, item in authored.domains.items()},
        "services": {name: _catalogued(item) for name, item in authored.services.items()},
        "gateway": {
            name: {"request": inlined(operation["request"], definitions)}
            for name, operation in operations.items()
            if "request" in operation
        },
        "providers": authored.manifests,
        "proof": ledger,
    }


def state_schema(authored: Authored) -> dict[str, Any]:
    """Return the schema of a state file on its own, as editors and ``erp apply`` read it."""
    dialect_of_it = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    found: dict[str, Any] = inlined(authored.schemas["state"], authored.gateway["$defs"])
    return dialect_of_it | found


def _catalogued(contract: Contract) -> dict[str, Any]:
    document = {key: copy.deepcopy(value) for key, value in contract.document.items() if key != "$defs"}
    for name, action in document["actions"].items():
        for part in ("params", "result"):
            action[part] = inlined(action[part], contract.definitions)
        action["schema_check"] = needs_full_check(action["params"])
        module = f"erp.contracts.models.{contract.name}"
        action["models"] = {"module": module, "request": f"{pascal(name)}Request", "result": f"{pascal(name)}Result"}
    for event in (document.get("events") or {}).values():
        event["payload"] = inlined(event["payload"], contract.definitions)
    return document


def _formatted(sources: list[str]) -> list[str]:
    """Format generated Python as everything else is formatted, so that it reads like the rest."""
    command = [sys.executable, "-m", "ruff", "format", "--line-length", "120", "--isolated", "-"]
    formatted = []
    for source in sources:
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)  # noqa: S603  (fixed words)
        if done.returncode:
            message = f"ruff could not format a generated module: {done.stderr}. How to fix: scripts/bootstrap dev."
            raise AuthoredError(message)
        formatted.append(done.stdout)
    return formatted


def _compact(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=str) + "\n"


def _readable(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1, default=str) + "\n"


def generate(package: Path = PACKAGE) -> list[Path]:
    """Write what differs from what is there, remove models nobody authored; return the changed files."""
    authored = _sound(package)
    wanted = outputs(authored, package)
    changed = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
    stale = _stale(wanted, package)
    for path in stale:
        path.unlink()
    return changed + stale


def drifted(package: Path = PACKAGE) -> list[Path]:
    """Return the generated files that are not what the contracts say."""
    authored = _sound(package)
    wanted = outputs(authored, package)
    different = [
        path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    return different + _stale(wanted, package)


def _stale(wanted: dict[Path, str], package: Path) -> list[Path]:
    here, docs = package / "contracts" / "models", package.parents[1] / "docs" / "reference"
    present = [path for path in here.glob("*.py") if path.name != "__init__.py"]
    present += [page for folder in ("domains", "services", "providers") for page in (docs / folder).glob("*.md")]
    return [path for path in present if path not in wanted]


def _sound(package: Path) -> Authored:
    authored = read(package)
    found = problems(authored, package)
    if found:
        raise AuthoredError("\n".join(found))
    return authored


def main(arguments: list[str]) -> int:
    """Run from the command line; return the exit status."""
    try:
        if arguments == ["generate"]:
            for path in generate():
                print(path)  # noqa: T201  (a command's output)
            return 0
        found = drifted()
    except AuthoredError as error:
        print(error, file=sys.stderr)  # noqa: T201  (a command's output)
        return 1
    for path in found:
        print(f"{path} is not what the contracts say.", file=sys.stderr)  # noqa: T201  (a command's output)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
