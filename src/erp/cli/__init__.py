"""The command line. Commands import what they need when they run, so that ``--help`` is quick."""

from __future__ import annotations

from typing import Annotated

import typer

from erp import __version__
from erp.cli import audit, contracts, db, keys, models, policy, provider, providers, tenants
from erp.cli.conformance import conformance
from erp.cli.demo import demo
from erp.cli.migrate.command import migrate
from erp.cli.serve import serve
from erp.cli.state.commands import apply, diff, export

app = typer.Typer(
    name="erp",
    help="The ERP Provider Layer.\n\nExample: erp serve --port 8080 --data-dir ./data",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve)
app.command()(demo)
app.command()(conformance)
app.command()(apply)
app.command()(diff)
app.command()(export)
app.command()(migrate)
app.add_typer(tenants.app, name="tenants")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(contracts.app, name="contracts")
app.add_typer(db.app, name="db")
app.add_typer(models.app, name="models")
app.add_typer(policy.app, name="policy")
app.add_typer(provider.app, name="provider")
app.add_typer(providers.app, name="providers")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of ``erp`` itself."""


def main() -> None:
    """Run the command line."""
    app()
