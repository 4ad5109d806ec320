"""What is special to DuckDB: locked up, transactions without locks, results that JSON has no form for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from tests.providers.db.conftest import Caller
from tests.providers.db.corpus import Corpus, text

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.duckdb.place import FILE
from erp.providers.db.duckdb.provider import DuckdbDatabase
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio
CORPUS = Corpus("duckdb")
SMALL = {"max_statement_seconds": 1.0, "memory_megabytes": 64, "spill_megabytes": 1, "sessions": 1}
CODES = {"too long": {"timeout"}, "too large": {"failed_precondition", "invalid_argument", "timeout"}}
STATE = "select count(*), sum(quantity), max(sku) from stock"


@pytest.fixture
async def opened(open_context: OpenContext, request: pytest.FixtureRequest) -> AsyncIterator[DuckdbDatabase]:
    made = DuckdbDatabase(getattr(request, "param", {}), open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def caller(opened: Any, call_context: Any) -> Caller:
    made = Caller(opened, call_context(seconds=30))
    await made.execute("create table stock (sku varchar primary key, quantity integer not null check (quantity >= 0))")
    await made.batch(*(f"insert into stock values ('S{number}', {number})" for number in range(5)))
    await made.execute("create sequence numbers")
    return made


def written_elsewhere() -> list[Path]:
    return list(Path("/tmp").glob("evil*"))


async def state(caller: Caller, context: OpenContext) -> Any:
    """Return what an attempt could have changed: rows, schema, files beside the database."""
    assert written_elsewhere() == []
    tables = (await caller.database.metadata(api.MetadataRequest(), caller.context)).tables
    files = sorted(path.name for path in context.data_dir.rglob("*") if path.is_file())
    return await caller.rows(STATE), tables, files


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    CORPUS.require(180)


@pytest.mark.slow
@pytest.mark.parametrize("opened", [SMALL], indirect=True)
async def test_an_attempt_is_refused_and_changes_nothing(caller: Caller, open_context: OpenContext) -> None:
    await plant_a_view_that_writes(caller)
    before = await state(caller, open_context)
    for kind, entries in CORPUS.kinds["query"].items():
        for number, param in enumerate(entries):
            sql = text(param)
            code = await refusal(caller.query(sql))
            assert code in CODES.get(kind, {"invalid_argument"}), (kind, number, sql[:100])
    assert await state(caller, open_context) == before
    assert (await caller.execute("insert into stock select 'N' || nextval('numbers'), 0")).rows_affected == 1
    assert await caller.rows("select sku from stock where quantity = 0 order by sku") == [["N1"], ["S0"]]


async def refusal(attempt: Awaitable[Any]) -> str | None:
    """Return the code with which an attempt is refused; None when it is answered."""
    try:
        await attempt
    except ProviderError as error:
        return error.code
    return None


async def plant_a_view_that_writes(caller: Caller) -> None:
    """The judge lets none be made; what is there already must not write either."""
    database: Any = caller.database
    async with database._sessions.lent() as session:
        await session.run(lambda handle: handle.execute("create view counting as select nextval('numbers') as n"))


@pytest.mark.parametrize("opened", [SMALL], indirect=True)
@pytest.mark.parametrize("kind", [kind for kind in CORPUS.kinds["query"] if not kind.startswith("too")])
async def test_the_same_attempts_are_refused_inside_a_transaction_and_in_a_stream(caller: Caller, kind: str) -> None:
    for entry in CORPUS.kinds["query"][kind]:
        handle = await caller.begin()
        with pytest.raises(ProviderError):
            await caller.query(text(entry), transaction=handle)
        await caller.rollback(handle)
        with pytest.raises(ProviderError):
            async for _ in caller.database.stream(api.StreamRequest(sql=text(entry)), caller.context):
                pass
    assert await caller.rows(STATE) == [[5, 10, "S4"]]


@pytest.mark.parametrize("opened", [SMALL], indirect=True)
async def test_a_change_that_reaches_beyond_its_database_is_refused(caller: Caller, open_context: OpenContext) -> None:
    before = await state(caller, open_context)
    for kind, entries in CORPUS.kinds["execute"].items():
        for entry in entries:
            sql = text(entry)
            assert await refusal(caller.execute(sql)) == "invalid_argument", (kind, sql[:100])
            with pytest.raises(ProviderError):
                await caller.batch("update stock set quantity = 77", sql)
    assert await state(caller, open_context) == before


@pytest.mark.parametrize("sql", ["from read_text('/etc/passwd')", "from '/etc/passwd'", "copy stock to '/tmp/evil'",
                                 "attach '/tmp/evil'", "install httpfs", "set lock_configuration = false",
                                 "set enable_external_access = true"])  # fmt: skip
async def test_the_engine_itself_is_locked_up_without_the_judge(caller: Caller, sql: str) -> None:
    database: Any = caller.database
    async with database._sessions.lent() as session:
        with pytest.raises(ProviderError) as refused:
            await session.run(lambda handle: handle.execute(sql).fetchall())
    assert refused.value.code in {"invalid_argument", "unavailable"}
    assert written_elsewhere() == []


async def test_a_failed_statement_ends_its_transaction_and_nothing_is_committed_by_mistake(caller: Caller) -> None:
    handle = await caller.begin()
    await caller.execute("update stock set quantity = 50", transaction=handle)
    with pytest.raises(ProviderError, match="Duplicate") as duplicate:
        await caller.execute("insert into stock values ('S1', 1)", transaction=handle)
    assert duplicate.value.code == "already_exists"
    for attempt in (caller.rows(STATE, transaction=handle), caller.commit(handle)):
        with pytest.raises(ProviderError) as refused:
            await attempt
        assert refused.value.code == "failed_precondition"
    assert await caller.rows(STATE) == [[5, 10, "S4"]]


async def test_a_refused_text_does_not_end_its_transaction(caller: Caller) -> None:
    handle = await caller.begin()
    await caller.execute("update stock set quantity = 50", transaction=handle)
    with pytest.raises(ProviderError):
        await caller.rows("from read_text('/etc/passwd')", transaction=handle)
    await caller.commit(handle)
    assert await caller.rows(STATE) == [[5, 250, "S4"]]


async def test_a_batch_that_misses_its_rows_inside_a_transaction_cannot_be_committed_in_part(caller: Caller) -> None:
    handle = await caller.begin()
    statements = [
        api.Statement(sql="update stock set quantity = 50", expect_rows=5),
        api.Statement(sql="delete from stock where sku = 'none'", expect_rows=1),
    ]
    with pytest.raises(ProviderError) as missed:
        request = api.ExecuteBatchRequest(statements=statements, transaction=handle)
        await caller.database.execute_batch(request, caller.context)
    assert missed.value.errors[0].pointer == "/params/statements/1"
    with pytest.raises(ProviderError):
        await caller.commit(handle)
    assert await caller.rows(STATE) == [[5, 10, "S4"]]


async def test_two_transactions_that_change_one_row_conflict_and_the_first_wins(caller: Caller) -> None:
    first, second = await caller.begin(), await caller.begin()
    await caller.execute("update stock set quantity = 1 where sku = 'S4'", transaction=first)
    with pytest.raises(ProviderError) as refused:
        await caller.execute("update stock set quantity = 2 where sku = 'S4'", transaction=second)
    assert refused.value.code == "conflict"
    await caller.rollback(second)
    await caller.commit(first)
    assert await caller.rows("select quantity from stock where sku = 'S4'") == [[1]]


async def test_a_transaction_reads_what_was_there_when_it_began(caller: Caller) -> None:
    handle = await caller.begin(read_only=True)
    await caller.execute("delete from stock")
    assert await caller.rows("select count(*) from stock", transaction=handle) == [[5]]
    await caller.rollback(handle)
    assert await caller.rows("select count(*) from stock") == [[0]]


async def test_a_page_is_continued_until_another_statement_comes_in_between(caller: Caller) -> None:
    handle = await caller.begin()
    sql = "select sku from stock order by sku"
    page = await caller.query(sql, transaction=handle, max_rows=2)
    assert page.rows == [["S0"], ["S1"]]
    page = await caller.query(sql, transaction=handle, max_rows=2, cursor=page.next_cursor)
    assert (page.rows, page.truncated) == ([["S2"], ["S3"]], True)
    await caller.execute("update stock set quantity = 0", transaction=handle)
    with pytest.raises(ProviderError) as refused:
        await caller.query(sql, transaction=handle, max_rows=2, cursor=page.next_cursor)
    assert refused.value.code == "failed_precondition"
    await caller.rollback(handle)


async def test_values_that_json_has_no_form_for_are_shown_as_text(caller: Caller) -> None:
    answer = await caller.query(
        "select 170141183460469231731687303715884105727::hugeint as h, sum(quantity), 1.50::decimal(10, 2),"
        " timestamptz '2026-01-02 03:04:05+00', [1, 2], {'a': 'b'}, 'x'::blob, date '2026-01-02', null from stock"
    )
    assert answer.rows == [["170141183460469231731687303715884105727", 10, "1.50", "2026-01-02T03:04:05Z", "[1,2]",
                            '{"a":"b"}', {"$bytes": "eA=="}, "2026-01-02", None]]  # fmt: skip
    assert answer.columns[0] == api.Column(name="h", type="HUGEINT")
    with pytest.raises(ProviderError, match="infinite"):
        await caller.rows("select 1 / 0")


async def test_an_answer_is_cut_by_bytes_and_a_stream_is_not(opened: Any, caller: Caller) -> None:
    opened._max_bytes = 10_000
    sql = "select i, rpad('', 100, 'x') from generate_series(1, 5000) t(i)"
    answer = await caller.query(sql, max_rows=5000)
    assert answer.truncated
    assert 50 < answer.row_count < 100
    streamed = [item.rows async for item in opened.stream(api.StreamRequest(sql=sql, rows_per_item=1000), caller.context)
                if item.rows]  # fmt: skip
    assert [row[0] for rows in streamed for row in rows] == list(range(1, 5001))


async def test_a_long_query_is_stopped_with_its_call_and_holds_nobody_up(caller: Caller) -> None:
    endless = "select count(*) from generate_series(1, 100000000) a, generate_series(1, 1000000) b"
    task = asyncio.ensure_future(caller.rows(endless))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await caller.rows("select 1") == [[1]]
    assert caller.database._pool().in_use == 0


async def test_metadata_tells_comments_keys_and_estimates(caller: Caller) -> None:
    await caller.batch(
        "create schema sales",
        "create table sales.orders (id integer primary key, code varchar unique, amount decimal(10, 2) default 0)",
        "comment on table sales.orders is 'What was sold.'",
        "comment on column sales.orders.amount is 'Net.'",
        "create view big as select * from stock where quantity > 2",
    )
    request = api.MetadataRequest(limit=1)
    names, cursor = [], None
    while True:
        page = await caller.database.metadata(request, caller.context)
        names += [(table.schema, table.name, table.kind) for table in page.tables]
        cursor = page.next_cursor
        if not isinstance(cursor, str):
            break
        request = api.MetadataRequest(limit=1, cursor=cursor)
    assert names == [("main", "big", "view"), ("main", "stock", "table"), ("sales", "orders", "table")]
    (orders,) = (await caller.database.metadata(api.MetadataRequest(table="orders"), caller.context)).tables
    assert orders.comment == "What was sold."
    assert [(column.name, column.type, column.nullable) for column in orders.columns] == [
        ("id", "INTEGER", False), ("code", "VARCHAR", True), ("amount", "DECIMAL(10,2)", True),
    ]  # fmt: skip
    assert orders.columns[2].comment == "Net."
    assert orders.primary_key == ["id"]
    assert [(index.columns, index.unique) for index in orders.indexes] == [(["code"], True)]
    (stock,) = (await caller.database.metadata(api.MetadataRequest(table="stock"), caller.context)).tables
    assert stock.row_estimate == 5


async def test_new_limits_hold_while_the_old_object_is_still_open(caller: Caller, open_context: OpenContext) -> None:
    newer = DuckdbDatabase({"memory_megabytes": 128, "threads": 1}, open_context)
    await newer.open()
    other = Caller(newer, caller.context)
    await other.execute("insert into stock values ('new', 1)")
    assert await caller.rows("select count(*) from stock") == [[6]]
    database: Any = caller.database
    async with database._sessions.lent() as session:
        limits = await session.run(lambda handle: handle.execute("select current_setting('threads')").fetchall())
    assert limits == [(1,)]
    await newer.close()
    assert await caller.rows("select 1") == [[1]]


async def test_a_file_that_another_process_has_open_is_unavailable(open_context: OpenContext) -> None:
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    path = str(open_context.data_dir / FILE)
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", code, path, **pipes)
    assert other.stdout is not None
    assert await other.stdout.readline() == b"open\n"
    database = DuckdbDatabase({}, open_context)
    with pytest.raises(ProviderError) as refused:
        await database.open()
    assert refused.value.code == "unavailable"
    await database.close()
    await other.communicate(b"")
    database = DuckdbDatabase({}, open_context)
    await database.open()
    assert (await database.health()).status == "ok"
    await database.close()


async def test_returned_rows_beyond_an_answer_undo_the_change(opened: Any, caller: Caller) -> None:
    opened._max_bytes = 20
    with pytest.raises(ProviderError) as refused:
        await caller.execute("update stock set quantity = 9 returning sku, quantity")
    assert refused.value.code == "failed_precondition"
    opened._max_bytes = 1000
    answer = await caller.execute(
        "update stock set quantity = quantity + 1 where sku >= ? returning sku, quantity", "S3"
    )
    assert (answer.rows_affected, answer.rows) == (2, [["S3", 4], ["S4", 5]])
