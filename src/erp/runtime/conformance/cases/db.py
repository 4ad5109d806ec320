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


async def _table(bench: Bench, *, tenant: str = ALPHA, rows: int = 0) -> str:
    """Create a table of ids and names with ``rows`` rows, numbered from 1; return its name."""
    table = bench.unique("conformance").replace("-", "_")
    await _execute(bench, f"create table {table} (id integer primary key, name varchar(200))", tenant=tenant)
    if rows:
        values = ", ".join(f"({number}, 'n{number}')" for number in range(1, rows + 1))
        await _execute(bench, f"insert into {table} (id, name) values {values}", tenant=tenant)  # noqa: S608  (own words)
    return table


async def _execute(bench: Bench, sql: str, *parameters: Any, tenant: str = ALPHA, **more: Any) -> Any:
    return await bench.call("execute", {"sql": sql, "parameters": list(parameters), **more}, tenant=tenant)


async def _rows(bench: Bench, sql: str, *parameters: Any, tenant: str = ALPHA, **more: Any) -> list[Any]:
    params = {"sql": sql, "parameters": list(parameters), **more}
    rows: list[Any] = (await bench.call("query", params, tenant=tenant))["rows"]
    return rows


async def _names(bench: Bench, table: str, *, tenant: str = ALPHA) -> list[Any]:
    return await _rows(bench, f"select id, name from {table} order by id", tenant=tenant)  # noqa: S608  (own words)


@case("DB-01")
async def values_go_in_and_out_unchanged(bench: Bench) -> None:
    """A value given as a parameter MUST come back exactly, whatever text it is; it is never part of the statement."""
    table = await _table(bench)
    await _execute(bench, f"create table {table}_t (id integer primary key, body text)")
    for number, text in enumerate(TEXTS):
        await _execute(bench, f"insert into {table}_t (id, body) values (?, ?)", number, text)  # noqa: S608  (own words)
        rows = await _rows(bench, f"select body from {table}_t where id = ? and body = ?", number, text)  # noqa: S608
        require(rows == [[text]], f"{text[:40]!r} came back as {str(rows)[:80]}")
    await _execute(bench, f"insert into {table} (id, name) values (?, ?)", 1, None)  # noqa: S608  (own words)
    require(await _names(bench, table) == [[1, None]], "null did not come back as null")


@case("DB-02")
async def a_query_answers_columns_and_rows(bench: Bench) -> None:
    """``query`` MUST answer the columns in order with their names, the rows, and how many there are."""
    table = await _table(bench, rows=3)
    answer = await bench.call("query", {"sql": f"select id as number, name from {table} order by id desc"})  # noqa: S608
    require([column["name"] for column in answer["columns"]] == ["number", "name"], f"columns {answer['columns']}")
    require(answer["rows"] == [[3, "n3"], [2, "n2"], [1, "n1"]], f"rows {answer['rows']}")
    require((answer["row_count"], answer["truncated"]) == (3, False), "the count or truncated is wrong")
    empty = await bench.call("query", {"sql": f"select id from {table} where id < 0"})  # noqa: S608  (own words)
    require((empty["rows"], len(empty["columns"])) == ([], 1), "an empty answer has no columns")


@case("DB-03")
async def a_long_answer_says_that_it_was_cut(bench: Bench) -> None:
    """With more rows than ``max_rows`` the answer MUST have that many and say ``truncated``; with as many it says not."""
    table = await _table(bench, rows=5)
    sql = f"select id from {table} order by id"  # noqa: S608  (own words)
    await bench.equal(
        "query", {"sql": sql, "max_rows": 3}, {"rows": [[1], [2], [3]], "row_count": 3, "truncated": True}
    )
    await bench.equal("query", {"sql": sql, "max_rows": 5}, {"row_count": 5, "truncated": False})


@case("DB-04")
async def a_query_cannot_write(bench: Bench) -> None:
    """A statement of ``query`` that writes MUST be refused and change nothing."""
    table = await _table(bench, rows=2)
    for sql in WRITES:
        await bench.refused("invalid_argument", "query", {"sql": sql.format(table=table)})
    require(await _names(bench, table) == [[1, "n1"], [2, "n2"]], "a refused query changed the table")
    known = {one["name"] for one in (await bench.call("metadata", {"limit": 1000}))["tables"]}
    require(f"{table}_2" not in known and table in known, "a refused query changed the schema")


@case("DB-05")
async def one_call_is_one_statement(bench: Bench) -> None:
    """A text with several statements MUST be refused by ``query`` and ``execute`` and change nothing."""
    table = await _table(bench, rows=1)
    for sql in SEVERAL:
        for action in ("query", "execute"):
            await bench.refused("invalid_argument", action, {"sql": sql.format(table=table)})
    require(await _names(bench, table) == [[1, "n1"]], "a refused text was executed")


