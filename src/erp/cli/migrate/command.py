"""``erp migrate``: check, copy until nothing differs, compare under load, switch, look for what came too late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erp.cli.session import KEY_HELP, URL_HELP

if TYPE_CHECKING:
    from erp.cli.migrate.migration import Options

NOT_EQUAL, TROUBLE = 1, 2
PASSES = 5


Source = Annotated[str, typer.Argument(metavar="FROM", help="The provider that is left: db/sqlite.")]
Target = Annotated[str, typer.Argument(metavar="TO", help="The provider that is moved to: db/postgres.")]
Route = Annotated[str | None, typer.Option(help="Switch this route to the target in the end.", show_default=False)]
Shadow = Annotated[
    float, typer.Option(min=0, help="Seconds to mirror the route's calls to the target and compare the answers.")
]
MayDiffer = Annotated[int, typer.Option(min=0, help="How many mirrored answers may differ.")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="A topic of a bus; repeatable.", show_default=False)]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", help="A group whose place is carried over; repeatable.", show_default=False),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Also when the target holds something, which is then removed.")
]
Passes = Annotated[int, typer.Option(min=1, help="How often to compare and mend, at most.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
JournalFile = Annotated[
    Path | None, typer.Option(help="Where to note what is done; default: a file in this folder.", show_default=False)
]
Url = Annotated[str, typer.Option(envvar="ERP_URL", help=URL_HELP)]
Key = Annotated[str, typer.Option(envvar="ERP_KEY", help=KEY_HELP)]


def migrate(  # noqa: PLR0913, PLR0917  (each is an option of the command)
    source: Source,
    target: Target,
    connection: Annotated[str, typer.Option(help="The connection that is left.")] = "default",
    to_connection: Annotated[str, typer.Option(help="The connection that is moved to.")] = "default",
    route: Route = None,
    shadow: Shadow = 0.0,
    may_differ: MayDiffer = 0,
    topics: Topics = None,
    groups: Groups = None,
    overwrite: Overwrite = False,
    passes: Passes = PASSES,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    journal: JournalFile = None,
    url: Url = "http://127.0.0.1:8080",
    key: Key = "",
) -> None:
    """Move what a connection of the key's tenant holds to another one, and switch a route to it.

    The source is never changed. A run that was killed goes on where it was when it is started again. Status 1: source
    and target are not equal; 2: it cannot be done.

    Example: erp migrate db/sqlite db/postgres --route main-db --shadow 60
    """
    from erp.cli.migrate.migration import Options, finished

    file = journal or Path(f"migrate-{source.replace('/', '-')}-{target.replace('/', '-')}.journal")
    refs, connections = (source, target), (connection, to_connection)
    named = (tuple(topics or ()), tuple(groups or ()))
    options = Options(refs, connections, route, shadow, may_differ, *named, overwrite, passes, dry_run, file)
    with _explained(options):
        report = finished(options, url, key)
    typer.echo(json.dumps(report, indent=2) if as_json else _text(report))
    if report["state"] in {"different", "late_writes"}:
        raise typer.Exit(NOT_EQUAL)


@contextmanager
def _explained(options: Options) -> Iterator[None]:
    from erp.cli.migrate.journal import JournalError
    from erp.cli.migrate.passes import MigrationError
    from erp.cli.migrate.side import CallError
    from erp.cli.state.server import ServerError

    try:
        yield
    except (CallError, JournalError, MigrationError, ServerError) as error:
        typer.echo(f"erp: {error}", err=True)
        if options.journal.exists():
            typer.echo(f"What was done is noted in {options.journal}: the same command goes on from there.", err=True)
        raise typer.Exit(TROUBLE) from None


def _text(report: dict[str, Any]) -> str:
    lines = [f"{report['from']} -> {report['to']}: {_STATES[report['state']]}"]
    for unit, found in report["units"].items():
        facts = ", ".join(f"{name} {value}" for name, value in found.items() if name != "digest")
        digest = f", digest {found['digest'][:16]}" if "digest" in found else ""
        lines.append(f"  {unit}: {facts}{digest}")
    lines += [f"  not carried over: {one}" for one in report["not_carried_over"]]
    if report.get("shadow"):
        shadow = report["shadow"]
        lines.append(
            f"  shadow: {shadow['compared']} answers compared, {shadow['different']} different, {shadow['dropped']} dropped"
        )
    return "\n".join(lines)


_STATES = {
    "dry_run": "nothing was done; this is what there is",
    "equal": "source and target are equal",
    "warm": "the target was written to beside the source",
    "switched": "source and target were equal, and the route leads to the target",
    "different": "source and target are NOT equal; the route was left as it was",
    "late_writes": "the route leads to the target, but the source was written to after the last comparison: compare by hand what the units below name",
}
