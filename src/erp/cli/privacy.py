"""``erp privacy``: find personal data where it should not be."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

app = typer.Typer(help="Find personal data.\n\nExample: erp privacy scan export.ndjson", no_args_is_help=True)


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