@case("DB-06")
async def a_change_tells_how_many_rows_it_affected(bench: Bench) -> None:
    """``execute`` MUST answer how many rows it affected, none included."""
    table = await _table(bench, rows=3)
    for sql, affected in (
        (f"update {table} set name = ? where id > 1", 2),  # noqa: S608  (own words)
        (f"update {table} set name = ? where id > 9", 0),  # noqa: S608  (own words)
        (f"delete from {table} where name = ?", 2),  # noqa: S608  (own words)
    ):
        answer = await _execute(bench, sql, "new")
        require(answer["rows_affected"] == affected, f"{sql} affected {answer['rows_affected']}")
    require(await _names(bench, table) == [[1, "n1"]], "what is left is something else")


@case("DB-07")
async def a_duplicate_key_already_exists(bench: Bench) -> None:
    """A change that a unique key refuses MUST be refused with ``already_exists`` and change nothing."""
    table = await _table(bench, rows=1)
    insert = f"insert into {table} (id, name) values (2, 'a'), (1, 'b')"  # noqa: S608  (own words)
    await bench.refused("already_exists", "execute", {"sql": insert})
    require(await _names(bench, table) == [[1, "n1"]], "part of the refused statement took effect")


@case("DB-08")
async def what_does_not_make_sense_is_the_callers_mistake(bench: Bench) -> None:
    """Malformed SQL, unknown tables and a wrong number of parameters MUST be refused with ``invalid_argument`` or ``not_found``."""
    table = await _table(bench, rows=1)
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
    table = await _table(bench, rows=1)
    insert = f"insert into {table} (id, name) values (?, ?)"  # noqa: S608  (own words)
    statements = [{"sql": insert, "parameters": [number, "b"]} for number in (2, 3)]
    statements.append({"sql": f"update {table} set name = 'c' where id > 1"})  # noqa: S608  (own words)
    results = (await bench.call("execute_batch", {"statements": statements}))["results"]
    require([one["rows_affected"] for one in results] == [1, 1, 2], f"answered {results}")
    failing = [{"sql": insert, "parameters": [number, "d"]} for number in (4, 1, 5)]
    await bench.refused("already_exists", "execute_batch", {"statements": failing})
    require(await _names(bench, table) == [[1, "n1"], [2, "c"], [3, "c"]], "a failed batch took effect in part")


@case("DB-10")
async def a_batch_can_insist_on_affected_rows(bench: Bench) -> None:
    """A statement that affects another number of rows than ``expect_rows`` MUST undo the batch: ``failed_precondition``."""
    table = await _table(bench, rows=2)
    first = {"sql": f"update {table} set name = 'x' where id = 1", "expect_rows": 1}  # noqa: S608  (own words)
    second = {"sql": f"update {table} set name = 'x' where id = 9", "expect_rows": 1}  # noqa: S608  (own words)
    await bench.refused("failed_precondition", "execute_batch", {"statements": [first, second]})
    require(await _names(bench, table) == [[1, "n1"], [2, "n2"]], "the batch took effect")
    await bench.call("execute_batch", {"statements": [first, {**second, "expect_rows": 0}]})


@case("DB-11")
async def metadata_describes_tables(bench: Bench) -> None:
    """``metadata`` MUST describe columns, keys and indexes of a table, and refuse an unknown one with ``not_found``."""
    parent = await _table(bench)
    child = f"{parent}_c"
    columns = f"id integer primary key, parent integer not null references {parent} (id), code varchar(20)"
    await _execute(bench, f"create table {child} ({columns})")
    await _execute(bench, f"create unique index {child}_code on {child} (code, parent)")
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
    tables = [await _table(bench) for _ in range(5)]
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
    table = await _table(bench, rows=1)
    for action, sql in (("query", f"select name from {table}"), ("execute", f"delete from {table}")):  # noqa: S608
        try:
            answer = await bench.call(action, {"sql": sql}, tenant=BETA)
        except ProviderError as error:
            require(error.code in {"invalid_argument", "not_found"}, f"it was answered {error!r}")
        else:
            seen = answer.get("rows") or answer.get("rows_affected")
            require(not seen, f"another tenant was answered {answer}")
    require(await _names(bench, table) == [[1, "n1"]], "another tenant changed the rows")


@case("DB-14")
async def concurrent_changes_are_all_made(bench: Bench) -> None:
    """Concurrent changes MUST all take effect, none twice."""
    table = await _table(bench, rows=1)
    await _execute(bench, f"create table {table}_n (id integer primary key, total integer)")
    await _execute(bench, f"insert into {table}_n (id, total) values (1, 0)")  # noqa: S608  (own words)
    add = f"update {table}_n set total = total + 1 where id = 1"  # noqa: S608  (own words)
    await asyncio.gather(*(_execute(bench, add) for _ in range(50)))
    require(await _rows(bench, f"select total from {table}_n") == [[50]], "additions were lost or doubled")  # noqa: S608


