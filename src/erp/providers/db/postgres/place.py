"""Where a tenant's rows are, and by which rules: a database of its own, a schema of its own, or tables that are shared."""

from __future__ import annotations

from dataclasses import dataclass

from erp.providers.db.postgres.catalogue import Catalogue
from erp.providers.db.postgres.connecting import Endpoint
from erp.providers.db.postgres.database import Database
from erp.providers.db.postgres.statements import Statements, place_of
from erp.runtime.spi import Config
from erp.vendor_clients.sql.lending import Terms

HIDDEN_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Place:
    """A database as one tenant sees it."""

    database: Database
    statements: Statements
    catalogue: Catalogue
    prelude: str = ""
    """What is run at the beginning of each transaction; without it, none is needed for a single statement."""


def terms_of(config: Config, key: str) -> Terms:
    """Return how connections of one kind are lent."""
    return Terms(size=config.get(key, 8), wait_seconds=config.get("wait_seconds", 5.0), idle_seconds=HIDDEN_SECONDS)


async def opened(config: Config, tenant: str) -> Place:
    """Open the place that ``config`` describes.

    Raises:
        ProviderError: when it cannot be reached, or is not what the mode asks for.
    """
    endpoint = Endpoint.of(config)
    mode = config.get("mode", "siloed")
    schema = config.get("schema", "public")
    if mode == "schema":
        from erp.providers.db.postgres.tenant_schema import prepared

        endpoint = await prepared(endpoint, tenant)
        schema = endpoint.user
    database = Database(endpoint, readers=terms_of(config, "readers"), writers=terms_of(config, "writers"))
    try:
        await database.open()
    except BaseException:
        await database.close()
        raise
    named = config.get("tables")
    tables = None if named is None else frozenset(place_of(name, schema) for name in named)
    schemas = (schema,) if schema == "public" else (schema, "public")
    statements = Statements(schemas, functions=config.get("functions", ()), tables=tables)
    return Place(database, statements, Catalogue(schemas, tables))
