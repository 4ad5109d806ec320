"""``erp secrets schedule``: secrets that a running server rotates by itself."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from erp.cli.session import KEY_HELP, URL_HELP, asked

app = typer.Typer(
    help="Have secrets rotated by themselves.\n\nExample: erp secrets schedule list", no_args_is_help=True
)

PAGE = 200

Url = Annotated[str, typer.Option(envvar="ERP_URL", help=URL_HELP)]
Key = Annotated[str, typer.Option(envvar="ERP_KEY", help=KEY_HELP)]
Name = Annotated[str, typer.Argument(help="Name of the schedule: lower-case letters, digits and dashes.")]


@app.callback()
def group() -> None:
    """Hold the subcommands."""


def _at(url: str, name: str = "", verb: str = "") -> str:
    return f"{url}/secret-schedules" + (f"/{quote(name, safe='')}{verb}" if name else "")


@app.command("set")
def set_(  # noqa: PLR0917  (options of a command are given by name)
    name: Name,
    path: Annotated[str, typer.Argument(help="Which secret; it must be there.")],
    every_days: Annotated[int, typer.Option(help="After how many days, each time.", min=1)],
    value: Annotated[
        str, typer.Option(help='Where the new value comes from, as JSON: {"from": "password", "length": 24}.')
    ] = '{"from": "random"}',
    overlap_seconds: Annotated[
        int | None, typer.Option(help="How long the version before stays readable.", min=0, show_default=False)
    ] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Plan it, but do not rotate.")] = False,
    provider: Annotated[str, typer.Option(help="Which secrets provider: local, vault, aws.")] = "local",
    url: Url = "http://127.0.0.1:8080",
    key: Key = "",
) -> None:
    """Have a secret rotated every so many days, or change how; print when it is due.

    Example: erp secrets schedule set crm-key crm/api-key --every-days 30
    """
    body: dict[str, Any] = {"path": path, "every_days": every_days, "value": _source(value)}
    body |= {"provider": f"secrets/{provider}", "enabled": not disabled}
    if overlap_seconds is not None:
        body["overlap_seconds"] = overlap_seconds
    typer.echo(asked("PUT", _at(url, name), key, body)["due_at"])


def _source(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        typer.echo('erp: --value is no JSON. Give for example {"from": "random"}.', err=True)
        raise typer.Exit(1) from None


@app.command("list")
def listed(url: Url = "http://127.0.0.1:8080", key: Key = "") -> None:
    """List the schedules, one a line: name, secret, days, when due, and why it failed.

    Example: erp secrets schedule list
    """
    after = ""
    while True:
        page = asked("GET", f"{_at(url)}?limit={PAGE}{after}", key)
        for one in page["items"]:
            state = "" if one["enabled"] else "  disabled"
            if "failure" in one:
                state += f"  failed {one['failures']} times: {one['failure']['reason']}"
            typer.echo(f"{one['name']}  {one['path']}  {one['every_days']}  {one['due_at']}{state}")
        if "next_cursor" not in page:
            return
        after = f"&cursor={quote(page['next_cursor'], safe='')}"


@app.command()
def run(name: Name, url: Url = "http://127.0.0.1:8080", key: Key = "") -> None:
    """Rotate now instead of at the planned time.

    Example: erp secrets schedule run crm-key
    """
    asked("POST", _at(url, name, ":run"), key)


@app.command()
def remove(name: Name, url: Url = "http://127.0.0.1:8080", key: Key = "") -> None:
    """Rotate a secret by itself no more.

    Example: erp secrets schedule remove crm-key
    """
    asked("DELETE", _at(url, name), key)