@case("DB-15")
async def a_cancelled_change_is_made_or_not(bench: Bench) -> None:
    """A cancelled ``execute`` MUST take effect as a whole or not at all, and hold nobody up."""
    table = await _table(bench, rows=2)
    update = f"update {table} set name = ?"  # noqa: S608  (own words)
    for number in range(10):
        task = asyncio.ensure_future(_execute(bench, update, f"v{number}"))
        await asyncio.sleep(number * 0.0003)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        names = {name for _, name in await _names(bench, table)}
        require(len(names) == 1 or names == {"n1", "n2"}, f"a cancelled change took effect in part: {names}")
    await _execute(bench, update, "last")


@case("DB-20", capability="streaming")
async def every_row_is_streamed_once(bench: Bench) -> None:
    """``stream`` MUST answer the columns first and then every row once, in order, at most ``rows_per_item`` at a time."""
    table = await _table(bench, rows=250)
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
    table = await _table(bench, rows=250)
    for _ in range(20):
        await bench.items("stream", {"sql": f"select id from {table}", "rows_per_item": 1}, take=2)  # noqa: S608
    async with asyncio.timeout(10):
        await _execute(bench, f"update {table} set name = 'x'")  # noqa: S608  (own words)
    await bench.refused_stream("invalid_argument", "stream", {"sql": f"delete from {table}"})  # noqa: S608  (own words)
    require(len(await _names(bench, table)) == 250, "a stream has written")  # noqa: PLR2004  (rows made above)


async def _begun(bench: Bench, **more: Any) -> str:
    handle: str = (await bench.call("begin", more))["transaction"]
    return handle


async def _insert(bench: Bench, table: str, number: int, transaction: str | None = None) -> None:
    more = {} if transaction is None else {"transaction": transaction}
    await _execute(bench, f"insert into {table} (id, name) values (?, 'x')", number, **more)  # noqa: S608  (own words)


@case("DB-30", capability="transactions")
async def a_transaction_takes_effect_at_its_commit(bench: Bench) -> None:
    """What a transaction changes MUST be seen in it at once, outside only after ``commit``, and then stay."""
    table = await _table(bench)
    transaction = await _begun(bench)
    await _insert(bench, table, 1, transaction)
    inside = await _rows(bench, f"select id from {table}", transaction=transaction)  # noqa: S608  (own words)
    require(inside == [[1]], f"the transaction itself sees {inside}")
    require(await _names(bench, table) == [], "others see it before the commit")
    await bench.call("commit", {"transaction": transaction})
    require(await _names(bench, table) == [[1, "x"]], "it did not take effect")


@case("DB-31", capability="transactions")
async def a_rollback_undoes_everything(bench: Bench) -> None:
    """``rollback`` MUST undo everything since ``begin``; the handle is then ``not_found``."""
    table = await _table(bench, rows=1)
    transaction = await _begun(bench)
    await _insert(bench, table, 2, transaction)
    await bench.call("rollback", {"transaction": transaction})
    require(await _names(bench, table) == [[1, "n1"]], "something was left")
    await bench.refused("not_found", "query", {"sql": "select 1", "transaction": transaction})
    await bench.refused("not_found", "commit", {"transaction": transaction})
    await _insert(bench, table, 2)


@case("DB-32", capability="transactions")
async def a_handle_belongs_to_its_tenant(bench: Bench) -> None:
    """A transaction's handle MUST be ``not_found`` for another tenant, and so is one that was made up."""
    transaction = await _begun(bench)
    for action, params in (
        ("commit", {}),
        ("query", {"sql": "select 1"}),
        ("execute", {"sql": "create table x (y integer)"}),
    ):
        await bench.refused("not_found", action, {**params, "transaction": transaction}, tenant=BETA)
    await bench.refused("not_found", "commit", {"transaction": "made-up"})
    await bench.call("rollback", {"transaction": transaction})


@case("DB-33", capability="transactions", timed=True)
async def a_lease_that_ends_rolls_back(bench: Bench) -> None:
    """A transaction whose lease has ended MUST be rolled back by itself and hold nobody up."""
    table = await _table(bench)
    transaction = await _begun(bench, lease_seconds=0.2)
    await _insert(bench, table, 1, transaction)

    async def is_over() -> bool:
        try:
            await bench.call("query", {"sql": "select 1"})
            await _insert(bench, table, 2)
        except ProviderError:  # held up: not over yet
            return False
        return True

    await bench.eventually(is_over, "others could write after the lease")
    require(await _names(bench, table) == [[2, "x"]], "the transaction took effect")
    await bench.refused("not_found", "commit", {"transaction": transaction})


