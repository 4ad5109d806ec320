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
    if config.get("mode") == "pooled":
        return await _pooled(config, tenant)
    endpoint = Endpoint.of(config)
    schema = config.get("schema", "public")
    if config.get("mode") == "schema":
        from erp.providers.db.postgres.tenant_schema import prepared

        endpoint = await prepared(endpoint, tenant)
        schema = endpoint.user
    database = Database(endpoint, readers=terms_of(config, "readers"), writers=terms_of(config, "writers"))
    await _tried(database)
    named = config.get("tables")
    tables = None if named is None else frozenset(place_of(name, schema) for name in named)
    schemas = _searched(schema)
    statements = Statements(schemas, functions=config.get("functions", ()), tables=tables)
    return Place(database, statements, Catalogue(schemas, tables))


async def _pooled(config: Config, tenant: str) -> Place:
    from erp.providers.db.postgres.pooled import isolated, joined, prelude_for

    prelude = prelude_for(tenant)
    database = joined(Endpoint.of(config), terms_of(config, "readers"), terms_of(config, "writers"))
    await _tried(database)
    try:
        found = await isolated(database)
    except BaseException:
        await database.close()
        raise
    tables = frozenset((table.schema, table.name) for table in (*found.isolated, *found.shared))
    named = config.get("tables")
    schema = config.get("schema", "public")
    if named is not None:
        tables &= {place_of(name, schema) for name in named}
    schemas = _searched(schema)
    statements = Statements(schemas, functions=config.get("functions", ()), tables=tables)
    return Place(
        database, statements, Catalogue(sorted({place[0] for place in tables}), tables, is_shared=True), prelude
    )


async def _tried(database: Database) -> None:
    try:
        await database.open()
    except BaseException:
        await database.close()
        raise


def _searched(schema: str) -> tuple[str, ...]:
    return (schema,) if schema == "public" else (schema, "public")
