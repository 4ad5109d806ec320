"""Relational databases."""

from __future__ import annotations

import asyncio
from typing import Any

from erp.errors import ProviderError
from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.host import ALPHA, BETA

TEXTS = ("", " ", "it's", 'say "no"', "ünïcödé \U0001f418", "line\nbreak", "%_\\", "; drop table x --", "x" * 100_000)
WRITES = (
    "insert into {table} (id, name) values (99, 'x')",
    "update {table} set name = 'x'",
    "delete from {table}",
    "drop table {table}",
    "create table {table}_2 (id integer)",
    "alter table {table} add column extra integer",
)
SEVERAL = (
    "select 1; select 2",
    "select 1; delete from {table}",
    "select 1;\n-- comment\ndelete from {table};",
)


async def new_table(bench: Bench, *, tenant: str = ALPHA, rows: int = 0) -> str:
    """Create a table of ids and names with ``rows`` rows, numbered from 1; return its name."""
    table = bench.unique("conformance").replace("-", "_")
    await execute(bench, f"create table {table} (id integer primary key, name varchar(200))", tenant=tenant)
    if rows:
        values = ", ".join(f"({number}, 'n{number}')" for number in range(1, rows + 1))
        await execute(bench, f"insert into {table} (id, name) values {values}", tenant=tenant)  # noqa: S608  (own words)
    return table


async def execute(bench: Bench, sql: str, *parameters: Any, tenant: str = ALPHA, **more: Any) -> Any:
    """Change rows or the schema."""
    return await bench.call("execute", {"sql": sql, "parameters": list(parameters), **more}, tenant=tenant)


async def rows_of(bench: Bench, sql: str, *parameters: Any, tenant: str = ALPHA, **more: Any) -> list[Any]:
    """Return the rows of a query."""
    params = {"sql": sql, "parameters": list(parameters), **more}
    rows: list[Any] = (await bench.call("query", params, tenant=tenant))["rows"]
    return rows


async def names_in(bench: Bench, table: str, *, tenant: str = ALPHA) -> list[Any]:
    """Return ids and names of a table made by ``new_table``."""
    return await rows_of(bench, f"select id, name from {table} order by id", tenant=tenant)  # noqa: S608  (own words)


@case("DB-01")
async def values_go_in_and_out_unchanged(bench: Bench) -> None:
    """A value given as a parameter MUST come back exactly, whatever text it is; it is never part of the statement."""
    table = await new_table(bench)
    body = bench.manifest.sql.get("types", {}).get("text", "text")
    await execute(bench, f"create table {table}_t (id integer primary key, body {body})")
    for number, text in enumerate(TEXTS):
        await execute(bench, f"insert into {table}_t (id, body) values (?, ?)", number, text)  # noqa: S608  (own words)
        rows = await rows_of(bench, f"select body from {table}_t where id = ? and body = ?", number, text)  # noqa: S608
        require(rows == [[text]], f"{text[:40]!r} came back as {str(rows)[:80]}")
    await execute(bench, f"insert into {table} (id, name) values (?, ?)", 1, None)  # noqa: S608  (own words)
    require(await names_in(bench, table) == [[1, None]], "null did not come back as null")


@case("DB-02")
async def a_query_answers_columns_and_rows(bench: Bench) -> None:
    """``query`` MUST answer the columns in order with their names, the rows, and how many there are."""
    table = await new_table(bench, rows=3)
    answer = await bench.call("query", {"sql": f"select id as number, name from {table} order by id desc"})  # noqa: S608
    require([column["name"] for column in answer["columns"]] == ["number", "name"], f"columns {answer['columns']}")
    require(answer["rows"] == [[3, "n3"], [2, "n2"], [1, "n1"]], f"rows {answer['rows']}")
    require((answer["row_count"], answer["truncated"]) == (3, False), "the count or truncated is wrong")
    empty = await bench.call("query", {"sql": f"select id from {table} where id < 0"})  # noqa: S608  (own words)
    require((empty["rows"], len(empty["columns"])) == ([], 1), "an empty answer has no columns")


