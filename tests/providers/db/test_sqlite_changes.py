"""What the embedded database says about a change is about that change, and what it refuses leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.sqlite.provider import SqliteDatabase
from erp.runtime.context import CallContext
from erp.runtime.spi import UNSET, OpenContext

pytestmark = pytest.mark.anyio

COUNT_TO = "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) select i from n"


@pytest.fixture
async def database(open_context: OpenContext) -> AsyncIterator[SqliteDatabase]:
    made = SqliteDatabase({"max_result_bytes": 1024}, open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


async def run(database: SqliteDatabase, ctx: CallContext, sql: str, *parameters: Any) -> api.ExecuteResult:
    return await database.execute(api.ExecuteRequest(sql=sql, parameters=list(parameters)), ctx)


async def batch(database: SqliteDatabase, ctx: CallContext, *statements: str) -> list[tuple[int, Any]]:
    request = api.ExecuteBatchRequest(statements=[api.Statement(sql=sql) for sql in statements])
    results = (await database.execute_batch(request, ctx)).results
    return [(effect.rows_affected, effect.last_insert_id) for effect in results]


async def rows(database: SqliteDatabase, ctx: CallContext, sql: str, *parameters: Any) -> Any:
    return (await database.query(api.QueryRequest(sql=sql, parameters=list(parameters)), ctx)).rows


@pytest.fixture
async def parts(database: SqliteDatabase, ctx: CallContext) -> SqliteDatabase:
    await run(database, ctx, "create table part (id integer primary key, name text unique, n int default 0)")
    await run(database, ctx, "create table code (name text primary key) without rowid")
    assert (await run(database, ctx, "insert into part (id, name) values (77, 'bolt')")).last_insert_id == 77
    return database


@pytest.mark.parametrize(
    ("sql", "affected"),
    [
        ("update part set n = 1", 1),
        ("delete from part", 1),
        ("insert into part (name) values ('bolt') on conflict (name) do update set n = 2", 1),
        ("insert into part (name) values ('bolt') on conflict do nothing", 0),
        ("insert into code values ('A')", 1),
        ("update part set n = 1 where name = 'none'", 0),
        ("create table other (a)", 0),
        ("select 1", 0),
    ],
)
async def test_a_statement_that_gives_no_id_does_not_tell_the_one_of_another(
    parts: SqliteDatabase, ctx: CallContext, sql: str, affected: int
) -> None:
    result = await run(parts, ctx, sql)
    assert (result.rows_affected, result.last_insert_id) == (affected, UNSET)


async def test_equal_ids_of_two_tables_are_both_told(parts: SqliteDatabase, ctx: CallContext) -> None:
    await run(parts, ctx, "create table line (id integer primary key, a)")
    made = await batch(
        parts,
        ctx,
        "insert into part (id, name) values (1, 'nut')",
        "insert into line values (1, 'x')",
        "update line set a = 'y'",
        "insert into part (id, name) values (0, 'zero'), (-5, 'below')",
    )
    assert made == [(1, 1), (1, 1), (1, UNSET), (2, -5)]


async def test_rows_changed_by_a_trigger_are_not_counted(parts: SqliteDatabase, ctx: CallContext) -> None:
    await run(parts, ctx, "create table seen (id integer primary key, name)")
    trigger = "create trigger watch after insert on part begin {0} {0} end"
    await run(parts, ctx, trigger.format("insert into seen (name) values (new.name);"))
    one = api.Statement(sql="insert into part (id, name) values (78, 'nut')", expect_rows=1)
    result = await parts.execute_batch(api.ExecuteBatchRequest(statements=[one]), ctx)

    assert [(effect.rows_affected, effect.last_insert_id) for effect in result.results] == [(1, 78)]
    assert await rows(parts, ctx, "select count(*) from seen") == [[2]]


@pytest.mark.parametrize(
    "sql",
    [
        "create temp table evil (a)",
        "create table temp.evil (a)",
        'create table "TEMP".evil as select 1',
        "create virtual table temp.evil using fts5 (a)",
        "create view temp.evil as select 1",
        "create trigger temp.evil after insert on main.part begin select 1; end",
        "create temp view evil as select 1",
        "create temp trigger evil after insert on part begin delete from part; end",
        "drop table temp.erp_last_insert",
        "drop table erp_last_insert",
        "alter table temp.erp_last_insert rename to evil",
        "alter table erp_last_insert add column evil",
        "create index temp.evil on erp_last_insert (id)",
        "insert into temp.erp_last_insert values (1)",
        "insert into erp_last_insert values (1)",
    ],
)
async def test_nothing_temporary_is_left_for_the_calls_that_follow(
    parts: SqliteDatabase, ctx: CallContext, sql: str
) -> None:
    with pytest.raises(ProviderError) as refused:
        await run(parts, ctx, sql)
    assert refused.value.code in {"invalid_argument", "failed_precondition"}
    assert (await run(parts, ctx, "insert into part (name) values ('after')")).last_insert_id == 78
    assert (await run(parts, ctx, "update part set n = 5")).last_insert_id is UNSET


async def test_the_mark_of_the_provider_can_be_removed_without_effect(parts: SqliteDatabase, ctx: CallContext) -> None:
    await run(parts, ctx, "delete from temp.erp_last_insert")
    assert (await run(parts, ctx, "update part set n = 5")).last_insert_id is UNSET


async def test_the_schema_can_be_changed_in_every_usual_way(parts: SqliteDatabase, ctx: CallContext) -> None:
    for sql in (
        "create index part_n on part (n)",
        "alter table part add column weight real",
        "alter table part rename column weight to mass",
        "alter table part rename to piece",
        "alter table piece drop column mass",
        "create view heavy as select name from piece",
        "create trigger clean after delete on piece begin delete from code; end",
        "drop trigger clean",
        "drop view heavy",
        "drop index part_n",
        "create table copy as select * from piece",
        "drop table piece",
    ):
        await run(parts, ctx, sql)
    assert await rows(parts, ctx, "select * from copy") == [[77, "bolt", 0]]


@pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK", "BEGIN IMMEDIATE"])
async def test_the_texts_the_provider_uses_itself_do_not_end_a_batch(
    parts: SqliteDatabase, ctx: CallContext, sql: str
) -> None:
    with pytest.raises(ProviderError) as refused:
        await batch(parts, ctx, "insert into part (name) values ('nut')", sql)
    assert refused.value.code == "invalid_argument"
    assert await rows(parts, ctx, "select name from part") == [["bolt"]]


@pytest.mark.parametrize(
    "sql", [COUNT_TO.format(200), COUNT_TO.format(100_001).replace("select i from", "select '' from")]
)
async def test_too_many_returned_rows_are_refused_and_nothing_is_changed(
    parts: SqliteDatabase, ctx: CallContext, sql: str
) -> None:
    with pytest.raises(ProviderError) as refused:
        await run(parts, ctx, sql)
    assert refused.value.code == "failed_precondition"
    with pytest.raises(ProviderError):
        await run(parts, ctx, f"insert into code select printf('%09d', i) from ({COUNT_TO.format(200)}) returning name")
    assert await rows(parts, ctx, "select count(*) from code") == [[0]]
    assert (await run(parts, ctx, "insert into code values ('A') returning name")).rows == [["A"]]


async def test_an_infinite_number_is_refused_and_can_be_read_as_text(parts: SqliteDatabase, ctx: CallContext) -> None:
    with pytest.raises(ProviderError) as refused:
        await rows(parts, ctx, "select -9e999")
    assert refused.value.code == "failed_precondition"
    assert await rows(parts, ctx, "select cast(-9e999 as text)") == [["-Inf"]]


async def test_parameters_at_the_edges(parts: SqliteDatabase, ctx: CallContext) -> None:
    assert await rows(parts, ctx, "select ?", -(2**63)) == [[-(2**63)]]
    with pytest.raises(ProviderError) as refused:
        await rows(parts, ctx, "select ?, ?, ?", -(2**63) - 1, float("nan"), float("inf"))
    assert [error.pointer for error in refused.value.errors] == [f"/params/parameters/{number}" for number in range(3)]
    with pytest.raises(ProviderError) as half:
        await rows(parts, ctx, "select ?", "\ud800")
    assert half.value.code == "invalid_argument"


async def test_metadata_shows_generated_columns_and_views_whose_table_is_gone(
    parts: SqliteDatabase, ctx: CallContext
) -> None:
    await run(parts, ctx, "create table made (a, b generated always as (a + 1))")
    await run(parts, ctx, "create view codes as select name from code")
    await run(parts, ctx, "drop table code")
    tables = (await parts.metadata(api.MetadataRequest(), ctx)).tables
    assert [(table.name, [column.name for column in table.columns]) for table in tables] == [
        ("codes", []),
        ("made", ["a", "b"]),
        ("part", ["id", "name", "n"]),
    ]


async def test_words_are_searched_and_json_is_unfolded_by_a_query(parts: SqliteDatabase, ctx: CallContext) -> None:
    await run(parts, ctx, "create virtual table text using fts5 (body)")
    await run(parts, ctx, "insert into text values ('a bolt of steel'), ('a nut')")
    assert await rows(parts, ctx, "select highlight(text, 0, '[', ']') from text where text match 'steel'") == [
        ["a bolt of [steel]"]
    ]
    assert await rows(parts, ctx, "select sum(value) from json_each('[1, 2]')") == [[3]]
    with pytest.raises(ProviderError):
        await run(parts, ctx, "update sqlite_master set sql = ''")
    assert await rows(parts, ctx, "select count(*) from sqlite_master where sql = ''") == [[0]]


async def test_a_column_with_a_condition_can_be_added(parts: SqliteDatabase, ctx: CallContext) -> None:
    await run(parts, ctx, "alter table part add column grade int default 1 check (grade > 0)")
    with pytest.raises(ProviderError) as refused:
        await run(parts, ctx, "update part set grade = 0")
    assert refused.value.code == "failed_precondition"
    assert await rows(parts, ctx, "select grade from part") == [[1]]
