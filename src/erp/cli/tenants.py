"""``erp tenants``: create tenants, also while a server runs on the same data directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from erp.cli.session import DATA_DIR_HELP, with_control_plane

app = typer.Typer(help="Create tenants.\n\nExample: erp tenants create acme", no_args_is_help=True)


@app.callback()
def tenants() -> None:
    """Hold the subcommands."""


@app.command()
def create(
    tenant: Annotated[str, typer.Argument(help="Lower-case letters, digits and dashes; starts with a letter.")],
    name: Annotated[str | None, typer.Option(help="Readable name.", show_default=False)] = None,
    region: Annotated[str | None, typer.Option(help="Where its data must stay.", show_default=False)] = None,
    data_dir: Annotated[Path | None, typer.Option(help=DATA_DIR_HELP, show_default=False)] = None,
) -> None:
    """Create a tenant.

    Example: erp tenants create acme --region eu --data-dir ./data
    """
    with_control_plane(data_dir, lambda control: control.tenants.create(tenant, name=name, region=region))
    typer.echo(tenant)
