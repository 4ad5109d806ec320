"""``erp secrets``: list the secrets of a running server, and give one a new value."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from erp.cli import secret_schedules
from erp.cli.session import KEY_HELP, URL_HELP, asked

app = typer.Typer(
    help="List secrets, never their values, and rotate them.\n\nExample: erp secrets list", no_args_is_help=True
)

app.add_typer(secret_schedules.app, name="schedule")

PAGE = 200
GENERATED_BYTES = 32

Url = Annotated[str, typer.Option(envvar="ERP_URL", help=URL_HELP)]
Key = Annotated[str, typer.Option(envvar="ERP_KEY", help=KEY_HELP)]
Provider = Annotated[str, typer.Option(help="Which secrets provider: local, vault, aws.")]


@app.callback()
def group() -> None:
    """Hold the subcommands."""


def _call(url: str, key: str, provider: str, action: str, params: dict[str, Any]) -> Any:
    target = f"{url}/providers/secrets/{quote(provider, safe='')}/{action}"
    return asked("POST", target, key, {"params": params})["data"]


@app.command("list")
def listed(
    prefix: Annotated[str, typer.Option(help="Only paths that begin with it.")] = "",
    provider: Provider = "local",
    url: Url = "http://127.0.0.1:8080",
    key: Key = "",
) -> None:
    """List the paths of secrets, one a line.

    Example: erp secrets list --prefix crm/
    """
    params: dict[str, Any] = {"prefix": prefix, "limit": PAGE}
    while True:
        page = _call(url, key, provider, "list", params)
        for path in page["paths"]:
            typer.echo(path)
        if "next_cursor" not in page:
            return
        params["cursor"] = page["next_cursor"]


@app.command()
def rotate(
    path: Annotated[str, typer.Argument(help="Which secret.")],
    generate: Annotated[bool, typer.Option("--generate", help="Make a random value; it is not shown.")] = False,
    overlap_seconds: Annotated[
        int | None,
        typer.Option(
            help="How long the versions before stay readable (a day, unless the provider's settings say otherwise).",
            min=0,
            show_default=False,
        ),
    ] = None,
    provider: Provider = "local",
    url: Url = "http://127.0.0.1:8080",
    key: Key = "",
) -> None:
    """Give a secret a new value from standard input, or a random one; print the reference of the new version.

    The version before stays readable for its overlap. Connections that name the secret without a version take the new one
    into use, each after it was proven by its health.

    Example: erp secrets rotate crm/api-key < new-value.txt
    """
    value = secrets.token_urlsafe(GENERATED_BYTES) if generate else sys.stdin.read().rstrip("\r\n")
    if not value:
        typer.echo("erp: there is no value on standard input. Pipe it in, or use --generate.", err=True)
        raise typer.Exit(1)
    params: dict[str, Any] = {"path": path, "value": value}
    if overlap_seconds is not None:
        params["overlap_seconds"] = overlap_seconds
    typer.echo(_call(url, key, provider, "rotate", params)["reference"])