@case("DB-03")
async def a_long_answer_says_that_it_was_cut(bench: Bench) -> None:
    """With more rows than ``max_rows`` the answer MUST have that many and say ``truncated``; with as many it says not."""
    table = await new_table(bench, rows=5)
    sql = f"select id from {table} order by id"  # noqa: S608  (own words)
    await bench.equal(
        "query", {"sql": sql, "max_rows": 3}, {"rows": [[1], [2], [3]], "row_count": 3, "truncated": True}
    )
    await bench.equal("query", {"sql": sql, "max_rows": 5}, {"row_count": 5, "truncated": False})


@case("DB-04")
async def a_query_cannot_write(bench: Bench) -> None:
    """A statement of ``query`` that writes MUST be refused and change nothing."""
    table = await new_table(bench, rows=2)
    for sql in WRITES:
        await bench.refused("invalid_argument", "query", {"sql": sql.format(table=table)})
    require(await names_in(bench, table) == [[1, "n1"], [2, "n2"]], "a refused query changed the table")
    known = {one["name"] for one in (await bench.call("metadata", {"limit": 1000}))["tables"]}
    require(f"{table}_2" not in known and table in known, "a refused query changed the schema")


@case("DB-05")
async def one_call_is_one_statement(bench: Bench) -> None:
    """A text with several statements MUST be refused by ``query`` and ``execute`` and change nothing."""
    table = await new_table(bench, rows=1)
    for sql in SEVERAL:
        for action in ("query", "execute"):
            await bench.refused("invalid_argument", action, {"sql": sql.format(table=table)})
    require(await names_in(bench, table) == [[1, "n1"]], "a refused text was executed")


@case("DB-06")
async def a_change_tells_how_many_rows_it_affected(bench: Bench) -> None:
    """``execute`` MUST answer how many rows it affected, none included."""
    table = await new_table(bench, rows=3)
    for sql, affected in (
        (f"update {table} set name = ? where id > 1", 2),  # noqa: S608  (own words)
        (f"update {table} set name = ? where id > 9", 0),  # noqa: S608  (own words)
        (f"delete from {table} where name = ?", 2),  # noqa: S608  (own words)
    ):
        answer = await execute(bench, sql, "new")
        require(answer["rows_affected"] == affected, f"{sql} affected {answer['rows_affected']}")
    require(await names_in(bench, table) == [[1, "n1"]], "what is left is something else")


@case("DB-07")
async def a_duplicate_key_already_exists(bench: Bench) -> None:
    """A change that a unique key refuses MUST be refused with ``already_exists`` and change nothing."""
    table = await new_table(bench, rows=1)
    insert = f"insert into {table} (id, name) values (2, 'a'), (1, 'b')"  # noqa: S608  (own words)
    await bench.refused("already_exists", "execute", {"sql": insert})
    require(await names_in(bench, table) == [[1, "n1"]], "part of the refused statement took effect")


@case("DB-08")
async def what_does_not_make_sense_is_the_callers_mistake(bench: Bench) -> None:
    """Malformed SQL, unknown tables and a wrong number of parameters MUST be refused with ``invalid_argument`` or ``not_found``."""
    table = await new_table(bench, rows=1)
    for sql, parameters in (
        ("selec 1", []),
        ("select", []),
        (f"select nothing from {table}", []),  # noqa: S608  (own words)
        (f"select id from {table} where id = ?", []),  # noqa: S608  (own words)
        (f"select id from {table} where id = ?", [1, 2]),  # noqa: S608  (own words)
    ):
        await bench.refused("invalid_argument", "query", {"sql": sql, "parameters": parameters})
    unknown = bench.unique("no_such").replace("-", "_")
    try:
        await bench.call("query", {"sql": f"select 1 from {unknown}"})  # noqa: S608  (own words)
    except ProviderError as error:
        require(error.code in {"invalid_argument", "not_found"}, f"an unknown table: {error!r}")
    else:
        raise AssertionError("an unknown table was answered")


