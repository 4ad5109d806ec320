"""Tables that tenants share over the same connections: the server keeps their rows apart.

Every transaction begins with the tenant's name, and ends with it. A role that no policy holds for, or a table in reach
that keeps nobody apart, and nothing is opened at all.
"""

from __future__ import annotations

from erp.providers.db.postgres.connecting import Endpoint
from erp.providers.db.postgres.database import Database
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.row_security import SETTING
from erp.vendor_clients.row_security.postgres import Found, look
from erp.vendor_clients.sql.lending import Terms

SHOWN = 5
_Key = tuple[int, Endpoint, Terms, Terms]
_shared: dict[_Key, tuple[SharedDatabase, int]] = {}


class SharedDatabase(Database):
    """The connections of all tenants of one pooled server in this process; the last one to leave closes them."""

    key: _Key

    async def close(self) -> None:
        database, users = _shared.get(self.key, (self, 1))
        if database is self and users > 1:
            _shared[self.key] = (self, users - 1)
            return
        if database is self:
            _shared.pop(self.key, None)
        await super().close()


def joined(endpoint: Endpoint, readers: Terms, writers: Terms) -> SharedDatabase:
    """Return the database that other tenants of this event loop use already, or a new one; ``close`` leaves it."""
    import asyncio

    key = (id(asyncio.get_running_loop()), endpoint, readers, writers)
    database, users = _shared.get(key, (None, 0))
    if database is None:
        database = SharedDatabase(endpoint, readers=readers, writers=writers)
        database.key = key
    _shared[key] = (database, users + 1)
    return database


def prelude_for(tenant: str) -> str:
    """Return what makes a transaction the tenant's."""
    if "\0" in tenant or "\\" in tenant:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The tenant's name cannot be sent to PostgreSQL.")
    return f" SET LOCAL {SETTING} = '{tenant.replace(chr(39), chr(39) * 2)}'"


async def isolated(database: Database) -> Found:
    """Return the tables in reach.

    Raises:
        ProviderError: ``failed_precondition`` when they do not keep tenants apart.
    """
    async with database.session_for(read_only=True) as session:
        found = await look(session.connection, database.endpoint.user)
    if not found.problems and not found.isolated:
        found.problems.append("there is no table that keeps tenants apart")
    if found.problems:
        shown = "; ".join(found.problems[:SHOWN])
        rest = f" (and {len(found.problems) - SHOWN} more)" if len(found.problems) > SHOWN else ""
        message = f"Tenants would not be kept apart: {shown}{rest}. `erp db isolate` writes what is missing."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return found
