"""The control plane's database on PostgreSQL. Imported only where it is used: it loads asyncpg."""

from __future__ import annotations

from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from erp.control_plane.database import POOL_SIZE, Work

T = TypeVar("T")

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 10.0
"""A server that has stopped answering must not hold calls for ever."""
IDLE_SECONDS = 5.0
"""A process that was stopped in a transaction must not keep rows from the others: the server ends it."""


class Postgresql:
    """A pool of connections; functions run in greenlets of the event loop."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(
            _asyncpg_url(url),
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=CONNECT_SECONDS,
            pool_pre_ping=True,
            connect_args={"timeout": CONNECT_SECONDS, "command_timeout": COMMAND_SECONDS},
        )
        self.dialect = self._engine.dialect
        sa.event.listen(self._engine.sync_engine, "connect", _prepare)

    async def run(self, work: Work[T]) -> T:
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)

    async def transact(self, work: Work[T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def count(self, work: Work[T]) -> T:
        return await self.transact(work)

    async def close(self) -> None:
        await self._engine.dispose()


def _prepare(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
    # Not as a parameter of the connection: poolers in front of a server refuse those that they do not know.
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {int(IDLE_SECONDS * 1000)}")
    cursor.close()
    connection.commit()


def _asyncpg_url(url: str) -> sa.URL:
    """Return ``url`` with the driver named and libpq's ``sslmode`` under the driver's own name."""
    found = sa.make_url(url).set(drivername="postgresql+asyncpg")
    mode = found.query.get("sslmode")
    if mode is not None:
        found = found.difference_update_query(["sslmode"]).update_query_dict(
            {"ssl": mode if isinstance(mode, str) else mode[0]}
        )
    return found
