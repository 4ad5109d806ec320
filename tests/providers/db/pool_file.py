"""A file that tenants share, and its callers."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.providers.db.conftest import Caller

from erp.providers.db.sqlite.place import SHARED_FOLDER
from erp.providers.db.sqlite.provider import SqliteDatabase
from erp.runtime.spi import OpenContext

SCHEMA = """
create table orders (org text not null, id integer not null, total integer, note text, primary key (org, id));
create index orders_total on orders (org, total);
create table line (org text not null, id integer not null, order_id integer, sku text, primary key (org, id),
                   foreign key (org, order_id) references orders (org, id) on delete cascade);
create table secret (a);
insert into secret values ('operator');
create table erp_isolation (table_name text primary key, tenant_column text not null);
insert into erp_isolation values ('orders', 'org'), ('line', 'org');
"""
ROWS = """
insert into orders values ('acme', 1, 10, 'acme one'), ('acme', 2, 20, 'acme two'),
                          ('globex', 1, 77, 'globex one'), ('globex', 2, 88, 'globex two'), ('globex', 9, 99, 'globex nine');
insert into line values ('acme', 1, 1, 'acme-a'), ('globex', 1, 1, 'globex-a'), ('globex', 2, 9, 'globex-b');
"""


def pool_path(context: OpenContext) -> Path:
    return context.shared_dir / SHARED_FOLDER / "main.sqlite3"


def make_pool(context: OpenContext, script: str = SCHEMA + ROWS) -> Path:
    """Make the shared file as an operator would."""
    path = pool_path(context)
    path.parent.mkdir(exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    return path


def everything(path: Path) -> dict[str, list[Any]]:
    """Return all rows of the shared file, past every rule."""
    connection = sqlite3.connect(path)
    names = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
    found = {name: sorted(connection.execute(f'select * from "{name}"').fetchall(), key=repr) for name in names}
    found["sqlite_master"] = connection.execute("select name, sql from sqlite_master order by 1").fetchall()
    connection.close()
    return found


async def open_for(context: OpenContext, call_context: Any, tenant: str, **config: Any) -> Caller:
    """Open the shared file as ``tenant``."""
    database = SqliteDatabase({"mode": "pooled", "file": "main", **config}, replace(context, tenant=tenant))
    await database.open()
    return Caller(database, call_context(tenant=tenant, seconds=20))
