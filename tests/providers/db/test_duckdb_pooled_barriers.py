"""Each barrier of a shared DuckDB file holds alone; for the rewriting, and all together, see ``test_duckdb_pooled_chance.py``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from tests.providers.db.conftest import Caller
from tests.providers.db.corpus import Corpus, text
from tests.providers.db.duckdb_pool import everything, make_pool, open_for

from erp.errors import ProviderError
from erp.providers.db.duckdb.pooled import Own
from erp.runtime.spi import OpenContext

CORPUS = Corpus("duckdb_pooled")
SILOED = Corpus("duckdb")
MARK = "globex"


@pytest.fixture
async def acme(open_context: OpenContext, call_context: Any) -> AsyncIterator[Caller]:
    make_pool(open_context)
    made = await open_for(open_context, call_context, "acme")
    yield made
    await made.database.close()


async def refusal(attempt: Coroutine[Any, Any, Any]) -> ProviderError | None:
    try:
        await attempt
    except ProviderError as error:
        return error
    return None


# -- all barriers together -------------------------------------------------------------------------


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    CORPUS.require(150)


@pytest.mark.anyio
@pytest.mark.parametrize("action", ["query", "execute"])
async def test_a_hostile_statement_is_refused_and_nothing_changes(acme: Caller, action: str) -> None:
    before = everything(acme.database)
    for kind, entries in CORPUS.kinds[action].items():
        for entry in entries:
            sql = text(entry)
            error = await refusal(acme.rows(sql) if action == "query" else acme.execute(sql))
            assert error is not None, (kind, sql[:100])
            assert error.code == "invalid_argument", (kind, sql[:100], error)
            shown = repr(error) + str(error.detail) + repr(error.errors)
            assert MARK not in shown.replace(sql, "") or MARK in sql, (kind, sql[:100])
    assert everything(acme.database) == before
    assert await acme.rows("select count(*) from orders") == [[2]]


@pytest.mark.anyio
async def test_what_is_refused_in_a_file_of_ones_own_is_refused_in_a_shared_one(acme: Caller) -> None:
    before = everything(acme.database)
    for kind, entries in SILOED.kinds["query"].items():
        if kind.startswith("too"):
            continue
        for entry in entries:
            sql = text(entry).replace("stock", "orders").replace("sku", "id").replace("quantity", "total")
            error = await refusal(acme.rows(sql))
            assert error is not None, (kind, sql[:100])
    assert everything(acme.database) == before


@pytest.mark.anyio
@pytest.mark.parametrize(
    "sql",
    [
        "select * from orders where cast(case when note like 'globex%' then 'x' else '1' end as integer) = 1",
        "select sum(cast(case when total > 50 then note else '1' end as integer)) from orders",
        "select * from orders order by cast(case when total > 50 then note else '1' end as integer)",
        "select * from orders o join line l on l.id = cast(case when o.total > 50 then o.note else '1' end as integer)",
    ],
)
async def test_no_expression_is_evaluated_on_another_tenants_row(acme: Caller, sql: str) -> None:
    await acme.rows(sql)


# -- the tenant's engine alone ---------------------------------------------------------------------


async def unwritten(caller: Caller, sql: str, target: str | None = None) -> list[Any]:
    """Run ``sql`` as it is in the tenant's engine, with every table of the tenant carried there."""
    database: Any = caller.database

    def work(handle: Any) -> list[Any]:
        with_names = f"{sql} /* erp_held_orders erp_held_line */"
        (statement,) = handle.extract_statements(with_names)
        handle.execute(statement, Own({}, target))
        return list(handle.fetchmany(1000))

    async with database._sessions.lent() as session:
        result: list[Any] = await session.run(session.changing(work), is_change=True)
    return result


