"""Commands that work on the control plane: open it, do one thing, close it, explain failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from erp.control_plane import ControlPlane

DATA_DIR_HELP = "The server's data directory (default: ERP_DATA_DIR, or a folder of the user)."

Result = TypeVar("Result")


def with_control_plane(data_dir: Path | None, work: Callable[[ControlPlane], Awaitable[Result]]) -> Result:
    """Run ``work`` on the control plane and return its result; a ProviderError ends with status 1."""
    from erp.errors import ProviderError
    from erp.main import Settings, open_control_plane

    settings = Settings(data_dir=data_dir.absolute()) if data_dir else Settings()

    async def session() -> Result:
        control, _ = await open_control_plane(settings)
        try:
            return await work(control)
        finally:
            await control.close()

    try:
        return asyncio.run(session())
    except ProviderError as error:
        typer.echo(f"erp: {error.message}\n{error.code.spec.remedy}", err=True)
        for item in error.errors:
            typer.echo(f"  {item.pointer}: {item.message}", err=True)
        raise typer.Exit(1) from None