@case("DB-09")
async def a_batch_takes_effect_whole(bench: Bench) -> None:
    """``execute_batch`` MUST apply all statements in order and answer for each; when one fails, none takes effect."""
    table = await new_table(bench, rows=1)
    insert = f"insert into {table} (id, name) values (?, ?)"  # noqa: S608  (own words)
    statements = [{"sql": insert, "parameters": [number, "b"]} for number in (2, 3)]
    statements.append({"sql": f"update {table} set name = 'c' where id > 1"})  # noqa: S608  (own words)
    results = (await bench.call("execute_batch", {"statements": statements}))["results"]
    require([one["rows_affected"] for one in results] == [1, 1, 2], f"answered {results}")
    failing = [{"sql": insert, "parameters": [number, "d"]} for number in (4, 1, 5)]
    await bench.refused("already_exists", "execute_batch", {"statements": failing})
    require(await names_in(bench, table) == [[1, "n1"], [2, "c"], [3, "c"]], "a failed batch took effect in part")


@case("DB-10")
async def a_batch_can_insist_on_affected_rows(bench: Bench) -> None:
    """A statement that affects another number of rows than ``expect_rows`` MUST undo the batch: ``failed_precondition``."""
    table = await new_table(bench, rows=2)
    first = {"sql": f"update {table} set name = 'x' where id = 1", "expect_rows": 1}  # noqa: S608  (own words)
    second = {"sql": f"update {table} set name = 'x' where id = 9", "expect_rows": 1}  # noqa: S608  (own words)
    await bench.refused("failed_precondition", "execute_batch", {"statements": [first, second]})
    require(await names_in(bench, table) == [[1, "n1"], [2, "n2"]], "the batch took effect")
    await bench.call("execute_batch", {"statements": [first, {**second, "expect_rows": 0}]})


@case("DB-11")
async def metadata_describes_tables(bench: Bench) -> None:
    """``metadata`` MUST describe columns, keys and indexes of a table, and refuse an unknown one with ``not_found``."""
    parent = await new_table(bench)
    child = f"{parent}_c"
    columns = f"id integer primary key, parent integer not null references {parent} (id), code varchar(20)"
    await execute(bench, f"create table {child} ({columns})")
    await execute(bench, f"create unique index {child}_code on {child} (code, parent)")
    answer = await bench.call("metadata", {"table": child})
    require(bool(answer["engine"]) and bool(answer["version"]), "engine or version is missing")
    (table,) = answer["tables"]
    require([column["name"] for column in table["columns"]] == ["id", "parent", "code"], f"columns {table['columns']}")
    nullable = {column["name"]: column["nullable"] for column in table["columns"]}
    require((nullable["parent"], nullable["code"]) == (False, True), f"nullable {nullable}")
    require(table["primary_key"] == ["id"], f"primary key {table['primary_key']}")
    unique = [index["columns"] for index in table["indexes"] if index["unique"] and index["name"] == f"{child}_code"]
    require(unique == [["code", "parent"]], f"indexes {table['indexes']}")
    keys = [(one["columns"], one["table"], one["references"]) for one in table["foreign_keys"]]
    require(keys == [(["parent"], parent, ["id"])], f"foreign keys {keys}")
    await bench.refused("not_found", "metadata", {"table": f"{child}_unknown"})


@case("DB-12")
async def tables_are_listed_in_pages(bench: Bench) -> None:
    """``metadata`` MUST list every table once, over as many pages as it takes."""
    tables = [await new_table(bench) for _ in range(5)]
    found: list[str] = []
    cursor: dict[str, Any] = {}
    for _ in range(1000):
        page = await bench.call("metadata", {"limit": 2, **cursor})
        found += [table["name"] for table in page["tables"]]
        if "next_cursor" not in page:
            break
        cursor = {"cursor": page["next_cursor"]}
    require(all(found.count(table) == 1 for table in tables), f"listed {[name for name in found if name in tables]}")


@case("DB-13")
async def tenants_share_no_rows(bench: Bench) -> None:
    """No tenant MUST ever read, change or describe the tables of another, whatever name it uses."""
    table = await new_table(bench, rows=1)
    for action, sql in (("query", f"select name from {table}"), ("execute", f"delete from {table}")):  # noqa: S608
        try:
            answer = await bench.call(action, {"sql": sql}, tenant=BETA)
        except ProviderError as error:
            require(error.code in {"invalid_argument", "not_found"}, f"it was answered {error!r}")
        else:
            seen = answer.get("rows") or answer.get("rows_affected")
            require(not seen, f"another tenant was answered {answer}")
    require(await names_in(bench, table) == [[1, "n1"]], "another tenant changed the rows")


