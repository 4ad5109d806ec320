"""Brings the database to the schema this version of the layer works with."""

from __future__ import annotations

import asyncio
import time

import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.database import Database, is_held_by_another
from erp.errors import ProviderError

HEAD = "0018"
"""The newest migration. A test proves that no file under ``migrations/versions`` is newer."""

_LOCK = 0x6572705F
"""Number of the advisory lock under which processes that start together migrate one by one."""

OTHERS_SECONDS, LOOK_SECONDS = 30.0, 0.1
"""How long another process may migrate a file of SQLite, longer than a change waits for it; and how often to look."""


async def bring_up_to_date(database: Database) -> None:
    """Migrate ``database`` to ``HEAD``, all or nothing; only one of several processes does it.

    A database that is there already costs one read: Alembic takes longer to import than all else
    takes to start.

    Raises:
        ProviderError: ``failed_precondition`` when the schema is unknown to this version, ``unavailable`` when the
            database cannot be read or written, at once, or another process holds it for longer than 30 s.
    """
    ends_at = time.monotonic() + OTHERS_SECONDS
    while True:
        try:
            if await database.run(version) == HEAD:
                return
            await database.transact(_migrate)
        except ProviderError as error:
            # Not even a look is possible while another process makes a new file of SQLite one with a log (WAL).
            if not is_held_by_another(error) or time.monotonic() > ends_at:
                raise
            await asyncio.sleep(LOOK_SECONDS)


def version(connection: sa.Connection) -> str | None:
    """Return the newest migration ``connection`` has seen, or None for an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = Config()
    config.set_main_option("script_location", "erp.control_plane:migrations")
    config.attributes["connection"] = connection
    found = version(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        message = f"The database has schema {found}, made by a newer version. Start that version, or restore a backup."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    command.upgrade(config, "head")
