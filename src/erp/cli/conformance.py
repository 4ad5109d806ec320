"""``erp conformance``: prove that a provider keeps its contract."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from erp.runtime.conformance import Outcome, Report

_STYLES = {"passed": "green", "failed": "bold red", "gap": "yellow", "closed_gap": "bold red", "not_run": "dim"}


def conformance(
    provider: Annotated[str, typer.Argument(help="The provider, for example cache/memory.")],
    config: Annotated[
        Path | None, typer.Option(help="JSON or YAML file with the configuration to use.", show_default=False)
    ] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only this case; can be repeated.", show_default=False)] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Drop-in folder that holds the provider's folder.", show_default=False)
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.", show_default=False)] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report in Markdown here.", show_default=False)] = None,
) -> None:
    """Run the conformance suite against a provider; status 1 when a case failed.

    Example: erp conformance cache/memory --report report.md
    """
    from rich.console import Console

    from erp.runtime.conformance import writing

    console = Console(stderr=True)
    done = asyncio.run(examine(provider, settings(config), case or [], folder, console))
    if junit is not None:
        junit.write_text(writing.junit(done), encoding="utf-8")
    if report is not None:
        report.write_text(writing.markdown(done), encoding="utf-8")
    typer.echo(done.summary)
    if not done.is_good:
        raise typer.Exit(1)


def settings(path: Path | None) -> dict[str, Any] | None:
    """Return the configuration in a JSON or YAML file; None for none."""
    if path is None:
        return None
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, yaml.YAMLError) as error:
        typer.echo(f"erp: {path} cannot be read: {error}", err=True)
        raise typer.Exit(2) from None
    if not isinstance(found, dict):
        typer.echo(f"erp: {path} must hold one object, the configuration.", err=True)
        raise typer.Exit(2)
    return found


async def examine(
    ref: str, config: Mapping[str, Any] | None, only: list[str], folder: Path | None, console: Console
) -> Report:
    """Run the cases with a progress bar and say what failed as soon as it is known."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from erp.cli.conformance_host import hosting
    from erp.errors import ProviderError
    from erp.runtime.conformance import Report, Run, cases_for

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    async with hosting(drop_in=folder) as host:
        try:
            manifest = host.catalog.provider(*_parts(ref))
        except ProviderError as error:
            typer.echo(f"erp: {error.message}", err=True)
            raise typer.Exit(2) from None
        wanted = [one.id for one in cases_for(manifest) if not only or one.id in only]
        _refuse_unknown(only, wanted, ref)
        done = Report(manifest.ref, manifest.version, manifest.contract)
        chosen = manifest.conformance.get("config") or {} if config is None else config
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(ref, total=len(wanted))
            run = Run(host, manifest, chosen)
            async for outcome in run.outcomes(only):
                done.outcomes.append(outcome)
                progress.update(task, advance=1, description=f"{ref} {outcome.case.id}")
                _tell(console, outcome)
            done.server = await run.server()
    return done


def _parts(ref: str) -> tuple[str, str]:
    domain, _, name = ref.partition("/")
    return domain, name


def _refuse_unknown(only: list[str], wanted: list[str], ref: str) -> None:
    unknown = sorted(set(only) - set(wanted))
    if unknown:
        typer.echo(f"erp: {', '.join(unknown)} does not apply to {ref}. Its cases: {', '.join(wanted)}.", err=True)
        raise typer.Exit(2)


def _tell(console: Console, outcome: Outcome) -> None:
    if outcome.status == "passed":
        return
    from rich.markup import escape

    label = outcome.status.replace("_", " ")
    console.print(f"[{_STYLES[outcome.status]}]{label}[/] {outcome.case.id} {escape(outcome.case.rule)}")
    console.print(f"    {escape(outcome.reason)}", highlight=False)
