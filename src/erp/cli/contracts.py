"""``erp contracts``: generate what derives from the contracts, check for drift, compare versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from erp.contracts.authored import Contract

app = typer.Typer(help="Work on the contracts.\n\nExample: erp contracts check", no_args_is_help=True)


@app.command()
def generate() -> None:
    """Write models, catalog, OpenAPI, AsyncAPI and reference pages.

    Example: erp contracts generate
    """
    from erp.contracts import generation
    from erp.contracts.authored import AuthoredError

    try:
        changed = generation.generate()
    except AuthoredError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    changed += _written_derived()
    for path in changed:
        typer.echo(path)
    typer.echo(f"{len(changed)} files changed")


def _derived() -> dict[Path, str]:
    """What the conformance kit makes; nothing where there are no docs (an installed wheel)."""
    from erp.contracts.authored import PACKAGE
    from erp.contracts.loading import catalog
    from erp.runtime.conformance import quality_pages
    from erp.runtime.conformance.spec import provider_spec

    folder = PACKAGE.parents[1] / "docs" / "reference"
    if not folder.is_dir():
        return {}
    catalog.cache_clear()  # it may have been generated just now
    standing = quality_pages.assessments(PACKAGE / "providers")
    return {
        folder / "provider-spec.md": provider_spec(),
        folder / "quality.md": quality_pages.page(standing),
        PACKAGE / "contracts" / "quality.json": quality_pages.levels(standing),
    }


def _written_derived() -> list[Path]:
    changed = []
    for path, text in _derived().items():
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            changed.append(path)
    return changed


@app.command()
def check() -> None:
    """Fail when a generated file is not what the contracts say, or a manifest is not true.

    Example: erp contracts check
    """
    from erp.contracts import generation
    from erp.contracts.authored import AuthoredError

    try:
        found = generation.drifted()
    except AuthoredError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    found += [path for path, text in _derived().items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in found:
        typer.echo(f"{path} is not what the contracts say", err=True)
    if found:
        typer.echo("How to mend: run `erp contracts generate` and commit the result.", err=True)
        raise typer.Exit(1)
    typer.echo("every generated file is what the contracts say")


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(exists=True, help="A contract file, or a folder of them.")],
    new: Annotated[Path, typer.Argument(exists=True, help="The same, later.")],
) -> None:
    """Classify a change as major, minor or patch; fail when the version does not say so.

    Example: erp contracts diff old/cache.yaml src/erp/contracts/domains/cache.yaml
    """
    from erp.contracts.authored import AuthoredError, contract

    try:
        pairs = [(contract(left), contract(right)) for left, right in _pairs(old, new)]
    except AuthoredError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    verdicts = [_compare(left, right) for left, right in pairs]
    if not all(verdicts):
        raise typer.Exit(1)


def _pairs(old: Path, new: Path) -> list[tuple[Path, Path]]:
    if old.is_file():
        return [(old, new)]
    removed = [path for path in sorted(old.rglob("*.yaml")) if not (new / path.relative_to(old)).is_file()]
    for path in removed:
        typer.echo(f"{path.relative_to(old)}: removed (major)", err=True)
    if removed:
        raise typer.Exit(1)
    return [(path, new / path.relative_to(old)) for path in sorted(old.rglob("*.yaml"))]


def _compare(old: Contract, new: Contract) -> bool:
    from erp.contracts import comparison

    found = comparison.changes(old, new)
    versions = f"{old.document['version']} -> {new.document['version']}"
    typer.echo(f"{new.name} {versions}: {comparison.needed(found) or 'no change'}")
    for change in found:
        typer.echo(f"  {change.level:5}  {change.where}: {change.what}")
    is_enough = comparison.is_enough(old, new, found)
    if not is_enough:
        typer.echo(f"{new.name}: the version must rise by a {comparison.needed(found)} step.", err=True)
    return is_enough
