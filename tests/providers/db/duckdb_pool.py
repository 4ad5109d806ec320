"""A DuckDB file that tenants share, and its callers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
from tests.providers.db.conftest import Caller

from erp.providers.db.duckdb.place import SHARED_FOLDER
from erp.providers.db.duckdb.provider import DuckdbDatabase
from erp.runtime.spi import OpenContext

SCHEMA = """
create table orders (org varchar not null, id integer not null, total integer, note varchar, primary key (org, id));
create table line (org varchar not null, id integer not null, order_id integer, sku varchar, amount decimal(10, 2) default 1.5,
                   primary key (org, id), check (id <> 666));
create table secret (a varchar);
insert into secret values ('operator');
create view leak as select * from orders;
create macro peek() as table select * from main.orders;
create table erp_isolation (table_name varchar primary key, tenant_column varchar not null);
insert into erp_isolation values ('orders', 'org'), ('line', 'org');
"""
ROWS = """
insert into orders values ('acme', 1, 10, 'acme one'), ('acme', 2, 20, 'acme two'),
                          ('globex', 1, 77, 'globex one'), ('globex', 2, 88, 'globex two'), ('globex', 9, 99, 'globex nine');
insert into line values ('acme', 1, 1, 'acme-a', 1), ('globex', 1, 1, 'globex-a', 2), ('globex', 2, 9, 'globex-b', 3);
"""


def pool_path(context: OpenContext) -> Path:
    return context.shared_dir / SHARED_FOLDER / "main.duckdb"


def make_pool(context: OpenContext, script: str = SCHEMA + ROWS) -> Path:
    """Make the shared file as an operator would."""
    path = pool_path(context)
    path.parent.mkdir(exist_ok=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute(script)
    return path


def everything(database: Any) -> dict[str, list[Any]]:
    """Return all rows and definitions of the shared file that ``database`` has open, past every rule."""
    with database._root._file.cursor() as connection:
        named = "select table_name from duckdb_tables() where not temporary order by 1"
        names = [row[0] for row in connection.execute(named).fetchall()]
        found = {name: sorted(connection.execute(f'from main."{name}"').fetchall(), key=repr) for name in names}
        found["sql"] = connection.execute(
            "select sql from duckdb_tables() union all select sql from duckdb_views() where not internal order by 1"
        ).fetchall()
    return found


async def open_for(context: OpenContext, call_context: Any, tenant: str, **config: Any) -> Caller:
    """Open the shared file as ``tenant``."""
    database = DuckdbDatabase({"mode": "pooled", "file": "main", **config}, replace(context, tenant=tenant))
    await database.open()
    return Caller(database, call_context(tenant=tenant, seconds=30))
