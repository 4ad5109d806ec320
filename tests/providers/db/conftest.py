"""An open embedded database, and short ways to ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from erp.contracts.models import db as api
from erp.providers.db.sqlite.provider import SqliteDatabase
from erp.runtime.context import Actor, CallContext
from erp.runtime.spi import OpenContext


@dataclass
class Caller:
    """One actor of one tenant, calling an open database."""

    database: SqliteDatabase
    context: CallContext

    async def begin(self, **facts: Any) -> str:
        return (await self.database.begin(api.BeginRequest(**facts), self.context)).transaction

    async def execute(self, sql: str, *parameters: Any, **facts: Any) -> api.ExecuteResult:
        request = api.ExecuteRequest(sql=sql, parameters=list(parameters), **facts)
        return await self.database.execute(request, self.context)

    async def batch(self, *statements: str, **facts: Any) -> list[int]:
        request = api.ExecuteBatchRequest(statements=[api.Statement(sql=sql) for sql in statements], **facts)
        return [effect.rows_affected for effect in (await self.database.execute_batch(request, self.context)).results]

    async def query(self, sql: str, *parameters: Any, **facts: Any) -> api.QueryResult:
        request = api.QueryRequest(sql=sql, parameters=list(parameters), **facts)
        return await self.database.query(request, self.context)

    async def rows(self, sql: str, *parameters: Any, **facts: Any) -> list[list[Any]]:
        return (await self.query(sql, *parameters, **facts)).rows

    async def commit(self, transaction: str) -> None:
        assert (await self.database.commit(api.CommitRequest(transaction=transaction), self.context)).done

    async def rollback(self, transaction: str, **facts: Any) -> None:
        request = api.RollbackRequest(transaction=transaction, **facts)
        assert (await self.database.rollback(request, self.context)).done

    async def savepoint(self, transaction: str, name: str) -> None:
        request = api.SavepointRequest(transaction=transaction, savepoint=name)
        assert (await self.database.savepoint(request, self.context)).done


def actor(name: str, tenant: str = "acme") -> Actor:
    return Actor(id=name, tenant=tenant)


@pytest.fixture
async def opened(open_context: OpenContext, request: pytest.FixtureRequest) -> AsyncIterator[SqliteDatabase]:
    """An open database; a test's ``config`` marker-free configuration comes by indirect parameters."""
    made = SqliteDatabase(getattr(request, "param", {}), open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def caller(opened: SqliteDatabase, call_context: Any) -> Caller:
    """The actor that most tests speak for, with a table ``stock`` of S0 to S4 in the database."""
    made = Caller(opened, call_context(seconds=20))
    await made.execute("create table stock (sku text primary key, quantity integer not null check (quantity >= 0))")
    await made.batch(*(f"insert into stock values ('S{number}', {number})" for number in range(5)))
    return made