@case("DB-14")
async def concurrent_changes_are_all_made(bench: Bench) -> None:
    """Concurrent changes MUST all take effect, none twice."""
    table = await new_table(bench, rows=1)
    await execute(bench, f"create table {table}_n (id integer primary key, total integer)")
    await execute(bench, f"insert into {table}_n (id, total) values (1, 0)")  # noqa: S608  (own words)
    add = f"update {table}_n set total = total + 1 where id = 1"  # noqa: S608  (own words)
    await asyncio.gather(*(execute(bench, add) for _ in range(50)))
    require(await rows_of(bench, f"select total from {table}_n") == [[50]], "additions were lost or doubled")  # noqa: S608


@case("DB-15")
async def a_cancelled_change_is_made_or_not(bench: Bench) -> None:
    """A cancelled ``execute`` MUST take effect as a whole or not at all, and hold nobody up."""
    table = await new_table(bench, rows=2)
    update = f"update {table} set name = ?"  # noqa: S608  (own words)
    for number in range(10):
        task = asyncio.ensure_future(execute(bench, update, f"v{number}"))
        await asyncio.sleep(number * 0.0003)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        names = {name for _, name in await names_in(bench, table)}
        require(len(names) == 1 or names == {"n1", "n2"}, f"a cancelled change took effect in part: {names}")
    await execute(bench, update, "last")


@case("DB-20", capability="streaming")
async def every_row_is_streamed_once(bench: Bench) -> None:
    """``stream`` MUST answer the columns first and then every row once, in order, at most ``rows_per_item`` at a time."""
    table = await new_table(bench, rows=250)
    params = {"sql": f"select id from {table} where id > ? order by id", "parameters": [0], "rows_per_item": 100}  # noqa: S608
    items = await bench.items("stream", params)
    require([column["name"] for column in items[0]["columns"]] == ["id"], "the first item has no columns")
    sizes = [len(item.get("rows", [])) for item in items]
    require(max(sizes) <= 100, f"items of {max(sizes)} rows")  # noqa: PLR2004  (asked for above)
    rows = [row[0] for item in items for row in item.get("rows", [])]
    require(rows == list(range(1, 251)), f"{len(rows)} rows were streamed")


@case("DB-21", capability="streaming")
async def a_stream_that_is_left_holds_nobody_up(bench: Bench) -> None:
    """A stream whose reader leaves MUST give its connection back; it cannot write either."""
    table = await new_table(bench, rows=250)
    for _ in range(20):
        await bench.items("stream", {"sql": f"select id from {table}", "rows_per_item": 1}, take=2)  # noqa: S608
    async with asyncio.timeout(10):
        await execute(bench, f"update {table} set name = 'x'")  # noqa: S608  (own words)
    await bench.refused_stream("invalid_argument", "stream", {"sql": f"delete from {table}"})  # noqa: S608  (own words)
    require(len(await names_in(bench, table)) == 250, "a stream has written")  # noqa: PLR2004  (rows made above)


@case("DB-50", capability="row_estimates")
async def metadata_tells_about_how_many_rows(bench: Bench) -> None:
    """``metadata`` MUST answer a row estimate for a table once its statistics exist, never a negative one."""
    table = await new_table(bench, rows=20)
    (answer,) = (await bench.call("metadata", {"table": table}))["tables"]
    require(answer.get("row_estimate", 0) >= 0, f"estimate {answer.get('row_estimate')}")
    statistics = bench.manifest.sql.get("statistics", "analyze {table}")
    if statistics:
        await execute(bench, statistics.format(table=table))
    (answer,) = (await bench.call("metadata", {"table": table}))["tables"]
    require(10 <= answer.get("row_estimate", -1) <= 40, f"of 20 rows it says {answer.get('row_estimate')}")  # noqa: PLR2004


@case("DB-51", capability="pool_statistics")
async def metadata_tells_how_busy_the_pool_is(bench: Bench) -> None:
    """``metadata`` MUST answer the size of the pool and how many connections are in use, never more than there are."""
    await new_table(bench)
    pool = (await bench.call("metadata"))["pool"]
    require(0 <= pool["in_use"] <= pool["size"], f"pool {pool}")
