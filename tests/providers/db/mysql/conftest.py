"""Tables of MariaDB that tenants share."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from tests.conformance.live.db_mysql import VARIABLE, config
from tests.providers.db.conftest import Caller
from typer.testing import CliRunner

from erp.cli import app
from erp.errors import ProviderError
from erp.providers.db.mysql.connecting import Endpoint
from erp.providers.db.mysql.pooled import PREFIX
from erp.providers.db.mysql.provider import MysqlDatabase
from erp.providers.db.mysql.tenant_database import logins_of
from erp.runtime.spi import OpenContext

PASSWORD = "of-the-layers-user"
TENANT = "varchar(63) collate utf8mb4_bin not null"
TABLES = (
    (
        f"create table stock (tenant {TENANT}, sku varchar(20) not null, quantity int not null default 0, note varchar(40),"
        " primary key (tenant, sku), key by_quantity (tenant, quantity))"
    ),
    (
        f"create table line (tenant {TENANT}, id int not null, sku varchar(20), primary key (tenant, id),"
        " constraint of_stock foreign key (tenant, sku) references stock (tenant, sku)) engine = InnoDB"
    ),
    "create table currency (code char(3) primary key)",
    "create table secret (body text)",
    "insert into currency values ('EUR'), ('USD')",
    "insert into stock values ('acme', 'A', 1, 'acme one'), ('acme', 'B', 2, null), ('rival', 'A', 100, 'rival one')",
    "insert into secret values ('of the operator')",
)
STOCK = "select tenant, sku, quantity, note from stock order by 1, 2"


@dataclasses.dataclass
class Shop:
    """A database whose tables tenants share, and the server's owner."""

    name: str
    owner: Any
    open_context: OpenContext
    call_context: Any
    callers: list[Caller] = dataclasses.field(default_factory=list)

    @property
    def role(self) -> str:
        return f"{self.name}_app"

    @property
    def settings(self) -> dict[str, Any]:
        own = {"mode": "pooled", "database": f"{self.name}_pooled", "user": self.role, "password": PASSWORD}
        return {**config(os.environ[VARIABLE]), **own}

    async def run(self, *statements: str) -> list[Any]:
        cursor = self.owner.cursor()
        for statement in statements:
            await cursor.execute(statement)
        return list(await cursor.fetchall())

    async def isolate(self, *words: str) -> Any:
        address = os.environ[VARIABLE].partition("?")[0] + "?tls=disable"
        command = ["db", "isolate", "--dialect", "mysql", "--schema", self.name, "--role", self.role, *words]
        return await asyncio.to_thread(CliRunner().invoke, app, command, env={"ERP_ISOLATE_URL": address})

    async def caller(self, tenant: str, **settings: Any) -> Caller:
        place = dataclasses.replace(self.open_context, tenant=tenant)
        database = MysqlDatabase({**self.settings, **settings}, place)
        made = Caller(database, self.call_context(tenant=tenant, seconds=60))
        self.callers.append(made)
        await database.open()
        return made

    def logins(self, tenant: str) -> list[Endpoint]:
        endpoint = Endpoint.of(self.settings)
        return [dataclasses.replace(login, database=endpoint.database) for login in logins_of(endpoint, tenant, PREFIX)]


@pytest.fixture
async def bare(open_context: OpenContext, call_context: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """The tables as they were before anybody thought of tenants sharing them."""
    if not os.environ.get(VARIABLE):
        pytest.skip(f"db/mysql needs {VARIABLE}")
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
    owner = await Endpoint.of(config(os.environ[VARIABLE])).connect(read_only=False)
    shop = Shop(f"shop_{uuid.uuid4().hex[:8]}", owner, open_context, call_context)
    try:
        await shop.run(f"create database {shop.name} character set utf8mb4", f"use {shop.name}", *TABLES)
        await shop.run(f"create user '{shop.role}'@'%' identified by '{PASSWORD}'")
        yield shop
    finally:
        await removed(shop)


async def removed(shop: Shop) -> None:
    """Leave nothing behind on the server."""
    for caller in shop.callers:
        await caller.database.close()
    logins = [login.user for tenant in ("acme", "rival") for login in shop.logins(tenant)]
    await shop.run(*(f"drop user if exists '{login}'@'%'" for login in [*logins, shop.role]))
    await shop.run(f"drop database if exists {shop.name}_pooled", f"drop database if exists {shop.name}")
    shop.owner.close()


@pytest.fixture
async def shop(bare: Shop) -> Shop:
    """The same, isolated."""
    done = await bare.isolate("stock", "line", "--shared", "currency", "--apply", "--check")
    assert done.exit_code == 0, done.output
    return bare


async def refusal(work: Awaitable[Any]) -> ProviderError:
    with pytest.raises(ProviderError) as refused:
        await work
    return refused.value
