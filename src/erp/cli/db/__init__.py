"""``erp db``: databases that tenants share."""

from __future__ import annotations

import typer

from erp.cli.db.isolate import isolate

app = typer.Typer(help="Prepare databases that tenants share.", no_args_is_help=True)
app.command()(isolate)


@app.callback()
def databases() -> None:
    """Prepare databases that tenants share."""
