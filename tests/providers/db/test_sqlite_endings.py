"""However a call or the process ends, the embedded database is whole and goes on."""

from __future__ import annotations

import asyncio
import sys
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

ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
WRITER = """
import asyncio, sys
from pathlib import Path
from erp.providers.db.sqlite.file import DatabaseFile, FileSettings
from erp.providers.db.sqlite.guards import OwnFile

async def main():
    file = DatabaseFile(Path(sys.argv[1]), FileSettings(readers=1), OwnFile())
    await file.open()
    await file.write(lambda c: c.execute("create table pair (a integer primary key, b)"))
    for n in range(0, 1_000_000, 2):
        def both(c):
            c.execute("insert into pair values (?, 1)", (n,))
            c.execute("insert into pair values (?, 1)", (n + 1,))
        await file.write(both)
        print(n + 1, flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def database(open_context: OpenContext) -> AsyncIterator[SqliteDatabase]:
    made = SqliteDatabase({"readers": 2}, open_context)
    await made.open()
    yield made
    await asyncio.wait_for(made.close(), 30)


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


async def rows(database: SqliteDatabase, ctx: CallContext, sql: str) -> Any:
    return (await database.query(api.QueryRequest(sql=sql), ctx)).rows


@pytest.mark.parametrize("steps", range(5))
async def test_a_query_cancelled_before_its_statement_began_stops_too(
    database: SqliteDatabase, ctx: CallContext, steps: int
) -> None:
    calls = [asyncio.create_task(rows(database, ctx, ENDLESS)) for _ in range(6)]
    for _ in range(steps):
        await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    started = time.monotonic()
    results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
    assert {type(result) for result in results} == {asyncio.CancelledError}
    assert time.monotonic() - started < 20
    assert await asyncio.gather(*(rows(database, ctx, "select 1") for _ in range(6))) == [[[1]]] * 6


async def test_a_call_cancelled_twice_still_gives_its_connection_back_idle(
    database: SqliteDatabase, ctx: CallContext
) -> None:
    async def execute(sql: str) -> int:
        return (await database.execute(api.ExecuteRequest(sql=sql), ctx)).rows_affected

    await execute("create table t (a)")
    call = asyncio.create_task(execute(ENDLESS.replace("with", "insert into t with", 1)))
    await asyncio.sleep(0.02)
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    assert await asyncio.wait_for(execute("insert into t values (1)"), 30) == 1
    assert call.cancelled()
    assert await rows(database, ctx, "select a from t") == [[1]]


async def test_closing_stops_what_runs_and_refuses_what_waits(open_context: OpenContext, ctx: CallContext) -> None:
    made = SqliteDatabase({"readers": 1}, open_context)
    await made.open()
    calls = [asyncio.create_task(rows(made, ctx, ENDLESS)) for _ in range(4)]
    await asyncio.sleep(0.02)
    await asyncio.wait_for(made.close(), 30)
    results = await asyncio.gather(*calls, return_exceptions=True)
    codes = [result.code for result in results if isinstance(result, ProviderError)]
    assert codes == ["timeout", "unavailable", "unavailable", "unavailable"]


async def test_a_stream_left_early_frees_its_reader(database: SqliteDatabase, ctx: CallContext) -> None:
    sql = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
    for _ in range(4):
        stream = database.stream(api.StreamRequest(sql=sql, rows_per_item=2), ctx)
        items = [await anext(stream), await anext(stream)]
        await stream.aclose()
        assert items[1].rows == [[1], [2]]
    assert await rows(database, ctx, "select 1") == [[1]]


async def test_what_was_confirmed_survives_a_killed_process_and_nothing_is_there_by_half(
    open_context: OpenContext, ctx: CallContext
) -> None:
    path = open_context.data_dir / FILE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(20):
        await process.stdout.readline()
    process.kill()
    confirmed = (await process.stdout.read()).splitlines()[-1:] or [b"39"]
    await process.wait()

    again = SqliteDatabase({}, open_context)
    await again.open()
    [[count, last]] = await rows(again, ctx, "select count(*), max(a) from pair")
    assert last >= int(confirmed[0])
    assert count == last + 1
    assert count % 2 == 0
    added = await again.execute(api.ExecuteRequest(sql="insert into pair values (-1, 1)"), ctx)
    assert added.rows_affected == 1
    await again.close()
