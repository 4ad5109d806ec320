"""``erp policy``: test, check and explain policies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erp.cli.session import KEY_HELP, URL_HELP, asked

if TYPE_CHECKING:
    from erp.security.policy.rego import Finding

app = typer.Typer(
    help="Test, check and explain policies.\n\nExample: erp policy lint policy.rego", no_args_is_help=True
)

Url = Annotated[str, typer.Option(envvar="ERP_URL", help=URL_HELP)]
Key = Annotated[str, typer.Option(envvar="ERP_KEY", help=KEY_HELP)]


@app.command("test")
def run_tests(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder with .rego files; default: the platform's own policy.")
    ] = None,
) -> None:
    """Run the unit tests (rules test_... in files ..._test.rego); status 1 when one fails or there is none.

    Example: erp policy test ./policies
    """
    from erp.security.policy import unit_tests
    from erp.security.policy.engines import FOLDER
    from erp.security.policy.process import NoAnswerError

    place = folder or FOLDER
    modules = {path.name: _read(path) for path in sorted(place.glob("*.rego"))}
    try:
        ran = asyncio.run(unit_tests.run(modules))
    except NoAnswerError:
        typer.echo(
            f"The engine does not bear the modules in {place}. How to fix: simplify the one changed last.", err=True
        )
        raise typer.Exit(1) from None
    failed = [one for one in ran if one.problem]
    for one in failed:
        typer.echo(f"failed {one.module} {one.name}: {one.problem}")
    typer.echo(f"{len(ran) - len(failed)} passed, {len(failed)} failed")
    if not ran:
        typer.echo(
            f"There are no tests in {place}. How to fix: write rules test_... in a file ..._test.rego.", err=True
        )
    if failed or not ran:
        raise typer.Exit(1)


@app.command()
def lint(file: Annotated[Path, typer.Argument(help="The policy of a tenant.")]) -> None:
    """Say what is wrong with a tenant's policy; status 1 when it could not be put in force.

    Example: erp policy lint policy.rego
    """
    from erp.security.policy.tenant_rules import TenantRules

    async def findings() -> list[Finding]:
        rules = TenantRules()
        try:
            return await rules.lint(_read(file), "{}")
        finally:
            await rules.close()

    found = asyncio.run(findings())
    for finding in found:
        typer.echo(str(finding))
    if found:
        raise typer.Exit(1)
    typer.echo(f"{file}: sound")


@app.command()
def explain(  # noqa: PLR0917  (options, each given by its name)
    action: Annotated[str, typer.Argument(help="AREA/DOMAIN/NAME/ACTION, or services/NAME/ACTION.")],
    role: Annotated[list[str] | None, typer.Option(help="Role of who would do it; default: the caller.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Scope of who would do it.")] = None,
    effect: Annotated[str | None, typer.Option(help="read, write or destructive; needed for admin.")] = None,
    source: Annotated[Path | None, typer.Option(help="A policy to be tried in the place of the one in force.")] = None,
    url: Url = "http://127.0.0.1:8080",
    key: Key = "",
) -> None:
    """Ask a running server whether something is allowed, and why; status 1 when it is not.

    Example: erp policy explain providers/cache/memory/get --role developer
    """
    body: dict[str, Any] = {"target": _target(action, effect)}
    if role or scope:
        body["actor"] = {"roles": role or [], "scopes": scope or []}
    if source is not None:
        body["source"] = _read(source)
    made = asked("POST", f"{url}/policies:test", key, body)
    typer.echo(f"{'allowed' if made['allow'] else 'denied'}: {made['reason']}")
    for sign, texts in (("+", made["grants"]), ("-", made["denials"])):
        for text in texts:
            typer.echo(f"  {sign} {text}")
    if not made["allow"]:
        raise typer.Exit(1)


def _target(action: str, effect: str | None) -> dict[str, str]:
    match action.split("/"):
        case ["services", name, verb]:
            found = {"area": "services", "domain": name, "name": name, "action": verb}
        case [("providers" | "admin") as area, domain, *names, verb] if names:
            found = {"area": area, "domain": domain, "name": "/".join(names), "action": verb}
        case _:
            message = f"{action!r} is no action. Write providers/cache/memory/get, services/order/submit or admin/keys/*/list."
            raise typer.BadParameter(message)
    return found if effect is None else {**found, "effect": effect}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {error}"
        raise typer.BadParameter(message) from error
