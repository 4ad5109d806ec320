"""``erp conformance``: prove that a provider keeps its contract."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from erp.runtime.conformance import Outcome, Report
    from erp.runtime.manifest import ProviderManifest

_STYLES = {"passed": "green", "failed": "bold red", "gap": "yellow", "closed_gap": "bold red", "not_run": "dim"}


DROP_IN = typer.Option(
    help="Drop-in folder that holds the provider's folder.", show_default=False, exists=True, file_okay=False
)


CREDENTIALS = typer.Option(
    help="Auth: JSON or YAML file with a credential each of the tenants alpha and beta.", show_default=False
)


def conformance(  # noqa: PLR0917  (options of a command line)
    provider: Annotated[str, typer.Argument(help="The provider, for example cache/memory.")],
    config: Annotated[
        Path | None, typer.Option(help="JSON or YAML file with the configuration to use.", show_default=False)
    ] = None,
    credentials: Annotated[Path | None, CREDENTIALS] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only this case; can be repeated.", show_default=False)] = None,
    folder: Annotated[Path | None, DROP_IN] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.", show_default=False)] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report in Markdown here.", show_default=False)] = None,
) -> None:
    """Run the conformance suite against a provider; status 1 when a case failed.

    Example: erp conformance cache/memory --report report.md
    """
    from rich.console import Console

    from erp.runtime.conformance import writing

    for option, path in (("--junit", junit), ("--report", report)):
        require_writable(option, path)
    console = Console(stderr=True)
    done = asyncio.run(examine(provider, settings(config), case or [], folder, console, settings(credentials)))
    typer.echo(done.summary)
    _write(junit, writing.junit, done)
    _write(report, writing.markdown, done)
    if not done.is_good:
        raise typer.Exit(1)


def require_writable(option: str, path: Path | None) -> None:
    """End now when what a long run will show could not be written."""
    if path is None:
        return
    if path.is_dir():
        raise refusal(f"{option} {path} is a folder. How to fix: name a file.")
    if not os.access(path.parent, os.W_OK):
        raise refusal(f"{option} {path} cannot be written. How to fix: name a file in a folder of yours that is there.")


def _write(path: Path | None, text_of: Callable[[Report], str], done: Report) -> None:
    if path is None:
        return
    try:
        path.write_text(text_of(done), encoding="utf-8")
    except OSError as error:
        raise refusal(f"{path} cannot be written: {error.strerror}.") from None


def refusal(message: str) -> typer.Exit:
    """Say why a command cannot do its work; to be raised."""
    typer.echo(f"erp: {message}", err=True)
    return typer.Exit(2)


def settings(path: Path | None) -> dict[str, Any] | None:
    """Return the configuration in a JSON or YAML file; None for none."""
    if path is None:
        return None
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except OSError as error:
        raise refusal(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise refusal(f"{path} is neither JSON nor YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(found, dict):
        raise refusal(f"{path} must hold one object, the configuration.")
    return found


async def examine(
    ref: str,
    config: Mapping[str, Any] | None,
    only: list[str],
    folder: Path | None,
    console: Console,
    credentials: Mapping[str, str] | None = None,
) -> Report:
    """Run the cases with a progress bar and say what failed as soon as it is known."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from erp.cli.conformance_host import hosting
    from erp.errors import ProviderError
    from erp.runtime.conformance import Report, Run, cases_for
    from erp.runtime.conformance.peers import filled

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    only = [one.upper() for one in only]
    async with hosting(drop_in=folder) as host:
        try:
            manifest = host.catalog.provider(*_parts(ref))
        except ProviderError as error:
            raise refusal(error.message) from None
        applicable = [one.id for one in cases_for(manifest)]
        _refuse_unknown(only, applicable, ref)
        wanted = [one for one in applicable if not only or one in only]
        done = Report(manifest.ref, manifest.version, manifest.contract)
        chosen = manifest.conformance.get("config") or {} if config is None else config
        _refuse_invalid(filled(chosen, host.peers.site(), host.peers), manifest)
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(ref, total=len(wanted))
            run = Run(host, manifest, chosen, credentials=credentials)
            async for outcome in run.outcomes(only):
                done.outcomes.append(outcome)
                progress.update(task, advance=1, description=f"{ref} {outcome.case.id}")
                _tell(console, outcome)
            done.server = await run.server()
    return done


def _parts(ref: str) -> tuple[str, str]:
    domain, _, name = ref.partition("/")
    return domain, name


def _refuse_unknown(only: list[str], applicable: list[str], ref: str) -> None:
    unknown = sorted(set(only) - set(applicable))
    if unknown:
        raise refusal(f"{', '.join(unknown)} does not apply to {ref}. Its cases: {', '.join(applicable)}.")


def _refuse_invalid(config: Mapping[str, Any], manifest: ProviderManifest) -> None:
    """With settings that the provider does not take every case would fail, and none for its own reason."""
    from erp.runtime.action import field_errors, validator

    wrong = [f"  {error.pointer or '/'} {error.message}" for error in field_errors(validator(manifest.config), config)]
    if wrong:
        raise refusal("\n".join([f"{manifest.ref} does not take this configuration:", *wrong]))


def _tell(console: Console, outcome: Outcome) -> None:
    if outcome.status == "passed":
        return
    from rich.markup import escape

    label = outcome.status.replace("_", " ")
    rule = f"[{_STYLES[outcome.status]}]{label}[/] {outcome.case.id} {escape(outcome.case.rule)}"
    console.print(rule, highlight=False, soft_wrap=True)
    console.print(f"    {escape(outcome.reason)}", highlight=False, soft_wrap=True)
