"""A database of its own for each test on a live server, owned by a role that is no superuser."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from tests.providers.db import conftest as embedded

from erp.providers.db.postgres.provider import PostgresDatabase
from erp.runtime.context import Actor
from erp.runtime.spi import OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

VARIABLES = ("ERP_TEST_PGVECTOR", "ERP_TEST_POSTGRES")
PASSWORD = "a-password-of-tests"

Open = Callable[..., Awaitable[PostgresDatabase]]


@dataclass
class Caller(embedded.Caller):
    """One actor of one tenant, calling an open PostgreSQL."""

    database: Any

    async def returned(self, sql: str) -> list[list[Any]]:
        """Rows that a change returns."""
        rows = (await self.execute(sql)).rows
        assert isinstance(rows, list)
        return rows


@dataclass(frozen=True)
class Server:
    """A database on a live server, with the superuser's hands."""

    url: str
    owner: str

    @property
    def config(self) -> dict[str, Any]:
        """With which its owner connects."""
        url = urlsplit(self.url)
        return {
            "host": url.hostname, "port": url.port, "database": url.path.lstrip("/"), "user": self.owner,
            "password": PASSWORD, "tls": "disable",
        }  # fmt: skip

    @property
    def admin(self) -> dict[str, Any]:
        """With which the superuser connects."""
        url = urlsplit(self.url)
        return {**self.config, "user": unquote(url.username or ""), "password": unquote(url.password or "")}

    async def run(self, *statements: str) -> None:
        async with self.connected() as connection:
            for statement in statements:
                await connection.execute(statement)

    async def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        async with self.connected() as connection:
            return [tuple(row) for row in await connection.fetch(sql, *arguments)]

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        import asyncpg

        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()

    async def backends(self, user: str, text: str = "%") -> list[int]:
        """Processes of the server that work for ``user`` at a statement like ``text``."""
        sql = "select pid from pg_stat_activity where usename = $1 and datname = current_database() and query like $2"
        return [row[0] for row in await self.rows(sql, user, text)]

    async def kill(self, user: str, text: str = "%") -> int:
        pids = await self.backends(user, text)
        await self.rows("select pg_terminate_backend(pid) from unnest($1::int[]) as pid", pids)
        return len(pids)


@pytest.fixture(autouse=True)
def _reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "127.0.0.1/32")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A new database with an owner of its own; both are gone after the test."""
    import asyncpg

    address = next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None)
    if address is None:
        pytest.skip(f"needs PostgreSQL: set {' or '.join(VARIABLES)}")
    name = f"erp_test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(address)
    try:
        await admin.execute(f"create role {name} login password '{PASSWORD}'")
        await admin.execute(f"create database {name} owner {name}")
        yield Server(urlsplit(address)._replace(path=f"/{name}").geturl(), name)
    finally:
        await admin.execute(f"drop database if exists {name} with (force)")
        for (role,) in await admin.fetch("select rolname from pg_roles where rolname like $1", f"{name}%"):
            await admin.execute(f"drop role {role}")
        await admin.close()


@pytest.fixture
async def open_database(server: Server, open_context: OpenContext) -> AsyncIterator[Open]:
    """A maker of open databases for ``tenant`` with ``settings``; they are closed after the test."""
    opened: list[PostgresDatabase] = []

    async def make(*, tenant: str = "acme", **settings: Any) -> PostgresDatabase:
        made = PostgresDatabase({**server.config, **settings}, dataclasses.replace(open_context, tenant=tenant))
        opened.append(made)
        await made.open()
        return made

    yield make
    for one in opened:
        await one.close()


@pytest.fixture
async def caller(open_database: Open, call_context: Any) -> Caller:
    """The actor that most tests speak for, with a table ``stock`` of S0 to S4 in the database."""
    made = Caller(await open_database(), call_context(seconds=20))
    await made.execute("create table stock (sku text primary key, quantity integer not null check (quantity >= 0))")
    await made.batch(*(f"insert into stock values ('S{number}', {number})" for number in range(5)))
    return made


def calling(database: PostgresDatabase, call_context: Any, *, tenant: str = "acme", name: str = "key_1") -> Caller:
    """Return an actor of ``tenant`` that calls ``database``."""
    context = call_context(tenant=tenant, seconds=20, actor=Actor(id=name, tenant=tenant))
    return Caller(database, context)
