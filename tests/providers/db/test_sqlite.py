"""What the embedded database promises: exact values, whole transactions, queries that cannot write."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.sqlite.provider import FILE, SqliteDatabase
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(open_context: OpenContext) -> AsyncIterator[SqliteDatabase]:
    made = SqliteDatabase({}, open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


async def run(database: SqliteDatabase, ctx: CallContext, sql: str, *parameters: Any) -> api.ExecuteResult:
    return await database.execute(api.ExecuteRequest(sql=sql, parameters=list(parameters)), ctx)


async def rows(database: SqliteDatabase, ctx: CallContext, sql: str, *parameters: Any, max_rows: int = 1000) -> Any:
    request = api.QueryRequest(sql=sql, parameters=list(parameters), max_rows=max_rows)
    return (await database.query(request, ctx)).rows


@pytest.fixture
async def stock(database: SqliteDatabase, ctx: CallContext) -> SqliteDatabase:
    await run(
        database, ctx, "create table stock (sku text primary key, quantity integer not null check (quantity >= 0))"
    )
    for number in range(5):
        await run(database, ctx, "insert into stock values (?, ?)", f"S{number}", number)
    return database


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, 1),
        (2**63 - 1, 2**63 - 1),
        (1.25, 1.25),
        ("ü\u0000🎉", "ü\u0000🎉"),
        ("", ""),
        ({"$decimal": "0.10"}, "0.10"),
        ({"$datetime": "2026-11-23T10:00:00Z"}, "2026-11-23T10:00:00Z"),
        ({"$bytes": "AP8="}, {"$bytes": "AP8="}),
    ],
)
async def test_a_value_comes_back_as_it_was_given(
    database: SqliteDatabase, ctx: CallContext, value: Any, expected: Any
) -> None:
    assert await rows(database, ctx, "select ?", value) == [[expected]]


async def test_values_without_a_form_are_all_named(database: SqliteDatabase, ctx: CallContext) -> None:
    with pytest.raises(ProviderError) as refused:
        await rows(database, ctx, "select ?, ?, ?, ?", [1], 2**63, {"$bytes": "%"}, "fine")
    assert [error.pointer for error in refused.value.errors] == [f"/params/parameters/{number}" for number in range(3)]


async def test_columns_and_limits_are_told(stock: SqliteDatabase, ctx: CallContext) -> None:
    request = api.QueryRequest(sql="select sku, quantity as q from stock order by sku", max_rows=2)
    result = await stock.query(request, ctx)
    assert [column.name for column in result.columns] == ["sku", "q"]
    assert (result.rows, result.row_count, result.truncated) == ([["S0", 0], ["S1", 1]], 2, True)
    exact = await stock.query(api.QueryRequest(sql="select * from stock", max_rows=5), ctx)
    assert exact.truncated is False


async def test_a_long_answer_is_cut_at_its_bytes(open_context: OpenContext, ctx: CallContext) -> None:
    small = SqliteDatabase({"max_result_bytes": 1024}, open_context)
    await small.open()
    sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50) select i, ? from n"
    result = await small.query(api.QueryRequest(sql=sql, parameters=["x" * 100]), ctx)
    await small.close()
    assert (result.row_count, result.truncated) == (9, True)


async def test_changes_tell_how_many_rows_and_return_what_was_asked(stock: SqliteDatabase, ctx: CallContext) -> None:
    changed = await run(stock, ctx, "update stock set quantity = quantity + 1 where quantity > ? returning sku", 2)
    assert (changed.rows_affected, changed.rows) == (2, [["S3"], ["S4"]])


async def test_a_batch_takes_effect_as_a_whole_or_not_at_all(stock: SqliteDatabase, ctx: CallContext) -> None:
    take = api.Statement(sql="update stock set quantity = quantity - 4 where sku = ?", parameters=["S4"])
    fail = api.Statement(sql="update stock set quantity = quantity - 4 where sku = ?", parameters=["S0"])
    with pytest.raises(ProviderError) as refused:
        await stock.execute_batch(api.ExecuteBatchRequest(statements=[take, fail]), ctx)
    assert refused.value.code == "failed_precondition"
    assert await rows(stock, ctx, "select quantity from stock where sku = 'S4'") == [[4]]

    done = await stock.execute_batch(api.ExecuteBatchRequest(statements=[take]), ctx)
    assert [effect.rows_affected for effect in done.results] == [1]
    assert await rows(stock, ctx, "select quantity from stock where sku = 'S4'") == [[0]]


async def test_a_batch_is_undone_when_a_statement_affects_other_rows_than_expected(
    stock: SqliteDatabase, ctx: CallContext
) -> None:
    statements = [
        api.Statement(sql="delete from stock where sku = 'S1'", expect_rows=1),
        api.Statement(sql="delete from stock where sku = 'nope'", expect_rows=1),
    ]
    with pytest.raises(ProviderError) as refused:
        await stock.execute_batch(api.ExecuteBatchRequest(statements=statements), ctx)
    assert [error.pointer for error in refused.value.errors] == ["/params/statements/1"]
    assert await rows(stock, ctx, "select count(*) from stock") == [[5]]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("insert into stock values ('S1', 1)", "already_exists"),
        ("insert into stock values ('new', -1)", "failed_precondition"),
        ("insert into stock values ('new', null)", "failed_precondition"),
        ("insert into nope values (1)", "invalid_argument"),
        ("selec 1", "invalid_argument"),
        ("insert into stock values (?, ?)", "invalid_argument"),
        ("insert into stock values ('a', 1); insert into stock values ('b', 1)", "invalid_argument"),
    ],
)
async def test_a_refused_change_says_why_and_changes_nothing(
    stock: SqliteDatabase, ctx: CallContext, sql: str, code: str
) -> None:
    with pytest.raises(ProviderError) as refused:
        await run(stock, ctx, sql)
    assert refused.value.code == code
    assert await rows(stock, ctx, "select count(*), sum(quantity) from stock") == [[5, 10]]


ATTACKS = [
    "insert into stock values ('x', 1)",
    "update stock set quantity = 99",
    "delete from stock",
    "drop table stock",
    "create table evil (a)",
    "create temp table evil (a)",
    "with x as (select 1) insert into stock select 'x', 1",
    "with x as (select 1) delete from stock",
    "replace into stock values ('S1', 99)",
    "select 1; drop table stock",
    "select 1; -- \n delete from stock",
    "/* select */ delete from stock",
    "pragma writable_schema = on",
    "pragma journal_mode = delete",
    "pragma user_version = 7",
    "pragma query_only = off",
    "attach database '/tmp/evil.db' as evil",
    "attach database ':memory:' as evil",
    "detach database main",
    "vacuum",
    "vacuum into '/tmp/evil.db'",
    "reindex",
    "analyze",
    "begin",
    "begin immediate",
    "commit",
    "rollback",
    "savepoint evil",
    "select load_extension('/tmp/evil.so')",
    "select writefile('/tmp/evil', 'x')",
    "select readfile('/etc/passwd')",
    "create view evil as select 1",
    "create trigger evil after insert on stock begin delete from stock; end",
    "alter table stock add column evil",
    "explain delete from stock; delete from stock",
    "values (1); delete from stock",
    "insert into stock select * from stock returning *",
]


@pytest.mark.parametrize("sql", ATTACKS)
async def test_a_query_that_would_change_anything_is_refused(
    stock: SqliteDatabase, ctx: CallContext, open_context: OpenContext, sql: str
) -> None:
    def state() -> str:
        return hashlib.sha256(
            b"".join(
                path.read_bytes() for path in sorted(open_context.data_dir.glob(f"{FILE}*")) if "shm" not in path.name
            )
        ).hexdigest()

    before = state()
    with pytest.raises(ProviderError) as refused:
        await rows(stock, ctx, sql)
    assert refused.value.code == "invalid_argument"
    assert state() == before
    assert await rows(stock, ctx, "select count(*), sum(quantity) from stock") == [[5, 10]]


@pytest.mark.parametrize(
    "sql",
    ["attach database '/tmp/evil.db' as e", "pragma synchronous = off", "vacuum into '/tmp/evil.db'", "commit", "begin",
     "savepoint s", "select load_extension('x')"],
)  # fmt: skip
async def test_a_change_stays_in_its_own_file_and_transaction(
    stock: SqliteDatabase, ctx: CallContext, sql: str
) -> None:
    with pytest.raises(ProviderError) as refused:
        await run(stock, ctx, sql)
    assert refused.value.code == "invalid_argument"
    assert (await run(stock, ctx, "insert into stock values ('after', 1)")).rows_affected == 1


async def test_metadata_describes_tables_keys_and_indexes(stock: SqliteDatabase, ctx: CallContext) -> None:
    await run(
        stock,
        ctx,
        "create table line (id integer primary key, sku text not null references stock (sku), n int default 1)",
    )
    await run(stock, ctx, "create unique index line_sku on line (sku, n)")
    await run(stock, ctx, "create view full as select * from line")
    tables = {table.name: table for table in (await stock.metadata(api.MetadataRequest(), ctx)).tables}

    assert {name: table.kind for name, table in tables.items()} == {"stock": "table", "line": "table", "full": "view"}
    line = tables["line"]
    assert [(column.name, column.type, column.nullable, column.default) for column in line.columns] == [
        ("id", "INTEGER", True, None),
        ("sku", "TEXT", False, None),
        ("n", "INT", True, "1"),
    ]
    assert line.primary_key == ["id"]
    assert [(index.name, index.columns, index.unique) for index in line.indexes] == [("line_sku", ["sku", "n"], True)]
    assert [(key.columns, key.table, key.references) for key in line.foreign_keys] == [(["sku"], "stock", ["sku"])]


async def test_metadata_comes_in_pages_and_knows_what_is_missing(stock: SqliteDatabase, ctx: CallContext) -> None:
    await run(stock, ctx, "create table another (a)")
    first = await stock.metadata(api.MetadataRequest(limit=1), ctx)
    second = await stock.metadata(api.MetadataRequest(limit=1, cursor=first.next_cursor), ctx)
    assert [first.tables[0].name, second.tables[0].name] == ["another", "stock"]
    with pytest.raises(ProviderError) as refused:
        await stock.metadata(api.MetadataRequest(table="nope"), ctx)
    assert refused.value.code == "not_found"


async def test_rows_are_streamed_in_parts(stock: SqliteDatabase, ctx: CallContext) -> None:
    request = api.StreamRequest(sql="select quantity from stock order by 1", rows_per_item=2)
    items = [item async for item in stock.stream(request, ctx)]
    assert [column.name for column in items[0].columns] == ["quantity"]
    assert [item.rows for item in items[1:]] == [[[0], [1]], [[2], [3]], [[4]]]


async def test_an_endless_statement_stops_when_its_call_is_cancelled(stock: SqliteDatabase, ctx: CallContext) -> None:
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await rows(stock, ctx, endless)
    assert time.monotonic() - started < 20
    results = await asyncio.gather(*(rows(stock, ctx, "select 1") for _ in range(10)))
    assert results == [[[1]]] * 10


async def test_a_cancelled_change_leaves_nothing_behind(stock: SqliteDatabase, ctx: CallContext) -> None:
    endless = (
        "insert into stock with recursive n(i) as (select 1 union all select i + 1 from n) select 'x' || i, 1 from n"
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await run(stock, ctx, endless)
    assert await rows(stock, ctx, "select count(*) from stock") == [[5]]
    assert (await run(stock, ctx, "insert into stock values ('after', 1)")).rows_affected == 1


async def test_two_hundred_calls_at_once_all_take_effect(stock: SqliteDatabase, ctx: CallContext) -> None:
    await asyncio.gather(
        *(run(stock, ctx, "update stock set quantity = quantity + 1 where sku = 'S0'") for _ in range(100)),
        *(rows(stock, ctx, "select * from stock") for _ in range(100)),
    )
    assert await rows(stock, ctx, "select quantity from stock where sku = 'S0'") == [[100]]


async def test_what_was_written_is_there_after_opening_again(
    stock: SqliteDatabase, open_context: OpenContext, ctx: CallContext
) -> None:
    await stock.close()
    await stock.close()
    again = SqliteDatabase({}, open_context)
    await again.open()
    assert await rows(again, ctx, "select count(*) from stock") == [[5]]
    assert (await again.health()).status == "ok"
    await again.close()


async def test_a_closed_database_is_unavailable_and_closing_unopened_is_safe(
    open_context: OpenContext, ctx: CallContext
) -> None:
    made = SqliteDatabase({}, open_context)
    await made.close()
    with pytest.raises(ProviderError) as refused:
        await rows(made, ctx, "select 1")
    assert refused.value.code == "unavailable"