@case("DB-34", capability="transactions")
async def a_failed_statement_leaves_the_transaction_usable_or_ended(bench: Bench) -> None:
    """After a statement failed a ``commit`` MUST apply what succeeded, or be refused with ``failed_precondition``: never part of the failed one."""
    table = await _table(bench, rows=1)
    transaction = await _begun(bench)
    await _insert(bench, table, 2, transaction)
    two = f"insert into {table} (id, name) values (3, 'y'), (1, 'y')"  # noqa: S608  (own words)
    await bench.refused("already_exists", "execute", {"sql": two, "transaction": transaction})
    expected = [[1, "n1"], [2, "x"]]
    try:
        await bench.call("commit", {"transaction": transaction})
    except ProviderError as error:
        require(error.code == "failed_precondition", f"commit was answered {error!r}")
        expected = [[1, "n1"]]
    require(await _names(bench, table) == expected, f"left over: {await _names(bench, table)}")


@case("DB-35", capability="transactions")
async def a_read_only_transaction_cannot_write(bench: Bench) -> None:
    """In a transaction begun ``read_only`` a change MUST be refused, and reads agree with each other."""
    table = await _table(bench, rows=1)
    transaction = await _begun(bench, read_only=True)
    sql = f"select count(*) from {table}"  # noqa: S608  (own words)
    await _rows(bench, sql, transaction=transaction)
    change = {"sql": f"delete from {table}", "transaction": transaction}  # noqa: S608  (own words)
    await bench.refused("failed_precondition", "execute", change)
    await bench.call("rollback", {"transaction": transaction})
    require(await _names(bench, table) == [[1, "n1"]], "the read-only transaction has written")


@case("DB-40", capability="savepoints")
async def a_transaction_goes_back_to_a_savepoint(bench: Bench) -> None:
    """``rollback`` to a savepoint MUST undo what came after it and nothing before; the transaction goes on."""
    table = await _table(bench)
    transaction = await _begun(bench)
    await _insert(bench, table, 1, transaction)
    await bench.call("savepoint", {"transaction": transaction, "savepoint": "sp"})
    await _insert(bench, table, 2, transaction)
    await bench.call("rollback", {"transaction": transaction, "savepoint": "sp"})
    await _insert(bench, table, 3, transaction)
    await bench.refused("not_found", "rollback", {"transaction": transaction, "savepoint": "unknown"})
    await bench.call("commit", {"transaction": transaction})
    require([row[0] for row in await _names(bench, table)] == [1, 3], "the savepoint was another")


@case("DB-41", capability="isolation_levels")
async def an_isolation_level_is_kept_or_refused(bench: Bench) -> None:
    """``begin`` with an isolation level MUST give at least that one, or be refused with ``unsupported``."""
    table = await _table(bench, rows=1)
    sql = f"select count(*) from {table}"  # noqa: S608  (own words)
    for level in ("read_committed", "repeatable_read", "snapshot", "serializable"):
        try:
            transaction = await _begun(bench, isolation=level, read_only=True)
        except ProviderError as error:
            require(error.code == "unsupported", f"{level} was answered {error!r}")
            continue
        before = await _rows(bench, sql, transaction=transaction)
        await _insert(bench, table, 10 + len(level))
        after = await _rows(bench, sql, transaction=transaction)
        require(level == "read_committed" or before == after, f"under {level} a read was not repeatable")
        await bench.call("rollback", {"transaction": transaction})


@case("DB-50", capability="row_estimates")
async def metadata_tells_about_how_many_rows(bench: Bench) -> None:
    """``metadata`` MUST answer a row estimate for a table once its statistics exist, never a negative one."""
    table = await _table(bench, rows=20)
    (answer,) = (await bench.call("metadata", {"table": table}))["tables"]
    require(answer.get("row_estimate", 0) >= 0, f"estimate {answer.get('row_estimate')}")
    await _execute(bench, f"analyze {table}")
    (answer,) = (await bench.call("metadata", {"table": table}))["tables"]
    require(10 <= answer.get("row_estimate", -1) <= 40, f"of 20 rows it says {answer.get('row_estimate')}")  # noqa: PLR2004


@case("DB-51", capability="pool_statistics")
async def metadata_tells_how_busy_the_pool_is(bench: Bench) -> None:
    """``metadata`` MUST answer the size of the pool and how many connections are in use, never more than there are."""
    await _table(bench)
    pool = (await bench.call("metadata"))["pool"]
    require(0 <= pool["in_use"] <= pool["size"], f"pool {pool}")
