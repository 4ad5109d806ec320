"""``erp providers``: what a running server knows, and how it learns of more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from erp.cli.session import KEY_HELP, URL_HELP, asked

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(help="Ask a running server about providers.\n\nExample: erp providers list", no_args_is_help=True)

PAGE = 200

Url = Annotated[str, typer.Option(envvar="ERP_URL", help=URL_HELP)]
Key = Annotated[str, typer.Option(envvar="ERP_KEY", help=KEY_HELP)]


@app.command("list")
def listed(url: Url = "http://127.0.0.1:8080", key: Key = "") -> None:
    """List providers with version, stability and level of the quality scale.

    Example: erp providers list --key "$ERP_KEY"
    """
    from rich.console import Console

    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = asked("GET", f"{url}/providers?limit={PAGE}{cursor}", key)
        items += page["items"]
        if "next_cursor" not in page:
            break
        cursor = f"&cursor={page['next_cursor']}"
    Console().print(_table(items))


def _table(items: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("provider", "version", "stability", "quality", "needs configuration", box=None)
    for item in items:
        needs = "yes" if item["needs_configuration"] else "no"
        table.add_row(item["ref"], item["version"], item["stability"], item.get("quality") or "", needs)
    return table


@app.command("reload")
def reloaded(url: Url = "http://127.0.0.1:8080", key: Key = "") -> None:
    """Take new, changed and removed providers into use; status 1 when one was refused.

    Calls go on meanwhile. A changed provider has to open and to be healthy before a call goes to it.

    Example: erp providers reload --key "$ERP_KEY"
    """
    changes = asked("POST", f"{url}/providers:reload", key)["items"]
    for change in changes:
        typer.echo(_line(change))
    if not changes:
        typer.echo("nothing has changed")
    if any(change["outcome"] == "refused" for change in changes):
        raise typer.Exit(1)


def _line(change: dict[str, Any]) -> str:
    if change["outcome"] == "refused":
        goes_on = f"; version {change['version']} stays in use" if "version" in change else ""
        return f"{change['ref']}: refused: {change['reason']}{goes_on}"
    version = f" {change['version']}" if "version" in change else ""
    count = change["connections"]
    moved = f", {count} open connection{'s' * (count != 1)}" if change["outcome"] != "added" else ""
    return f"{change['ref']}{version}: {change['outcome']}{moved}"
