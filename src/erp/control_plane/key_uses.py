"""When API keys were last used: written behind the calls, at most once a minute for each key."""

from __future__ import annotations

import asyncio
import logging

import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.tables import api_keys
from erp.errors import ProviderError

PRECISION_SECONDS = 60.0
"""A use that follows another sooner than this is not written."""
GATHERED_SECONDS = 0.2
"""How long uses are gathered into one write."""

_log = logging.getLogger(__name__)


class KeyUses:
    """Notes uses in memory and writes them in the background. What a crash loses is a date, nothing else."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[str, int] = {}
        self._writer: asyncio.Task[None] | None = None

    def note(self, key: str, last_used_at: int | None) -> None:
        """Remember that the API key with the id ``key`` is used now, unless ``last_used_at`` says so nearly enough."""
        now = moments.now()
        if last_used_at is not None and 0 <= now - last_used_at < PRECISION_SECONDS * moments.MICROSECONDS:
            return
        self._noted[key] = now
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="uses of API keys")

    async def _write(self) -> None:
        await asyncio.sleep(GATHERED_SECONDS)
        self._writer = None
        await self._flush()

    async def _flush(self) -> None:
        noted, self._noted = self._noted, {}
        if not noted:
            return
        rows = [{"used_key": key, "used_at": moment} for key, moment in sorted(noted.items())]
        statement = sa.update(api_keys).where(api_keys.c.id == sa.bindparam("used_key"))
        write = statement.values(last_used_at=sa.bindparam("used_at"))
        try:
            await self._database.transact(lambda connection: connection.execute(write, rows))
        except ProviderError as error:
            _log.warning("the last use of %d API keys was not written: %s", len(rows), error.message)

    async def close(self) -> None:
        """Write what is noted. Safe twice."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
            self._writer = None
        await self._flush()
