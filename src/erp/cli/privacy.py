"""``erp privacy``: find personal data where it should not be, and delete what was kept long enough."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erp.cli.session import KEY_HELP, URL_HELP, asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

app = typer.Typer(
    help="Find personal data, delete what was kept long enough.\n\nExample: erp privacy scan export.ndjson",
    no_args_is_help=True,
)


@app.command()
def scan(
    file: Annotated[str, typer.Argument(help="Text, or JSON by line (NDJSON); - is standard input.")],
) -> None:
    """Count personal data by kind and field, without showing any; status 1 when there is some.

    Example: erp privacy scan export.ndjson
    """
    counts = _counts(_lines(file))
    for (field, kind), count in sorted(counts.items()):
        typer.echo(f"{count:>8}  {kind:<14} {field or '(text)'}")
    typer.echo(f"{counts.total()} findings")
    if counts:
        raise typer.Exit(1)


@app.command()
def retention(
    key: Annotated[str, typer.Option(envvar="ERP_KEY", help=KEY_HELP)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be deleted; delete nothing.")] = False,
    url: Annotated[str, typer.Option(envvar="ERP_URL", help=URL_HELP)] = "http://127.0.0.1:8080",
) -> None:
    """Have a running server delete what your tenant has kept long enough; status 1 when a rule cannot be applied.

    Example: erp privacy retention --dry-run
    """
    done = asked("POST", f"{url}/privacy/retention:apply", key, {"dry_run": dry_run})
    for name, count in done["classes"].items():
        typer.echo(f"{count:>10}  {name}")
    for rule in done["rows"]:
        left = ", and more" if rule.get("more") else ""
        typer.echo(f"{rule['rows']:>10}  {rule['place']}{left}" + (f": {rule['failure']}" if "failure" in rule else ""))
    if "hold" in done:
        typer.echo(f"nothing is deleted: legal hold: {done['hold']}")
    else:
        typer.echo("would be deleted" if dry_run else "deleted")
    if any("failure" in rule for rule in done["rows"]):
        raise typer.Exit(1)


def _counts(lines: Iterable[str]) -> Counter[tuple[str, str]]:
    import msgspec

    from erp.security.privacy.scanning import found_in

    counts: Counter[tuple[str, str]] = Counter()
    for line in lines:
        document: object = line
        if line.lstrip()[:1] in {"{", "["}:
            try:
                document = msgspec.json.decode(line)
            except msgspec.DecodeError:
                document = line
        counts.update((finding.field, finding.kind) for finding in found_in(document))
    return counts


def _lines(file: str) -> Iterator[str]:
    if file == "-":
        yield from sys.stdin
        return
    try:
        with Path(file).open(encoding="utf-8", errors="replace") as stream:
            yield from stream
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
        raise typer.BadParameter(message) from error
