"""``erp db isolate``: what makes an engine keep the tenants of shared tables apart, and whether it does."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from erp.vendor_clients.row_security.names import TableName


class Dialect(StrEnum):
    """Engines of which tenants can share tables."""

    postgres = "postgres"
    mssql = "mssql"
    mysql = "mysql"
    duckdb = "duckdb"
    sqlite = "sqlite"


FILES = {Dialect.duckdb, Dialect.sqlite}
"""Engines of one file each, which have no roles."""
USUAL_SCHEMAS = {Dialect.postgres: "public", Dialect.mssql: "dbo", Dialect.duckdb: "main", Dialect.sqlite: "main"}
"""In which tables are that are named without one."""


def isolate(
    tables: Annotated[
        list[str] | None,
        typer.Argument(help="table or schema.table; each has the tenant's column.", show_default=False),
    ] = None,
    *,
    role: Annotated[str, typer.Option(help="As which the layer connects; owns nothing. Files have none.")] = "",
    column: Annotated[str, typer.Option(help="The tenant's column: text.")] = "tenant",
    shared: Annotated[
        list[str] | None,
        typer.Option(help="A table of which all tenants may read all rows; can be repeated.", show_default=False),
    ] = None,
    collection: Annotated[
        list[str] | None,
        typer.Option(help="NAME:DIMENSIONS of vectors to make a shared table for.", show_default=False),
    ] = None,
    schema: Annotated[
        str,
        typer.Option(help="Of tables without one: public, for mssql dbo, for mysql the database.", show_default=False),
    ] = "",
    dialect: Annotated[Dialect, typer.Option(help="Whose statements.")] = Dialect.postgres,
    apply: Annotated[bool, typer.Option("--apply", help="Run the statements; all or none but for mysql.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Look whether tenants are kept apart.")] = False,
) -> None:
    """Print, run or check what keeps the tenants of shared tables apart.

    The address of --apply and --check, of an owner of the tables, is in the variable ERP_ISOLATE_URL; for files it is duckdb:///FILE or sqlite:///FILE.

    Example: erp db isolate orders sales.items --column tenant --role erp_app --apply --check
    """
    schema = _schema(dialect, role, schema)
    try:
        named = [*_named(tables, schema)], [*_named(shared, schema)], collection or []
        statements = _statements(dialect, *named, (schema, column, role))
    except ValueError as error:
        _fail(str(error))
    if not statements and not check:
        _fail("name a table, or --check")
    if not apply and statements:
        end = "\nGO" if dialect is Dialect.mssql else ";"
        typer.echo("\n".join(f"{statement}{end}" for statement in statements))
    if apply or check:
        _hold(dialect, statements if apply else [], (schema, role), check=check)


def _schema(dialect: Dialect, role: str, schema: str) -> str:
    """Return the schema of tables that are named without one; refuse a missing role where there are roles."""
    if not role and dialect not in FILES:
        _fail("name the role as which the layer connects: --role")
    found = schema or USUAL_SCHEMAS.get(dialect, "")
    if not found:
        _fail(f"name the database of the tables: --schema; {dialect} has no usual one")
    return found


def _hold(dialect: Dialect, statements: list[str], names: tuple[str, str], *, check: bool) -> None:
    """Run and check on the server; end with status 1 when something is wrong."""
    try:
        problems = _problems(dialect, statements, names, check=check)
    except ModuleNotFoundError as error:
        _fail(f"--dialect {dialect} needs the module {error.name!r}: pip install 'erp-provider-layer[{dialect}]'")
    for problem in problems:
        typer.echo(f"erp: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
    role = names[1]
    kept = f"{role} reaches only what keeps tenants apart" if role else "the listed tables keep tenants apart"
    typer.echo(kept if check else "applied", err=True)


def _problems(dialect: Dialect, statements: list[str], names: tuple[str, str], *, check: bool) -> list[str]:
    from erp.cli.db.duckdb_file import on_duckdb
    from erp.cli.db.mssql_server import on_mssql
    from erp.cli.db.servers import on_mariadb, on_postgres
    from erp.cli.db.sqlite_file import on_sqlite

    schema, role = names
    if dialect is Dialect.sqlite:
        return on_sqlite(statements, check=check)
    if dialect is Dialect.duckdb:
        return on_duckdb(statements, check=check)
    if dialect is Dialect.mssql:
        return on_mssql(statements, role, check=check)
    if dialect is Dialect.mysql:
        return asyncio.run(on_mariadb(statements, schema, check=check))
    return asyncio.run(on_postgres(statements, role, check=check))


def _named(tables: list[str] | None, schema: str) -> list[TableName]:
    from erp.vendor_clients.row_security.names import TableName

    return [TableName.parse(text, schema) for text in tables or ()]


def _statements(
    dialect: Dialect,
    isolated: list[TableName],
    shared: list[TableName],
    collections: list[str],
    names: tuple[str, str, str],
) -> list[str]:
    from erp.vendor_clients.row_security import mssql, postgres

    schema, column, role = names
    if dialect is Dialect.mysql:
        return _mariadb_statements(isolated, shared, collections, names)
    if dialect in FILES:
        return _file_statements(dialect, isolated, [*shared, *collections], (schema, column))
    if dialect is Dialect.mssql:
        if shared or collections:
            message = "--shared and --collection are not for mssql"
            raise ValueError(message)
        made = mssql.preparing() if isolated else []
        return made + [one for table in isolated for one in mssql.isolating(table, column, role)]
    made = [one for table in isolated for one in postgres.isolating(table, column, role)]
    made += [one for table in shared for one in postgres.sharing(table, role)]
    return made + [one for text in collections for one in _collection(text, schema, role)]


def _mariadb_statements(
    isolated: list[TableName], shared: list[TableName], collections: list[str], names: tuple[str, str, str]
) -> list[str]:
    from erp.vendor_clients.row_security import mysql

    schema, column, role = names
    if collections or {table.schema for table in (*isolated, *shared)} - {schema}:
        message = "--collection is for postgres" if collections else f"all tables have to be in {schema}: say --schema"
        raise ValueError(message)
    made = mysql.preparing(schema, role) if isolated or shared else []
    made += [one for table in isolated for one in mysql.isolating(table, column, role)]
    return made + [one for table in shared for one in mysql.sharing(table, role)]


def _file_statements(
    dialect: Dialect, isolated: list[TableName], others: list[TableName | str], names: tuple[str, str]
) -> list[str]:
    from erp.vendor_clients.row_security import duckdb, sqlite

    schema, column = names
    if others or {table.schema for table in isolated} - {schema, "main"}:
        message = f"--shared and --collection are not for {dialect}" if others else "all tables have to be in main"
        raise ValueError(message)
    listing = sqlite.listing if dialect is Dialect.sqlite else duckdb.listing
    return list(dict.fromkeys(one for table in isolated for one in listing(table.name, column)))


def _collection(text: str, schema: str, role: str) -> list[str]:
    from erp.vendor_clients.row_security import postgres
    from erp.vendor_clients.row_security.names import TableName, collection_table

    name, _, dimensions = text.partition(":")
    if not name or not dimensions.isdigit():
        message = f"{text!r} is not NAME:DIMENSIONS, such as notes:384"
        raise ValueError(message)
    return postgres.collecting(TableName(schema, collection_table(name)), role, int(dimensions))


def _fail(message: str) -> NoReturn:
    typer.echo(f"erp: {message}", err=True)
    raise typer.Exit(2)