UNWRITTEN_QUERIES = {
    "from erp_held_orders order by id": [("acme", 1, 10, "acme one"), ("acme", 2, 20, "acme two")],
    "select count(*) from erp_held_orders where org <> 'acme' or true": [(2,)],
    "select * from temp.main.erp_held_line": [("acme", 1, 1, "acme-a", 1)],
    "select table_name from duckdb_tables() order by 1": [("erp_held_line",), ("erp_held_orders",)],
    "select view_name from duckdb_views() where not internal": [],
    "select database_name, path from duckdb_databases() where not internal": [("memory", None)],
    "select * from query('select count(*) from erp_held_orders')": [(2,)],
    "select * from main.orders": None,
    "select * from main.main.orders": None,
    "select * from secret": None,
    "select * from leak": None,
    "select * from peek()": None,
    "select * from erp_arriving": None,
    "select * from erp_isolation": None,
    "from query('from secret')": None,
    "from read_text('/etc/passwd')": None,
    "copy erp_held_orders to '/tmp/evil'": None,
    "set enable_external_access = true": None,
    "install httpfs": None,
}


@pytest.mark.anyio
@pytest.mark.parametrize(("sql", "rows"), UNWRITTEN_QUERIES.items())
async def test_the_tenants_engine_alone_has_nothing_but_the_tenants_rows(
    acme: Caller, sql: str, rows: list[Any] | None
) -> None:
    if rows is None:
        assert await refusal(unwritten(acme, sql)) is not None
    else:
        assert await unwritten(acme, sql) == rows


@pytest.mark.anyio
async def test_the_tenants_engine_cannot_attach_the_shared_file(acme: Caller, open_context: OpenContext) -> None:
    path = next(open_context.shared_dir.rglob("main.duckdb"))
    assert await refusal(unwritten(acme, f"attach '{path}' as pool")) is not None
    assert await refusal(unwritten(acme, f"attach '{path}' as pool (read_only)")) is not None
    assert await refusal(unwritten(acme, f"from read_blob('{path}')")) is not None


UNWRITTEN_CHANGES = [
    "update orders set total = 0",
    "update orders set total = 0 where org = 'globex' or true",
    "update orders set org = 'globex'",
    "update orders set org = 'globex', id = 9",
    "delete from orders",
    "delete from orders where org = 'globex'",
    "insert into orders values ('globex', 70, 1, 'x')",
    "insert into orders values ('acme', 70, 1, 'x'), ('globex', 70, 1, 'x')",
    "insert or replace into orders values ('globex', 1, 0, 'x')",
    "insert into orders values ('globex', 1, 0, 'x') on conflict do update set total = 0",
    "insert into erp_held_orders values ('globex', 9, 1, 'x')",
    "insert into erp_held_orders values ('acme', 9, 1, 'x')",
    "merge into orders using erp_held_line on true when matched then delete",
    "truncate orders",
    "drop table orders",
    "create table secret as select 1",
]


@pytest.mark.anyio
@pytest.mark.parametrize("sql", UNWRITTEN_CHANGES)
async def test_a_change_that_was_not_rewritten_never_reaches_another_tenants_row(acme: Caller, sql: str) -> None:
    before = everything(acme.database)
    await refusal(unwritten(acme, sql, "orders"))
    after = everything(acme.database)
    assert [row for row in after["orders"] if row[0] != "acme"] == [r for r in before["orders"] if r[0] != "acme"]
    assert {name: rows for name, rows in after.items() if name != "orders"} == {
        name: rows for name, rows in before.items() if name != "orders"
    }


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("insert into orders values ('globex', 70, 1, 'x')", "rows of another tenant"),
        ("update orders set org = 'globex'", "rows of another tenant"),
        ("insert into erp_held_orders values ('acme', 9, 1, 'x')", "changed meanwhile"),
    ],
)
async def test_what_comes_back_is_checked_before_it_is_kept(acme: Caller, sql: str, why: str) -> None:
    before = everything(acme.database)
    with pytest.raises(ProviderError, match=why):
        await unwritten(acme, sql, "orders")
    assert everything(acme.database) == before


