from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from erp.control_plane import ControlPlane, schema
from erp.control_plane.plane import DATABASE_FILE
from erp.control_plane.tables import metadata
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio


async def test_migrations_make_exactly_the_tables_that_the_code_works_with(control: ControlPlane) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    assert await control.database.run(differences) == []


def test_head_names_the_newest_migration_file() -> None:
    config = Config()
    config.set_main_option("script_location", "erp.control_plane:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


async def test_an_up_to_date_database_opens_without_alembic(
    control_plane_url: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "alembic", None)
    control = await ControlPlane.open(tmp_path, control_plane_url, pepper=b"p")
    await control.ping()
    await control.close()


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(
    control_plane_url: str | None, tmp_path: Path
) -> None:
    control = await ControlPlane.open(tmp_path, control_plane_url, pepper=b"p")
    change = "UPDATE alembic_version SET version_num = '{}'"
    await control.database.transact(lambda connection: connection.execute(sa.text(change.format("9999"))))
    with pytest.raises(ProviderError) as refused:
        await ControlPlane.open(tmp_path, control_plane_url, pepper=b"p")
    assert refused.value.code == "failed_precondition"
    assert "9999" in refused.value.message
    assert await control.database.run(schema.version) == "9999"

    await control.database.transact(lambda connection: connection.execute(sa.text(change.format(schema.HEAD))))
    again = await ControlPlane.open(tmp_path, control_plane_url, pepper=b"p")
    await again.close()
    await control.close()


async def test_processes_that_start_together_on_an_empty_directory_migrate_it_once(tmp_path: Path) -> None:
    opened = await asyncio.gather(*(ControlPlane.open(tmp_path, pepper=b"p") for _ in range(3)))
    await opened[0].tenants.create("acme")
    assert await opened[2].tenants.ids() == ["acme"]
    for control in opened:
        await control.close()


async def test_a_process_waits_for_another_that_migrates_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erp.control_plane.database.BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE, isolation_level=None)) as another:
        another.execute("PRAGMA journal_mode = WAL")
        another.execute("BEGIN IMMEDIATE")
        opening = asyncio.create_task(ControlPlane.open(tmp_path, pepper=b"p"))
        await asyncio.sleep(0.5)
        assert not opening.done()
        another.execute("ROLLBACK")

    control = await opening
    assert await control.tenants.ids() == []
    await control.close()


async def test_a_directory_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).mkdir()
    began = time.monotonic()
    with pytest.raises(ProviderError) as refused:
        await ControlPlane.open(tmp_path, pepper=b"p")
    assert refused.value.code == "unavailable"
    assert refused.value.message.startswith("The control plane's database cannot be opened")
    assert time.monotonic() - began < schema.OTHERS_SECONDS / 2

    (tmp_path / DATABASE_FILE).rmdir()
    await (await ControlPlane.open(tmp_path, pepper=b"p")).close()
