"""What tenants have said about personal data: JSON by tenant, read from memory."""

from __future__ import annotations

from functools import partial

import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.expected import expect
from erp.control_plane.remembered import Remembered
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.tables import privacy_settings
from erp.control_plane.tenants import require

Stored = tuple[str, int]
"""JSON text, and how often it was changed; revision 0: never."""
NOTHING: Stored = ("{}", 0)


class StoredPrivacy:
    """The privacy settings of all tenants."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions
        self._settings = Remembered[str, Stored](revisions, Topic.CONFIGURATION)

    async def get(self, tenant: str) -> Stored:
        """Return the settings of ``tenant``."""
        return await self._settings.get(tenant, lambda: self._database.run(partial(_read, tenant)))

    async def put(self, tenant: str, settings: str, *, revision: str | None = None) -> Stored:
        """Store settings.

        Args:
            tenant: whose they are.
            settings: JSON text.
            revision: the one they must have now; empty: there must be none; None: any or none.

        Raises:
            ProviderError: ``not_found`` when the tenant does not exist, ``conflict``.
        """
        stored = await self._database.transact(
            counted(partial(_write, tenant, settings, revision), Topic.CONFIGURATION)
        )
        self._revisions.announce(Topic.CONFIGURATION)
        return stored


def _read(tenant: str, connection: sa.Connection) -> Stored:
    table = privacy_settings.c
    row = connection.execute(sa.select(table.settings, table.revision).where(table.tenant == tenant)).first()
    return NOTHING if row is None else (row.settings, row.revision)


def _write(tenant: str, settings: str, wanted: str | None, connection: sa.Connection) -> Stored:
    require(connection, tenant, alone=True)
    present = _read(tenant, connection)
    expect("privacy settings", wanted, str(present[1]) if present[1] else None)
    row = {"tenant": tenant, "settings": settings, "revision": present[1] + 1, "updated_at": moments.now()}
    connection.execute(sa.delete(privacy_settings).where(privacy_settings.c.tenant == tenant))
    connection.execute(sa.insert(privacy_settings).values(row))
    return settings, present[1] + 1
