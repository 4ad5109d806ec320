"""What is special to MySQL and MariaDB, on a live server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.conformance.live.db_mysql import VARIABLE, config
from tests.providers.db.conftest import Caller
from tests.providers.db.corpus import Corpus, text

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.mysql.provider import MysqlDatabase
from erp.providers.db.mysql.statements import Statements
from erp.runtime.spi import OpenContext

CORPUS = Corpus("mysql")
STATE = "select count(*), max(quantity), max(sku) from stock"
REFUSED = {"invalid_argument", "permission_denied", "not_found"}


def settings(**more: Any) -> dict[str, Any]:
    return {**config(os.environ[VARIABLE]), **more}


@pytest.fixture(autouse=True)
def _this_machine_may_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture
async def opened(open_context: OpenContext, request: pytest.FixtureRequest) -> AsyncIterator[MysqlDatabase]:
    if not os.environ.get(VARIABLE):
        pytest.skip(f"db/mysql needs {VARIABLE}")
    made = MysqlDatabase(settings(**getattr(request, "param", {})), open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def caller(opened: Any, call_context: Any) -> Caller:
    made = Caller(opened, call_context(seconds=30))
    await _emptied(made)
    await made.execute(
        "create table stock (sku varchar(20) primary key, quantity integer not null check (quantity >= 0))"
    )
    await made.batch(*(f"insert into stock values ('S{number}', {number})" for number in range(5)))
    return made


async def _emptied(caller: Caller) -> None:
    """Drop what earlier tests have left; a table that others refer to can go when they are gone."""
    tables: list[api.Table] = []
    for _ in range(5):
        tables = (await caller.database.metadata(api.MetadataRequest(), caller.context)).tables
        for table in tables:
            with suppress(ProviderError):
                await caller.execute(f"drop {table.kind} if exists `{table.name}`")
        if not tables:
            return
    pytest.fail(f"these tables stay: {[table.name for table in tables]}")


async def refusal(attempt: Awaitable[Any]) -> str | None:
    """Return the code with which an attempt is refused; None when it is answered."""
    try:
        await attempt
    except ProviderError as error:
        return error.code
    return None


async def state(caller: Caller) -> Any:
    """Return what an attempt could have changed: rows, schema, files."""
    tables = (await caller.database.metadata(api.MetadataRequest(), caller.context)).tables
    shapes = [(table.name, [column.name for column in table.columns]) for table in tables]
    return await caller.rows(STATE), shapes, written_elsewhere()


def written_elsewhere() -> list[Path]:
    return list(Path("/tmp").glob("evil*"))


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    CORPUS.require(150)


@pytest.mark.parametrize(
    ("kind", "sql"),
    [param for param in CORPUS.params("query") if param.values[0] not in {"too long", "left to the server"}],
)
def test_an_attempt_is_refused_before_the_server_sees_it(kind: str, sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        Statements("erp").query(sql).require(0)
    assert refused.value.code == "invalid_argument", kind


@pytest.mark.live
@pytest.mark.anyio
async def test_no_attempt_changes_anything_on_the_server(caller: Caller) -> None:
    await caller.execute("create table big (id integer primary key)")
    await caller.execute(
        "insert into big with recursive n(i) as (select 1 union all select i + 1 from n where i < 900) select i from n"
    )
    before = await state(caller)
    for action, attempt in (("query", caller.query), ("execute", caller.execute)):
        for kind, entries in CORPUS.kinds[action].items():
            if kind == "too long":
                continue
            for entry in entries:
                assert await refusal(attempt(text(entry))) in REFUSED, (action, kind, text(entry)[:100])
    assert await state(caller) == before


@pytest.mark.live
@pytest.mark.anyio
async def test_the_server_itself_refuses_changes_on_connections_that_read(caller: Caller) -> None:
    database: Any = caller.database
    for sql in ("insert into stock values ('x', 1)", "delete from stock", "create table evil (a integer)",
                "drop table stock", "select load_file('/etc/passwd') is null or 1 / 0",
                "select 1 into outfile '/tmp/evil'", "select * from mysql.user", "select 1; delete from stock"):  # fmt: skip
        async with database._database.lent(database._database.readers) as connection:
            code = await refusal(database._database.read(connection, sql, (), 10, 1000))
        assert code in REFUSED or "load_file" in sql, sql
    assert (await state(caller))[0] == [[5, 4, "S4"]]
    assert not written_elsewhere()


@pytest.mark.live
@pytest.mark.anyio
@pytest.mark.parametrize("opened", [{"max_statement_seconds": 0.5}], indirect=True)
async def test_a_statement_that_takes_too_long_is_stopped_and_undone(caller: Caller) -> None:
    await caller.execute("create table big (id integer primary key)")
    await caller.execute(
        "insert into big with recursive n(i) as (select 1 union all select i + 1 from n where i < 900) select i from n"
    )
    (entry,) = CORPUS.kinds["query"]["too long"]
    assert await refusal(caller.query(text(entry))) == "timeout"
    endless = "insert into stock select concat('x', a.id, '-', b.id, '-', c.id), 1 from big a, big b, big c"
    assert await refusal(caller.execute(endless)) == "timeout"
    assert await caller.rows(STATE) == [[5, 4, "S4"]]


@pytest.mark.live
@pytest.mark.anyio
async def test_a_cancelled_statement_ends_on_the_server_too(caller: Caller) -> None:
    handle = await caller.begin()
    await caller.execute("update stock set quantity = 9 where sku = 'S1'", transaction=handle)
    waiting = asyncio.ensure_future(caller.execute("update stock set quantity = 7 where sku = 'S1'"))
    await asyncio.sleep(0.3)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await caller.commit(handle)
    assert (await caller.execute("update stock set quantity = 8 where sku = 'S1'")).rows_affected == 1
    await asyncio.sleep(0.3)
    assert await caller.rows("select quantity from stock where sku = 'S1'") == [[8]]


@pytest.mark.live
@pytest.mark.anyio
async def test_a_deadlock_undoes_one_of_the_two_and_says_so(caller: Caller) -> None:
    first, second = await caller.begin(), await caller.begin()
    await caller.execute("update stock set quantity = 9 where sku = 'S1'", transaction=first)
    await caller.execute("update stock set quantity = 9 where sku = 'S2'", transaction=second)
    both = await asyncio.gather(
        refusal(caller.execute("update stock set quantity = 9 where sku = 'S2'", transaction=first)),
        refusal(caller.execute("update stock set quantity = 9 where sku = 'S1'", transaction=second)),
    )
    assert sorted(both, key=str) == [None, "conflict"]
    ended, kept = (first, second) if both[0] else (second, first)
    assert await refusal(caller.commit(ended)) == "not_found"
    await caller.commit(kept)
    assert await caller.rows("select quantity from stock where sku in ('S1', 'S2')") == [[9], [9]]


@pytest.mark.live
@pytest.mark.anyio
async def test_a_change_of_the_schema_is_refused_where_it_would_commit(caller: Caller) -> None:
    handle = await caller.begin()
    await caller.execute("delete from stock", transaction=handle)
    assert await refusal(caller.execute("create table x (a integer)", transaction=handle)) == "failed_precondition"
    assert await refusal(caller.batch("delete from stock", "create table x (a integer)")) == "failed_precondition"
    await caller.rollback(handle)
    assert await caller.rows(STATE) == [[5, 4, "S4"]]


@pytest.mark.live
@pytest.mark.anyio
async def test_values_come_back_as_the_contract_shows_them(caller: Caller) -> None:
    await caller.execute(
        "create table t (id integer auto_increment primary key, d decimal(20, 4), ts timestamp(3), dt datetime(6), b blob,"
        " ti time, bits bit(4), note text comment 'Why.') comment 'All kinds.'"
    )
    answer = await caller.execute(
        "insert into t (d, ts, dt, b, ti, bits, note) values (?, ?, ?, ?, ?, ?, '100%s')", {"$decimal": "12345678901234.5678"},
        {"$datetime": "2026-01-02T03:04:05.5+02:00"}, {"$datetime": "2026-01-02T03:04:05.25"}, {"$bytes": "AP8="}, "-30:00:01", 5,
    )  # fmt: skip
    assert (answer.rows_affected, answer.last_insert_id) == (1, 1)
    assert await caller.rows("select d, ts, dt, b, ti, bits, note from t where note like '100%' and id = ?", 1) == [
        ["12345678901234.5678", "2026-01-02T01:04:05.500Z", "2026-01-02T03:04:05.250000", {"$bytes": "AP8="}, "-30:00:01",
         {"$bytes": "BQ=="}, "100%s"]
    ]  # fmt: skip
    (table,) = (await caller.database.metadata(api.MetadataRequest(table="t"), caller.context)).tables
    assert table.comment == "All kinds."
    assert table.columns[-1].comment == "Why."


@pytest.mark.live
@pytest.mark.anyio
async def test_an_answer_is_cut_by_bytes_and_the_connection_is_used_again(opened: Any, caller: Caller) -> None:
    await caller.execute("create table big (id integer primary key, body text)")
    await caller.execute(
        "insert into big with recursive n(i) as (select 1 union all select i + 1 from n where i < 900) select i, repeat('x', 1000) from n"
    )
    opened._max_bytes = 20_000
    answer = await caller.query("select id, body from big order by id limit 900", max_rows=900)
    assert (answer.truncated, answer.row_count) == (True, 19)
    items = [
        item
        async for item in opened.stream(api.StreamRequest(sql="select id, body from big order by id"), caller.context)
    ]
    assert [row[0] for item in items for row in item.rows or ()] == list(range(1, 901))
    handle = await caller.begin()
    assert (await caller.query("select id, body from big limit 900", max_rows=2, transaction=handle)).row_count == 2
    assert await caller.rows("select count(*) from big", transaction=handle) == [[900]]
    await caller.rollback(handle)


@pytest.mark.live
@pytest.mark.anyio
@pytest.mark.parametrize("opened", [{"tables": ["stock"]}], indirect=True)
async def test_only_listed_tables_can_be_named(opened: Any, open_context: OpenContext, call_context: Any) -> None:
    owner = Caller(MysqlDatabase(settings(), open_context), call_context(seconds=30))
    await owner.database.open()
    await owner.execute("drop table if exists hidden, stock")
    await owner.execute("create table stock (sku varchar(20) primary key, quantity integer)")
    await owner.execute("create table hidden (a integer)")
    caller = Caller(opened, call_context(seconds=30))
    assert (await caller.execute("insert into stock values ('a', 1)")).rows_affected == 1
    assert await caller.rows("select s.sku from stock s where quantity = ?", 1) == [["a"]]
    for sql in (
        "select * from hidden",
        "select 1 from stock join hidden",
        "with stock2 as (select * from hidden) select 1",
    ):
        assert await refusal(caller.query(sql)) == "invalid_argument"
    for sql in ("insert into hidden values (1)", "drop table hidden", "create table evil (a integer)", "truncate table stock",
                "insert into stock select a, 1 from hidden"):  # fmt: skip
        assert await refusal(caller.execute(sql)) == "invalid_argument"
    tables = (await opened.metadata(api.MetadataRequest(), caller.context)).tables
    assert [table.name for table in tables] == ["stock"]
    await owner.execute("drop table hidden")
    await owner.database.close()


@pytest.mark.live
@pytest.mark.anyio
async def test_tls_proves_the_server_or_nothing_is_sent(open_context: OpenContext, call_context: Any) -> None:
    authority = parse_qs(urlsplit(os.environ.get(VARIABLE, "")).query).get("authority")
    if not authority:
        pytest.skip(f"TLS of db/mysql needs {VARIABLE} with ?authority=FILE")
    pem = Path(authority[0]).read_text()  # noqa: ASYNC240  (a small file, once)
    proven = Caller(MysqlDatabase(settings(tls="verify", tls_authority=pem), open_context), call_context(seconds=30))
    await proven.database.open()
    ((_, cipher),) = await _status(proven, "Ssl_cipher")
    assert cipher
    await proven.database.close()
    for more in ({"tls": "verify"}, {"tls": "verify", "host": "localhost", "tls_authority": pem}):
        stranger = MysqlDatabase(settings(**more), open_context)
        with pytest.raises(ProviderError) as refused:
            await stranger.open()
        assert refused.value.code == "failed_precondition"
        await stranger.close()
    blind = Caller(MysqlDatabase(settings(tls="encrypt"), open_context), call_context(seconds=30))
    await blind.database.open()
    ((_, cipher),) = await _status(blind, "Ssl_cipher")
    assert cipher
    await blind.database.close()


async def _status(caller: Caller, name: str) -> Any:
    database: Any = caller.database
    async with database._database.lent(database._database.readers) as connection:
        return (await database._database.read(connection, f"show session status like '{name}'", (), 2, 1000)).rows


async def _killed(*connections: Any) -> None:
    """End connections as an operator would, or a server that stops."""
    from erp.providers.db.mysql.connecting import Endpoint, closed, plain

    admin = await Endpoint.of(settings()).connect(read_only=False)
    for connection in connections:
        await plain(admin, f"KILL CONNECTION {connection.thread_id()}")
    await closed(admin)


@pytest.mark.live
@pytest.mark.anyio
async def test_a_change_whose_connection_is_lost_is_unknown_and_the_next_one_works(caller: Caller) -> None:
    database: Any = caller.database
    handle = await caller.begin()
    await caller.execute("update stock set quantity = 9 where sku = 'S1'", transaction=handle)
    waiting = asyncio.ensure_future(refusal(caller.execute("update stock set quantity = 7 where sku = 'S1'")))
    await asyncio.sleep(0.3)
    await _killed(database._database.writers.lent_now()[-1])
    assert await waiting == "outcome_unknown"
    await _killed(*database._database.writers.lent_now())
    assert await refusal(caller.commit(handle)) in {"outcome_unknown", "not_found"}
    assert await caller.rows(STATE) == [[5, 4, "S4"]]
    assert (await caller.execute("update stock set quantity = 8 where sku = 'S1'")).rows_affected == 1
    assert await caller.rows("select quantity from stock where sku = 'S1'") == [[8]]


@pytest.mark.live
@pytest.mark.anyio
async def test_connections_that_were_lost_while_idle_are_replaced(caller: Caller) -> None:
    database: Any = caller.database
    assert await caller.rows("select 1") == [[1]]
    await _killed(*(one for one, _ in database._database.readers._idle))
    await asyncio.sleep(0.2)
    assert await caller.rows("select 1") == [[1]]
    assert (await database.health()).status == "ok"
