"""``erp audit``: prove, export and check the audit records, also while a server runs on the same data directory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from erp.cli.session import DATA_DIR_HELP, KEY_HELP, URL_HELP, asked, failures_explained

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.security.checkpoints import Checkpoints
    from erp.security.signed_note import PublicKey

app = typer.Typer(help="Prove, export and check audit records.\n\nExample: erp audit verify", no_args_is_help=True)

DataDir = Annotated[Path | None, typer.Option(help=DATA_DIR_HELP, show_default=False)]
STORAGE = "storage:"
Tenant = Annotated[str | None, typer.Option(help="This tenant only.", show_default=False)]


@app.callback()
def audit() -> None:
    """Hold the subcommands."""


@app.command(name="key")
def show_key(data_dir: DataDir = None) -> None:
    """Print the public key that checks checkpoints and exports.

    Example: erp audit key --data-dir ./data
    """
    _with_checkpoints(data_dir, _print_key)


async def _print_key(_: ControlPlane, checkpoints: Checkpoints) -> None:
    typer.echo(await checkpoints.public_key())


@app.command()
def checkpoint(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a file per checkpoint; nothing there is ever changed.", show_default=False),
    ] = None,
    tenant: Tenant = None,
    data_dir: DataDir = None,
) -> None:
    """Sign how far every audit log has come, and write the checkpoints where they are out of reach of this machine.

    Example: erp audit checkpoint --out /mnt/write-once
    """
    _with_checkpoints(data_dir, lambda control, checkpoints: _checkpoint(control, checkpoints, tenant, out))


async def _checkpoint(control: ControlPlane, checkpoints: Checkpoints, tenant: str | None, out: Path | None) -> None:
    for name in [tenant] if tenant else await control.checkpoints.tenants():
        made = await checkpoints.make(name)
        if made is None:
            continue
        if out is None:
            typer.echo(made.note)
        else:
            typer.echo(_written(out / name, f"{made.size:012}.txt", made.note))


def _written(folder: Path, name: str, note: str) -> Path:
    """Write a new file, durably; one that is there already must say the same."""
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_text() == note:
            return path
        with path.open("x") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        _fail(f"{path} cannot be written: {error.strerror or error}. Nothing that is there is changed.")
    return path


@app.command()
def send(
    provider: Annotated[str, typer.Argument(help="A storage provider, for example filesystem.")],
    key: Annotated[str, typer.Option(envvar="ERP_KEY", help=KEY_HELP)],
    connection: Annotated[str, typer.Option(help="The connection of the provider.")] = "default",
    url: Annotated[str, typer.Option(envvar="ERP_URL", help=URL_HELP)] = "http://127.0.0.1:8080",
) -> None:
    """Have a running server sign your tenant's log, and put the checkpoint into a storage provider.

    Example: erp audit send s3 --connection archive
    """
    import base64

    made = asked("POST", f"{url}/audit/checkpoints", key, {})
    name = f"audit/{made['tenant']}/{made['size']:012}.txt"
    content = base64.b64encode(made["note"].encode()).decode()
    params = {"key": name, "content": content, "content_type": "text/plain"}
    asked("POST", f"{url}/providers/storage/{provider}/put", key, {"params": params}, connection=connection)
    typer.echo(name)


@app.command()
def verify(
    tenant: Tenant = None,
    checkpoints: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            "--checkpoints",
            help="Checkpoints kept elsewhere: a file, a folder, or storage:TENANT/PROVIDER#CONNECTION.",
            show_default=False,
        ),
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option("--key", help="The public key, kept elsewhere (default: the server's own).", show_default=False),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Find any audit record that was changed, removed, reordered, put in between or cut off.

    Example: erp audit verify --checkpoints storage:platform/s3#archive
    """
    named = checkpoints or []
    stored = [name.removeprefix(STORAGE) for name in named if name.startswith(STORAGE)]
    notes = [path.read_text() for name in named if not name.startswith(STORAGE) for path in _files(Path(name))]
    key = _parsed(public_key) if public_key else None
    folder = data_dir.absolute() if data_dir else None
    with failures_explained():
        asyncio.run(_verify(folder, tenant, notes, stored, key))


async def _verify(
    folder: Path | None, tenant: str | None, notes: list[str], stored: list[str], key: PublicKey | None
) -> None:
    from erp.main import Settings, offline

    broken = 0
    async with offline(Settings(data_dir=folder) if folder else Settings()) as layer:
        keys = [key] if key else await layer.audit_keeper.checkpoints.public_keys()
        archives = [layer.archive_at(place) for place in stored]
        for name in [tenant] if tenant else await layer.control.checkpoints.tenants():
            archived = [note for archive in archives for note in await archive.notes(name)]
            broken += not await _is_whole(layer.control, name, keys, [*notes, *archived])
    if broken:
        raise typer.Exit(1)


