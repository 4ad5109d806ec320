"""``erp provider``: write, check and certify providers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erp.cli.certify import certify, verify_evidence
from erp.cli.conformance import refusal

if TYPE_CHECKING:
    from rich.table import Table

    from erp.contracts.proof import Proof
    from erp.runtime.conformance.folder import ProviderFolder
    from erp.runtime.conformance.quality import Assessment

app = typer.Typer(
    help="Write, check and certify providers.\n\nExample: erp provider new cache/example", no_args_is_help=True
)

app.command()(certify)
app.command("verify-evidence")(verify_evidence)

_HERE = Path()


@app.command()
def new(
    ref: Annotated[str, typer.Argument(help="Domain and name, for example cache/example.")],
    folder: Annotated[Path, typer.Option(help="Where the folder of the domain is or comes to be.")] = _HERE,
) -> None:
    """Write the folder of a new provider; nothing is ever overwritten.

    Example: erp provider new cache/example
    """
    from erp.errors import ProviderError
    from erp.runtime.conformance.scaffold import ScaffoldError, write_provider

    try:
        made = write_provider(ref, folder)
    except (ScaffoldError, ProviderError) as error:
        raise refusal(str(error)) from None
    option = "" if folder == _HERE else f" --folder {folder}"
    where = "." if folder == _HERE else str(folder)
    for path in sorted(made.iterdir()):
        typer.echo(path)
    typer.echo(f"""
Next:
  erp provider check {made}
  erp conformance {ref} --folder {where}
  erp provider certify {ref}{option or " --folder ."}
  write what the methods do in {made / "provider.py"}, and say in README.md for whom it is
  serve it: copy the folder to DATA_DIR/providers/{ref}""")


@app.command()
def check(
    target: Annotated[
        str | None, typer.Argument(help="A provider's folder, or its name; all known ones if absent.")
    ] = None,
) -> None:
    """Check manifest, names, methods, imports, documentation and sizes; status 1 when something has to be mended.

    Example: erp provider check cache/example
    """
    from erp.runtime.conformance.quality import assess

    assessments = [assess(one) for one in _folders(target)]
    for one in assessments:
        _tell(one)
    if any(one.errors for one in assessments):
        raise typer.Exit(1)


@app.command()
def proof(
    ref: Annotated[str | None, typer.Argument(help="The provider, for example cache/redis; all if absent.")] = None,
) -> None:
    """Show how the capabilities of providers are proven, with which server, and when last.

    Example: erp provider proof db/sqlite
    """
    from rich.console import Console

    from erp.contracts.loading import catalog

    ledger, manifests = catalog()["proof"], catalog()["providers"]
    if ref is not None and ref not in manifests:
        raise refusal(f"there is no provider {ref} in this distribution; there are: {', '.join(sorted(manifests))}.")
    wanted = sorted(manifests) if ref is None else [ref]
    Console(soft_wrap=True).print(_table({one: manifests[one]["capabilities"] for one in wanted}, ledger))


def _table(capabilities: dict[str, list[str]], ledger: dict[str, Proof]) -> Table:
    from rich.table import Table

    table = Table("provider", "capability", "proven", "with", "on", box=None)
    for ref, names in capabilities.items():
        known = ledger.get(ref)
        for name in names:
            level = known["levels"].get(name) if known else None
            if known is None or level is None:
                table.add_row(ref, name, "declared")
            else:
                table.add_row(ref, name, level, known.get("server", "itself"), known.get("date", ""))
    return table


def _folders(target: str | None) -> list[ProviderFolder]:
    from erp.errors import ProviderError
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.conformance.folder import MANIFEST, FolderError, folder_of, read_folder

    try:
        if target is not None and (Path(target).is_dir() or target.count("/") != 1):
            return [read_folder(Path(target))]
        if target is None and Path(MANIFEST).is_file():
            return [read_folder(_HERE)]
        catalog = ProviderCatalog.load()
        wanted = sorted(catalog.providers) if target is None else [target]
        return [read_folder(folder_of(catalog.provider(*ref.split("/", 1)))) for ref in wanted]
    except (FolderError, ProviderError) as error:
        raise refusal(str(error)) from None


def _tell(assessment: Assessment) -> None:
    for finding in assessment.errors:
        typer.echo(f"{assessment.ref}: {finding}", err=True)
    typer.echo(f"{assessment.ref}: {'not sound' if assessment.errors else 'sound'}, level {assessment.level}")
    if assessment.errors or assessment.next_level is None:
        return
    for finding in assessment.upto(assessment.next_level):
        typer.echo(f"  for {assessment.next_level}: {finding}")
