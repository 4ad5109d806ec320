"""``erp apply``, ``erp diff``, ``erp export``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erp.cli.session import KEY_HELP, URL_HELP

if TYPE_CHECKING:
    from erp.cli.state.plan import Allowed, Plan
    from erp.cli.state.resources import Change
    from erp.cli.state.server import Server

DIFFERENT, TROUBLE = 1, 2

Url = Annotated[str, typer.Option(envvar="ERP_URL", help=URL_HELP)]
Key = Annotated[str, typer.Option(envvar="ERP_KEY", help=f"{KEY_HELP} The platform administrator's for all tenants.")]
File = Annotated[Path, typer.Option("--file", "-f", help="The state file; - for standard input.")]
LOCAL = "http://127.0.0.1:8080"


@contextmanager
def _explained(file: Path | None, status: int) -> Iterator[None]:
    """End with ``status`` and say where the file is wrong, or what the server refused."""
    from erp.cli.state.document import StateError
    from erp.cli.state.server import ServerError

    try:
        yield
    except StateError as error:
        for finding in sorted(error.findings, key=lambda item: item.line or 0):
            line = f":{finding.line}" if finding.line else ""
            typer.echo(f"{file}{line}: {finding}", err=True)
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(status) from None
    except ServerError as error:
        typer.echo(f"erp: {error}", err=True)
        raise typer.Exit(status) from None


def _plan(server: Server, file: Path, allowed: Allowed) -> Plan:
    """Read the file and the server, and check that what is planned can be done."""
    from erp.cli.state.plan import planned, snapshot
    from erp.cli.state.validity import Validity, load, refuse

    document = load(file)
    found = snapshot(server, document.value)
    plan = planned(document.value, found, prune_tenants=allowed.prune_tenants)
    refuse(document, Validity(server, document.value, found).findings(plan, allowed))
    return plan


def apply(
    *,
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove what the file's sections do not name; keys are revoked.")
    ] = False,
    prune_tenants: Annotated[
        bool, typer.Option("--prune-tenants", help="Also remove whole tenants that the file does not name.")
    ] = False,
    create_keys: Annotated[
        bool, typer.Option("--create-keys", help="Also create missing API keys; each is printed once.")
    ] = False,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Make a running server have what a state file says.

    Everything is checked before anything is done; what the server has already is left as it is.

    Example: erp apply -f state.yaml --dry-run
    """
    from erp.cli.state import report
    from erp.cli.state.plan import Allowed
    from erp.cli.state.server import connected

    allowed = Allowed(prune=prune, prune_tenants=prune_tenants, create_keys=create_keys)
    with connected(url, key) as server, _explained(file, 1):
        plan = _plan(server, file, allowed)
        if dry_run:
            report.show(plan, allowed)
            typer.echo(f"dry run: {report.summary(plan.doable(allowed))}; nothing was changed")
        else:
            _carry_out(server, plan, allowed)
    for line in _left(plan, allowed):
        typer.echo(line)


def _left(plan: Plan, allowed: Allowed) -> list[str]:
    """Say what was left, and with which option it would be done."""
    from erp.cli.state import report

    options = [option for change in plan.changes if (option := allowed.option(change))]
    found = [f"{report.counted(options.count(one), 'change')} left: only with {one}" for one in sorted(set(options))]
    note = "" if allowed.prune_tenants else report.unnamed(plan)
    return [*found, note] if note else found


def _carry_out(server: Server, plan: Plan, allowed: Allowed) -> None:
    from erp.cli.state import report
    from erp.cli.state.server import ServerError

    changes = plan.doable(allowed)
    to = report.console()
    for number, change in enumerate(changes):
        try:
            answer = _done(server, change)
        except ServerError as error:
            _stopped(changes, number, error)
            raise typer.Exit(1) from None
        for line in report.lines(change, None):
            to.print(line)
        if answer and "key" in answer:
            typer.echo(f"    the new key (shown only now): {answer['key']}")
    done = "nothing to change: the server has what the file says"
    typer.echo(done if not changes else f"{report.counted(len(changes), 'change')} made")


def _done(server: Server, change: Change) -> Any:
    if change.verb == "remove":
        change.kind.remove(server, change)
        return None
    return change.kind.put(server, change)


def _stopped(changes: list[Change], number: int, error: Exception) -> None:
    """Say what was done and what was not when one change failed."""
    from erp.cli.state import report

    failed, rest = changes[number], changes[number + 1 :]
    typer.echo(f"erp: {report.title(failed)} could not be {_PAST[failed.verb]}: {error}", err=True)
    typer.echo(f"{report.counted(number, 'change')} made, 1 failed, {len(rest)} not tried:", err=True)
    for change in rest:
        typer.echo(f"  {report.SIGNS[change.verb][0]} {report.title(change)}", err=True)
    typer.echo("What was made stays. Mend the cause and apply the file again: it goes on from there.", err=True)


_PAST = {"create": "created", "change": "changed", "remove": "removed"}


def diff(
    file: File,
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Show how a running server differs from a state file; status 0: not at all, 1: it does, 2: nobody can tell.

    Example: erp diff -f state.yaml
    """
    from erp.cli.state import report
    from erp.cli.state.plan import Allowed
    from erp.cli.state.server import connected

    with connected(url, key) as server, _explained(file, TROUBLE):
        plan = _plan(server, file, Allowed())
    if as_json:
        typer.echo(report.machine_readable(plan))
    else:
        report.show(plan, Allowed())
        note = report.unnamed(plan)
        typer.echo("\n".join(filter(None, [report.summary(plan.changes) if plan.changes else "no difference", note])))
    if plan.changes:
        raise typer.Exit(DIFFERENT)


def export(
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant; may be repeated.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of state files instead.")] = False,
    url: Url = LOCAL,
    key: Key = "",
) -> None:
    """Print what a running server has as a state file. Secrets are references, keys are left out.

    Example: erp export > state.yaml
    """
    from erp.cli.state.server import connected
    from erp.cli.state.writing import written

    if schema:
        from erp.contracts.loading import document

        typer.echo(document("state.schema.json").decode(), nl=False)
        return
    with connected(url, key) as server, _explained(None, 1):
        typer.echo(written(exported(server, tenant or [])), nl=False)


def exported(server: Server, only: list[str]) -> dict[str, Any]:
    """Return the state of a server, or of some of its tenants.

    Raises:
        ServerError: a tenant is not there, or not to be seen with this key.
    """
    from erp.cli.state.resources import SECTIONS, TENANTS
    from erp.cli.state.server import ServerError

    found = TENANTS.present(server)
    missing = [id_ for id_ in only if id_ not in found]
    if missing:
        message = f"This key sees no tenant {', '.join(missing)}. It sees: {', '.join(found)}."
        raise ServerError(message)
    chosen = {id_: item for id_, item in found.items() if not only or id_ in only}
    tenants = TENANTS.exported(chosen)
    for id_, entry in tenants.items():
        entry |= {kind.section: kind.exported(kind.present(server, id_)) for kind in SECTIONS}
    return {"version": 1, "tenants": tenants}