async def _is_whole(control: ControlPlane, name: str, keys: list[PublicKey], notes: list[str]) -> bool:
    from erp.security.audit import Verification

    head = await control.audit.head(name)
    with _progress(f"checking {name}", head.seq if head else 0) as advance:
        verdict = await Verification(control, name, keys, notes).run(advance)
    if verdict.is_whole:
        facts = (
            f"{verdict.checked} records, {verdict.deleted} lawfully deleted, {verdict.checkpoints} checkpoints agree"
        )
        typer.echo(f"{name}: whole: {facts}")
    else:
        typer.echo(f"{name}: BROKEN at record {verdict.broken_at}: {verdict.reason}")
    return verdict.is_whole


@app.command()
def export(
    tenant: Annotated[str, typer.Argument(help="Whose records.")],
    out: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    data_dir: DataDir = None,
) -> None:
    """Write a tenant's audit log as NDJSON: an OCSF event a line, at the end a signed checkpoint.

    Example: erp audit export acme acme-audit.ndjson
    """
    if out.exists():
        _fail(f"{out} is there already. Name another file.")
    _with_checkpoints(data_dir, lambda control, checkpoints: _export(control, checkpoints, tenant, out))


async def _export(control: ControlPlane, checkpoints: Checkpoints, tenant: str, out: Path) -> None:
    from erp.security import audit_export

    head = await control.audit.head(tenant)
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("wb") as file, _progress(f"exporting {tenant}", head.seq if head else 0) as advance:
            async for page in audit_export.lines(control, checkpoints, tenant):
                file.write(page)
                advance(page.count(b"\n"))
            file.flush()
            os.fsync(file.fileno())
        part.rename(out)
    except OSError as error:
        _fail(f"{out} cannot be written: {error.strerror or error}.")
    finally:
        part.unlink(missing_ok=True)
    typer.echo(out)


@app.command()
def verify_export(
    file: Annotated[Path, typer.Argument(help="What `erp audit export` or GET /audit:export gave.")],
    public_key: Annotated[str, typer.Option("--key", help="The public key that `erp audit key` prints.")],
) -> None:
    """Check an exported audit log with nothing but the file and the public key.

    Example: erp audit verify-export acme-audit.ndjson --key "erp-audit-1f2e3d4c+..."
    """
    from erp.security.audit_export_check import examine

    parsed = _parsed(public_key)
    try:
        with file.open("rb") as lines, _progress(f"checking {file.name}", None) as advance:
            found = examine(lines, parsed, advance)
    except OSError as error:
        _fail(f"{file} cannot be read: {error.strerror or error}.")
    if not found.is_whole:
        _fail(f"{file} is BROKEN at record {found.broken_at}: {found.reason}")
    typer.echo(f"{found.tenant}: whole: {found.chain.seq} records, {found.chain.deleted} lawfully deleted")


def _with_checkpoints(data_dir: Path | None, work: Callable[[ControlPlane, Checkpoints], Awaitable[None]]) -> None:
    """Run ``work`` on the control plane; what goes wrong ends the command with status 1 and a readable reason."""
    folder = data_dir.absolute() if data_dir else None

    async def session() -> None:
        from erp.main import Settings, open_control_plane
        from erp.security.checkpoints import Checkpoints
        from erp.security.vault import EnvelopeVault

        settings = Settings(data_dir=folder) if folder else Settings()
        control, keyring = await open_control_plane(settings)
        try:
            vault = EnvelopeVault(control.secrets, keyring)
            await work(control, Checkpoints(control.checkpoints, control.audit_proofs, vault))
        finally:
            await control.close()

    with failures_explained():
        asyncio.run(session())


@contextmanager
def _progress(label: str, total: int | None) -> Iterator[Callable[[int], Any]]:
    """Show a bar on the terminal, which goes when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.update(task, advance=count)


def _files(named: Path) -> list[Path]:
    found = sorted(path for path in named.rglob("*.txt")) if named.is_dir() else [named]
    if not found or not all(path.is_file() for path in found):
        _fail(f"{named} holds no checkpoint.")
    return found


def _parsed(text: str) -> PublicKey:
    from erp.security.signed_note import InvalidNoteError, PublicKey

    try:
        return PublicKey.parse(text)
    except InvalidNoteError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(f"erp: {message}", err=True)
    raise typer.Exit(1)
