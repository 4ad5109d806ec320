"""``erp keys``: create API keys and rotate the master key, also while a server runs on the same data directory."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erp.cli.session import DATA_DIR_HELP, with_control_plane

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane

OVERLAP_SECONDS = 24 * 3600.0

app = typer.Typer(
    help="Create API keys, rotate the master key.\n\nExample: erp keys create --tenant acme --role developer",
    no_args_is_help=True,
)


class Role(StrEnum):
    """What a key may do."""

    ADMIN = "admin"
    OPERATOR = "operator"
    DEVELOPER = "developer"
    AGENT = "agent"


@app.callback()
def keys() -> None:
    """Hold the subcommands."""


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose key it is.")],
    role: Annotated[Role, typer.Option(help="What the key may do.")],
    scope: Annotated[list[str] | None, typer.Option(help="Narrow the key; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="What the key is for.", show_default=False)] = None,
    data_dir: Annotated[Path | None, typer.Option(help=DATA_DIR_HELP, show_default=False)] = None,
) -> None:
    """Create an API key and print it: the only time it is shown.

    Example: export ERP_KEY=$(erp keys create --tenant acme --role developer)
    """

    async def made(control: ControlPlane) -> str:
        await control.tenants.get(tenant)
        _, text = await control.api_keys.create(tenant, role=role.value, name=name, scopes=scope or [])
        return text

    typer.echo(with_control_plane(data_dir, made))


@app.command()
def rotate(
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of the key (not the key itself).")],
    tenant: Annotated[str, typer.Option(help="Whose key it is.")],
    overlap_seconds: Annotated[
        float, typer.Option(help="How long the old key stays valid; 0 ends it at once.", min=0)
    ] = OVERLAP_SECONDS,
    data_dir: Annotated[Path | None, typer.Option(help=DATA_DIR_HELP, show_default=False)] = None,
) -> None:
    """Put a new API key in the place of an old one and print it: the only time it is shown.

    Example: export ERP_KEY=$(erp keys rotate 4fGh2kLmN0p --tenant acme --overlap-seconds 3600)
    """

    async def made(control: ControlPlane) -> str:
        _, text = await control.api_keys.rotate(tenant, key, overlap_seconds=overlap_seconds)
        return text

    typer.echo(with_control_plane(data_dir, made))


@app.command("rotate-kek")
def rotate_kek(
    resume: Annotated[bool, typer.Option("--resume", help="Make no new key: only go on wrapping.")] = False,
    forget_old: Annotated[
        bool, typer.Option("--forget-old", help="Remove older keys from the key file when nothing needs them.")
    ] = False,
    data_dir: Annotated[Path | None, typer.Option(help=DATA_DIR_HELP, show_default=False)] = None,
) -> None:
    """Make a new key-encryption key and wrap the data keys of all secrets with it; no secret is opened.

    Can be interrupted: --resume goes on. With ERP_KEK set, put the new key first in it and use --resume.

    Example: erp keys rotate-kek --data-dir ./data
    """
    from erp.cli.key_rotation import rotate

    rotate(data_dir, make_new=not resume, forget_old=forget_old)
