"""What a conformance run proves, as evidence and as entries of the ledger of proof."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from erp import __version__
from erp.contracts import proof as ledger_of_proof
from erp.contracts.loading import catalog
from erp.contracts.proof import Proof
from erp.runtime.evidence import FORMAT, Evidence, digest

if TYPE_CHECKING:
    from erp.runtime.conformance.outcome import Outcome, Report
    from erp.runtime.conformance.quality import Assessment
    from erp.runtime.manifest import ProviderManifest

ProofLevel = Literal["P0", "P1", "P2", "P3", "P4", "P5"]
PEER = "{peer}"
"""What manifests call the peer that the kit plays."""


def reached(manifest: ProviderManifest, config: Mapping[str, Any] | None) -> ProofLevel:
    """Return what a run proves at most when nobody says what answered it.

    An embedded provider has nothing behind it: the run was the real thing, P4. With a server that the manifest names,
    a configuration given for the run says that this server answered, P4. Anything else is a test of ours alone, P0;
    so is what the kit's own peer has answered.
    """
    server = manifest.conformance.get("server")
    if config is None and PEER in str(manifest.conformance.get("config", "")):
        return "P0"
    if (server is None and manifest.embedded) or (server is not None and config is not None):
        return "P4"
    return "P0"


def proven(report: Report, manifest: ProviderManifest, level: ProofLevel) -> dict[str, str]:
    """Return capability -> level for every declared capability whose cases all passed."""
    return {name: level for name in sorted(manifest.capabilities) if report.proven(name)}


def statement(
    report: Report,
    manifest: ProviderManifest,
    assessment: Assessment,
    *,
    folder: Path,
    level: ProofLevel,
    now: datetime.datetime,
) -> Evidence:
    """Return the evidence of a run, not yet signed. No setting and no secret is in it."""
    return {
        "format": FORMAT,
        "ref": manifest.ref,
        "version": manifest.version,
        "digest": digest(folder),
        "contract": manifest.contract,
        "layer": {"version": __version__, "contract": catalog()["domains"][manifest.domain]["version"]},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "certified_at": now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "peer": {"embedded": manifest.embedded, "server": report.server, "level": level},
        "cases": [_case(one) for one in report.outcomes],
        "proof": proven(report, manifest, level),
        "quality": {"level": assessment.level, "exempt": assessment.exempt},
    }


def _case(one: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {"id": one.case.id, "outcome": one.status, "milliseconds": round(one.seconds * 1000)}
    return {**found, "reason": one.reason} if one.reason else found


def proof_of(report: Report, manifest: ProviderManifest, level: ProofLevel, *, today: datetime.date) -> Proof:
    """Return what the ledger says of a run that was made today."""
    found = Proof(levels=proven(report, manifest, level), date=today.isoformat())
    if report.server is not None:
        found["server"] = report.server
    return found


def record(ledger: Path, ref: str, found: Proof) -> bool:
    """Replace what the ledger says of ``ref``; return whether that changed anything. Written whole or not at all."""
    wanted = {**ledger_of_proof.read(ledger), ref: found}
    if not found["levels"]:
        del wanted[ref]
    text = ledger_of_proof.text(wanted)
    if ledger.is_file() and ledger.read_text("utf-8") == text:
        return False
    written = ledger.with_suffix(".new")
    written.write_text(text, "utf-8")
    written.replace(ledger)
    return True
