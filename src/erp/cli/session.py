"""What commands share: open the control plane, do one thing, close it, explain failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from httpx2 import Response

    from erp.control_plane import ControlPlane

DATA_DIR_HELP = "The server's data directory (default: ERP_DATA_DIR, or a folder of the user)."

URL_HELP = "Where the server is."
KEY_HELP = "An API key of the server; better in the environment than on the command line."
ASK_SECONDS = 60.0

Result = TypeVar("Result")


@contextmanager
def failures_explained() -> Iterator[None]:
    """End the process with status 1 and a readable reason when the block raises a ProviderError."""
    from erp.errors import ProviderError

    try:
        yield
    except ProviderError as error:
        typer.echo(f"erp: {error.message}", err=True)
        if error.detail:
            typer.echo(error.detail.splitlines()[0], err=True)
        typer.echo(error.code.spec.remedy, err=True)
        for item in error.errors:
            typer.echo(f"  {item.pointer}: {item.message}", err=True)
        raise typer.Exit(1) from None


def with_control_plane(data_dir: Path | None, work: Callable[[ControlPlane], Awaitable[Result]]) -> Result:
    """Run ``work`` on the control plane and return its result; a ProviderError ends with status 1."""
    from erp.main import Settings, open_control_plane

    settings = Settings(data_dir=data_dir.absolute()) if data_dir else Settings()

    async def session() -> Result:
        control, keyring = await open_control_plane(settings)
        try:
            return await work(control)
        finally:
            await control.close()
            await keyring.close()

    with failures_explained():
        return asyncio.run(session())


def asked(
    method: str, url: str, key: str, body: Mapping[str, Any] | None = None, *, connection: str | None = None
) -> Any:
    """Return a running server's answer; whatever goes wrong ends the command with status 1 and a readable reason."""
    import httpx2

    try:
        headers = {"authorization": f"Bearer {key}"} | ({"x-connection": connection} if connection else {})
        answer = httpx2.request(method, url, headers=headers, json=body, timeout=ASK_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        typer.echo(
            f"erp: {url} cannot be reached: {error}. Start it with `erp serve`, or name it with --url.", err=True
        )
        raise typer.Exit(1) from None
    if answer.is_success:
        return answer.json() if answer.content else None
    typer.echo(f"erp: {_refusal(answer)}", err=True)
    raise typer.Exit(1)


def _refusal(answer: Response) -> str:
    try:
        problem = answer.json()
        return f"{problem['detail']} ({problem['code']})"
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answered {answer.status_code}; is it this software?"
