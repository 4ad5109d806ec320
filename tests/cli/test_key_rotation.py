"""``erp keys rotate-kek``: a new master key, with a server's view of the same data directory beside it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import pty
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.support.process import ERP
from typer.testing import CliRunner

from erp.cli import app
from erp.control_plane import ControlPlane
from erp.control_plane.tables import secrets
from erp.errors import ProviderError
from erp.main import Settings, open_control_plane
from erp.security.keyring import Keyring
from erp.security.vault import EnvelopeVault

pytestmark = pytest.mark.anyio

COUNT = 40


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ERP_KEK", raising=False)
    return tmp_path


@pytest.fixture
async def opened(data_dir: Path) -> tuple[ControlPlane, Keyring]:
    control, keyring = await open_control_plane(Settings(data_dir=data_dir, database_url=None))
    await control.tenants.create("acme")
    vault = EnvelopeVault(control.secrets, keyring)
    for number in range(COUNT):
        await vault.put("acme", f"s{number}", f"value {number}")
    return control, keyring


async def rotate(data_dir: Path, *options: str) -> str:
    command = ["keys", "rotate-kek", "--data-dir", str(data_dir), *options]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert result.exit_code == 0, result.output
    return result.stdout


async def key_ids(control: ControlPlane) -> set[str]:
    rows = await control.database.run(lambda connection: connection.execute(sa.select(secrets.c.key_id)).all())
    return {row[0] for row in rows}


async def test_every_secret_is_wrapped_anew_and_no_value_is_touched(
    data_dir: Path, opened: tuple[ControlPlane, Keyring]
) -> None:
    control, keyring = opened
    before = keyring.current_kek_id
    sealed = (await control.secrets.versions("acme", "s7"))[0].envelope
    assert f"{COUNT} secrets" in await rotate(data_dir)
    after = (await control.secrets.versions("acme", "s7"))[0].envelope
    assert await key_ids(control) == {Keyring.open(data_dir, {}).current_kek_id} != {before}
    assert sealed is not None
    assert after is not None
    assert sealed[61:] == after[61:]
    assert sealed[:61] != after[:61]
    await control.close()


async def test_a_running_server_reads_and_writes_on_without_a_restart(
    data_dir: Path, opened: tuple[ControlPlane, Keyring]
) -> None:
    control, keyring = opened
    server = EnvelopeVault(control.secrets, keyring)
    before = keyring.current_kek_id
    await rotate(data_dir)
    assert [await server.get("acme", f"s{number}") for number in range(COUNT)] == [f"value {n}" for n in range(COUNT)]
    await server.put("acme", "new", "value")
    assert before not in await key_ids(control)
    await control.close()


async def test_it_goes_on_where_it_was_interrupted(data_dir: Path, opened: tuple[ControlPlane, Keyring]) -> None:
    control, keyring = opened
    keyring.add_kek()
    vault = EnvelopeVault(control.secrets, keyring)
    assert await vault.rewrap(limit=15) == 15  # then the process died
    assert f"{COUNT - 15} secrets" in await rotate(data_dir, "--resume")
    assert "0 secrets" in await rotate(data_dir, "--resume")
    assert await key_ids(control) == {keyring.current_kek_id}
    await control.close()


async def test_older_keys_are_forgotten_only_when_nothing_needs_them(
    data_dir: Path, opened: tuple[ControlPlane, Keyring]
) -> None:
    control, _ = opened
    assert "1 older keys are forgotten" in await rotate(data_dir, "--forget-old")
    alone = Keyring.open(data_dir, {})
    assert len((data_dir / "keys" / "kek").read_text().split(",")) == 1
    assert await EnvelopeVault(control.secrets, alone).get("acme", "s1") == "value 1"
    await control.close()


async def test_keys_from_the_environment_are_not_made_here(
    data_dir: Path, opened: tuple[ControlPlane, Keyring], monkeypatch: pytest.MonkeyPatch
) -> None:
    control, _ = opened
    old = (data_dir / "keys" / "kek").read_text()
    new = base64.b64encode(bytes(range(32))).decode()
    monkeypatch.setenv("ERP_KEK", f"{new},{old}")
    result = await asyncio.to_thread(CliRunner().invoke, app, ["keys", "rotate-kek", "--data-dir", str(data_dir)])
    assert result.exit_code == 1
    assert "ERP_KEK=NEW,OLD" in result.output
    assert f"{COUNT} secrets" in await rotate(data_dir, "--resume")
    monkeypatch.setenv("ERP_KEK", new)
    vault = EnvelopeVault(control.secrets, Keyring.open(data_dir))
    assert await vault.get("acme", "s1") == "value 1"
    await control.close()


async def test_an_envelope_whose_key_is_gone_stops_the_rotation_and_loses_nothing(
    data_dir: Path, opened: tuple[ControlPlane, Keyring]
) -> None:
    control, keyring = opened
    kept = (data_dir / "keys" / "kek").read_text()
    stranger = Keyring(keyring.pepper, (bytes(32),))
    with pytest.raises(ProviderError) as refused:
        await EnvelopeVault(control.secrets, stranger).rewrap()
    assert refused.value.code == "failed_precondition"
    assert (data_dir / "keys" / "kek").read_text() == kept
    assert await EnvelopeVault(control.secrets, keyring).get("acme", "s1") == "value 1"
    await control.close()


async def test_whoever_watches_sees_how_far_it_is(data_dir: Path, opened: tuple[ControlPlane, Keyring]) -> None:
    control, _ = opened
    await control.close()
    terminal, standard_error = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    command = [ERP, "keys", "rotate-kek", "--data-dir", str(data_dir)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=standard_error, env=environment
    )
    os.close(standard_error)
    shown = await asyncio.to_thread(_read, terminal)
    printed, _ = await process.communicate()

    assert (process.returncode, printed.decode().startswith(f"{COUNT} secrets")) == (0, True), shown
    assert "wrapping secrets" in shown
    assert f"0/{COUNT}" in shown
    assert f"{COUNT}/{COUNT}" in shown


def _read(terminal: int) -> str:
    """Read what a process shows until it closes the terminal, which Linux tells by EIO."""
    shown = b""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65_536):
            shown += part
    os.close(terminal)
    return shown.decode()
