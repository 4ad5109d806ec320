"""``erp keys rotate``."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from erp.cli import app
from erp.control_plane import key_text
from erp.errors import ProviderError
from erp.main import Settings, open_control_plane

pytestmark = pytest.mark.anyio


async def test_rotating_prints_only_the_new_key_and_gives_the_old_one_an_end(tmp_path: Path) -> None:
    control, _ = await open_control_plane(Settings(data_dir=tmp_path, database_url=None))
    await control.tenants.create("acme")
    old, _ = await control.api_keys.create("acme", role="developer", name="ci")
    command = ["keys", "rotate", old.id, "--tenant", "acme", "--overlap-seconds", "60", "--data-dir", str(tmp_path)]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)

    assert result.exit_code == 0, result.output
    new = await control.api_keys.get("acme", key_text.key_id(result.stdout.strip()) or "")
    assert (new.name, new.replaces, new.expires_at) == ("ci", old.id, None)
    assert (await control.api_keys.get("acme", old.id)).expires_at is not None
    await control.close()


async def test_an_unknown_key_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    control, _ = await open_control_plane(Settings(data_dir=tmp_path, database_url=None))
    await control.tenants.create("acme")
    command = ["keys", "rotate", "nothing", "--tenant", "acme", "--data-dir", str(tmp_path)]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)

    assert (result.exit_code, "There is no API key 'nothing'." in result.stderr) == (1, True)
    assert await control.api_keys.list("acme") == ([], None)
    with pytest.raises(ProviderError, match="no API key"):
        await control.api_keys.rotate("acme", "nothing", overlap_seconds=0)
    await control.close()
