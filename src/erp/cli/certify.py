"""``erp provider certify`` and ``verify-evidence``: run the suite and sign what it has shown."""

from __future__ import annotations

import asyncio
import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from erp.cli.conformance import CREDENTIALS, DROP_IN, examine, refusal, require_writable, settings

if TYPE_CHECKING:
    from erp.runtime.conformance import Report
    from erp.runtime.conformance.certifying import ProofLevel
    from erp.runtime.conformance.folder import ProviderFolder
    from erp.runtime.evidence import Evidence
    from erp.runtime.manifest import ProviderManifest

PROOF_LEVELS = ("P0", "P1", "P2", "P3", "P4", "P5")


@dataclass(frozen=True, slots=True)
class _Run:
    """A finished conformance run and what it was about."""

    report: Report
    manifest: ProviderManifest
    level: ProofLevel


def certify(  # noqa: PLR0917  (each is an option of the command)
    ref: Annotated[str, typer.Argument(help="The provider, for example cache/example.")],
    config: Annotated[
        Path | None, typer.Option(help="JSON or YAML file with the configuration to use.", show_default=False)
    ] = None,
    folder: Annotated[Path | None, DROP_IN] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(help="Where to write the evidence; default: the provider's folder.", show_default=False),
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="What answered: P0 to P5; default: P4 if embedded or live.", show_default=False)
    ] = None,
    credentials: Annotated[Path | None, CREDENTIALS] = None,
    server: Annotated[
        str | None,
        typer.Option(help="What answered, when it cannot say so itself: 'moto 5.1'.", show_default=False),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Enter what is proven into the ledger of this source tree.")
    ] = False,
) -> None:
    """Run the conformance suite and write signed evidence of what it has shown; nothing is written when a case fails.

    Example: erp provider certify cache/example --folder .
    """
    from erp.runtime.conformance.folder import FolderError
    from erp.runtime.evidence import EvidenceError

    if level is not None and level not in PROOF_LEVELS:
        raise refusal(f"--level is one of {', '.join(PROOF_LEVELS)}, not {level}.")
    require_writable("--evidence", evidence)
    run = _run(ref, settings(config), settings(credentials), folder, cast("ProofLevel | None", level))
    run.report.server = server or run.report.server
    try:
        if record:
            _record(run)
        if evidence is not None or not record:
            _write(run, evidence)
    except (EvidenceError, FolderError, OSError) as error:
        raise refusal(str(error)) from None


def _run(
    ref: str,
    config: dict[str, Any] | None,
    credentials: dict[str, Any] | None,
    folder: Path | None,
    level: ProofLevel | None,
) -> _Run:
    from rich.console import Console

    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.conformance.certifying import reached

    report = asyncio.run(examine(ref, config, [], folder, Console(stderr=True), credentials))
    typer.echo(report.summary)
    if not report.is_good:
        typer.echo("erp: nothing was certified: mend the cases above, or name them as gaps.", err=True)
        raise typer.Exit(1)
    manifest = ProviderCatalog.load(folder).provider(*ref.split("/", 1))
    return _Run(report, manifest, level or reached(manifest, config))


def _record(run: _Run) -> None:
    from erp.contracts.authored import PACKAGE
    from erp.contracts.proof import FILE
    from erp.runtime.conformance.certifying import proof_of, record
    from erp.runtime.conformance.folder import folder_of

    is_here = folder_of(run.manifest).resolve().is_relative_to(PACKAGE.resolve())
    if not is_here or not (PACKAGE.parents[1] / "docs").is_dir():
        raise refusal("--record is for the providers of a source tree of the layer; write evidence instead.")
    ledger = PACKAGE / "contracts" / FILE
    today = datetime.datetime.now(datetime.UTC).date()
    is_changed = record(ledger, run.manifest.ref, proof_of(run.report, run.manifest, run.level, today=today))
    typer.echo(f"{ledger}: {'changed; run `erp contracts generate`' if is_changed else 'says so already'}")


def _write(run: _Run, file: Path | None) -> None:
    from erp.runtime.conformance.folder import folder_of, read_folder
    from erp.runtime.evidence import FILE, key_file, public_key, signed, signing_key

    folder = read_folder(folder_of(run.manifest))
    key = signing_key(key_file())
    document = signed(_statement(run, folder), key)
    target = file or folder.path / FILE
    target.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(f"{target}: level {document['quality']['level']}, signed with {public_key(key)}")


def _statement(run: _Run, folder: ProviderFolder) -> Evidence:
    from dataclasses import replace

    from erp.runtime.conformance.certifying import proven, statement
    from erp.runtime.conformance.quality import assess

    assessment = assess(replace(folder, proof=proven(run.report, run.manifest, run.level)))
    now = datetime.datetime.now(datetime.UTC)
    return statement(run.report, run.manifest, assessment, folder=folder.path, level=run.level, now=now)


def verify_evidence(
    file: Annotated[Path, typer.Argument(help="The evidence.")],
    key: Annotated[
        str | None, typer.Option(help="The public key it must be signed with, in base64.", show_default=False)
    ] = None,
) -> None:
    """Say what evidence states; status 1 when it was changed, or signed with another key.

    Example: erp provider verify-evidence cache/example/evidence.json
    """
    from erp.runtime.evidence import EvidenceError, read_evidence, verify

    try:
        document = read_evidence(file)
        signer = verify(document, key=key)
    except EvidenceError as error:
        typer.echo(f"erp: {error}", err=True)
        raise typer.Exit(1) from None
    passed = sum(case["outcome"] == "passed" for case in document["cases"])
    typer.echo(f"{document['ref']} {document['version']}, certified {document['certified_at']}")
    typer.echo(f"  {passed} of {len(document['cases'])} cases passed; level {document['quality']['level']}")
    typer.echo(f"  signed with {signer}{'' if key else '; name the key you expect with --key'}")
