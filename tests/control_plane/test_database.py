from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from erp.control_plane import ControlPlane, database
from erp.control_plane.database import Database
from erp.control_plane.postgresql import _asyncpg_url
from erp.control_plane.tables import tenants
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio

ROW = {"id": "initech", "policy": "{}", "created_at": 1, "updated_at": 1}


def insert(connection: sa.Connection) -> None:
    connection.execute(sa.insert(tenants).values(ROW))


async def test_a_transaction_that_fails_changes_nothing(control: ControlPlane) -> None:
    def insert_and_fail(connection: sa.Connection) -> None:
        insert(connection)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await control.database.transact(insert_and_fail)
    assert await control.tenants.ids() == ["acme", "globex"]

    await control.database.transact(insert)
    assert await control.tenants.ids() == ["acme", "globex", "initech"]


async def test_what_only_reads_never_leaves_a_change_behind(control: ControlPlane) -> None:
    try:
        await control.database.run(insert)
    except ProviderError as error:
        assert error.code == "unavailable"  # noqa: PT017  (SQLite refuses, PostgreSQL rolls back)
    assert await control.tenants.ids() == ["acme", "globex"]


async def test_a_locked_database_is_unavailable_and_works_again_when_it_is_free(
    empty_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    store = Database.in_file(empty_file)
    other = sqlite3.connect(empty_file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ProviderError) as refused:
        await store.transact(insert)
    assert (refused.value.code, refused.value.status) == ("unavailable", 503)
    assert "locked" in (refused.value.detail or "")
    other.execute("ROLLBACK")
    other.close()

    await store.transact(insert)
    assert await store.run(lambda connection: connection.execute(sa.select(tenants.c.id)).scalars().all()) == [
        "initech"
    ]
    await store.close()
    await store.close()


async def test_sqlite_commits_are_durable_but_those_of_counts_and_references_are_checked(empty_file: Path) -> None:
    store = Database.in_file(empty_file)

    def settings(connection: sa.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await store.transact(settings) == ["wal", 2, 1]
    assert await store.count(settings) == ["wal", 1, 1]
    await store.close()


async def test_an_unreachable_postgresql_is_unavailable() -> None:
    store = Database.at("postgresql://erp:secret@127.0.0.1:1/erp")
    with pytest.raises(ProviderError) as refused:
        await store.run(insert)
    assert refused.value.code == "unavailable"
    assert "secret" not in refused.value.message + (refused.value.detail or "")
    await store.close()


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://erp:secret@db:5432/erp", "postgresql+asyncpg://erp:secret@db:5432/erp"),
        ("postgres://db/erp?sslmode=require", "postgresql+asyncpg://db/erp?ssl=require"),
    ],
)
def test_addresses_of_libpq_are_understood(given: str, used: str) -> None:
    assert _asyncpg_url(given).render_as_string(hide_password=False) == used
