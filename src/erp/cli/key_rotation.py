"""Wraps the data keys of all secrets with the present key-encryption key, with a progress bar."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from erp.cli.session import failures_explained

if TYPE_CHECKING:
    from erp.main import Settings
    from erp.security.vault import EnvelopeVault


def rotate(data_dir: Path | None, *, make_new: bool, forget_old: bool) -> None:
    """Make a new key (or go on with the present one) and wrap everything with it."""
    with failures_explained():
        from erp.main import Settings

        settings = Settings(data_dir=data_dir.absolute()) if data_dir else Settings()
        asyncio.run(_rotate(settings, make_new=make_new, forget_old=forget_old))


async def _rotate(settings: Settings, *, make_new: bool, forget_old: bool) -> None:
    from erp.main import open_control_plane
    from erp.security.vault import EnvelopeVault

    control, keyring = await open_control_plane(settings)
    try:
        if make_new:
            typer.echo(f"new key {keyring.add_kek()}", err=True)
        vault = EnvelopeVault(control.secrets, keyring)
        typer.echo(f"{await _wrap_all(vault)} secrets are wrapped with key {keyring.current_kek_id}")
        if forget_old and not await vault.count_to_rewrap():
            typer.echo(f"{keyring.forget_old_keks()} older keys are forgotten")
    finally:
        await control.close()
        await keyring.close()


async def _wrap_all(vault: EnvelopeVault) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("wrapping secrets"), BarColumn(), MofNCompleteColumn())
    done = 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("secrets", total=await vault.count_to_rewrap())
        while wrapped := await vault.rewrap():
            done += wrapped
            progress.update(task, advance=wrapped)
    return done