# -- the engine that has the file ------------------------------------------------------------------


class Overheard:
    """The connection to the shared file, writing down whatever is asked of it."""

    def __init__(self, handle: Any, texts: set[str]) -> None:
        self._handle = handle
        self._texts = texts

    def execute(self, sql: Any, *values: Any) -> Any:
        self._texts.add(str(sql))
        return self._handle.execute(sql, *values)

    def sql(self, sql: str, **values: Any) -> Any:
        self._texts.add(sql)
        return self._handle.sql(sql, **values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


@pytest.mark.anyio
async def test_no_word_of_a_caller_reaches_the_engine_that_has_the_file(acme: Caller) -> None:
    database: Any = acme.database
    texts: set[str] = set()
    async with database._sessions.lent() as session:
        session._handle._file = Overheard(session._handle._file, texts)
    for sql in ("select * from orders o, line where o.note <> 'zebra'", "select 'zebra' from orders"):
        await acme.rows(sql)
    for sql in (
        "insert into orders (id, note) values (80, 'zebra')",
        "update orders set note = 'zebra' || id where note <> 'zebra' or true",
        "insert into orders (id) values (81) on conflict (id) do update set note = 'zebra'",
        "delete from orders where note like 'zebra%' and id > 2",
    ):
        assert (await acme.execute(sql)).rows_affected > 0
    tables = database._root.tables.values()
    fixed = {each() for table in tables for each in (table.own_rows, table.add, table.remove, table.alter)}
    assert texts == (texts & fixed) | {"BEGIN TRANSACTION READ ONLY", "ROLLBACK", "BEGIN TRANSACTION", "COMMIT"}
    assert len(texts & fixed) == 5


# -- tenants beside each other ---------------------------------------------------------------------


@pytest.mark.anyio
async def test_tenants_change_the_same_table_at_the_same_time_without_hindering_each_other(
    acme: Caller, open_context: OpenContext, call_context: Any
) -> None:
    globex = await open_for(open_context, call_context, "globex")
    calls = [
        caller.execute(sql)
        for number in range(100, 120)
        for caller in (acme, globex)
        for sql in (
            f"insert into orders (id, total) values ({number}, 1)",
            "update orders set total = coalesce(total, 0) + 1",
        )
    ]
    await asyncio.gather(*calls)
    for caller, count in ((acme, 22), (globex, 23)):
        assert await caller.rows("select count(*) from orders") == [[count]]
    assert await acme.rows("select total from orders where id = 1") == [[10 + 20]]
    await globex.database.close()


@pytest.mark.anyio
async def test_an_open_transaction_of_one_tenant_hinders_no_other(
    acme: Caller, open_context: OpenContext, call_context: Any
) -> None:
    globex = await open_for(open_context, call_context, "globex")
    handle = await acme.begin()
    for sql in ("update orders set total = 1", "delete from line", "insert into orders (id) values (9)"):
        await acme.execute(sql, transaction=handle)
    assert await globex.batch(
        "update orders set total = 2", "delete from line", "insert into orders (id) values (10)"
    ) == [3, 2, 1]
    await acme.commit(handle)
    assert [await caller.rows("select count(*), sum(total) from orders") for caller in (acme, globex)] == [
        [[3, 2]],
        [[4, 6]],
    ]
    await globex.database.close()


@pytest.mark.anyio
async def test_a_tenant_with_an_odd_name_is_a_value_and_nothing_else(
    open_context: OpenContext, call_context: Any, acme: Caller
) -> None:
    for name in ("acme' or '1'='1", "ACME", "acme ", "\u0430cme", "acme\x00"):
        odd = await open_for(open_context, call_context, name)
        assert await odd.rows("select count(*) from orders") == [[0]]
        await odd.execute("insert into orders (id) values (1)")
        assert await odd.rows("select id from orders") == [[1]]
        await odd.database.close()
    assert await acme.rows("select count(*) from orders") == [[2]]
