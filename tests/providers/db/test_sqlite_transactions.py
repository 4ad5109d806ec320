"""A transaction over several calls is whole, its owner's alone, and gone when its lease ends."""

from __future__ import annotations

import asyncio
import datetime
import sys
from typing import Any

import pytest
from tests.providers.db.conftest import Caller

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.sqlite.provider import FILE, SqliteDatabase
from erp.runtime.context import Actor
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio

TOTAL = "select sum(quantity) from stock"
ADD = "update stock set quantity = quantity + 1 where sku = 'S0'"
ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


async def test_a_committed_transaction_took_effect_as_one(caller: Caller) -> None:
    handle = await caller.begin()
    assert (await caller.execute(ADD, transaction=handle)).rows_affected == 1
    assert await caller.batch(ADD, ADD, transaction=handle) == [1, 1]
    assert await caller.rows(TOTAL, transaction=handle) == [[13]]
    assert await caller.rows(TOTAL) == [[10]]
    await caller.commit(handle)
    assert await caller.rows(TOTAL) == [[13]]


async def test_a_rolled_back_transaction_left_nothing(caller: Caller) -> None:
    handle = await caller.begin()
    await caller.execute("delete from stock", transaction=handle)
    await caller.execute("create table extra (a)", transaction=handle)
    await caller.rollback(handle)
    assert await caller.rows("select name from sqlite_master where type = 'table'") == [["stock"]]
    assert await caller.rows(TOTAL) == [[10]]
    assert (await caller.execute(ADD)).rows_affected == 1


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_a_handle_is_good_until_its_end_and_says_how_it_ended(caller: Caller, ending: str) -> None:
    handle = await caller.begin()
    await getattr(caller, ending)(handle)
    for again in (caller.commit(handle), caller.rollback(handle), caller.rows("select 1", transaction=handle)):
        with pytest.raises(ProviderError, match="has ended: it was") as refused:
            await again
        assert refused.value.code == "not_found"
    assert await caller.rows(TOTAL) == [[10]]


@pytest.mark.parametrize(("tenant", "name"), [("globex", "key_test"), ("acme", "key_other")])
async def test_a_handle_of_another_tenant_or_actor_is_not_found_and_stays_open(
    caller: Caller, call_context: Any, tenant: str, name: str
) -> None:
    handle = await caller.begin()
    await caller.execute(ADD, transaction=handle)
    stranger = Caller(caller.database, call_context(tenant=tenant, actor=Actor(id=name, tenant=tenant)))
    for attempt in (
        stranger.rows("select 1", transaction=handle),
        stranger.execute(ADD, transaction=handle),
        stranger.batch(ADD, transaction=handle),
        stranger.savepoint(handle, "p"),
        stranger.rollback(handle),
        stranger.commit(handle),
    ):
        with pytest.raises(ProviderError, match="There is no such transaction") as refused:
            await attempt
        assert refused.value.code == "not_found"
    await caller.commit(handle)
    with pytest.raises(ProviderError, match="There is no such transaction"):
        await stranger.commit(handle)
    assert await caller.rows(TOTAL) == [[11]]


async def test_a_lease_that_ends_rolls_back_and_frees_the_writer(caller: Caller) -> None:
    handle = await caller.begin(lease_seconds=0.05)
    await caller.execute(ADD, transaction=handle)
    assert (await caller.execute(ADD)).rows_affected == 1
    assert await caller.rows(TOTAL) == [[11]]
    with pytest.raises(ProviderError, match="its lease ran out") as refused:
        await caller.commit(handle)
    assert refused.value.code == "not_found"


async def test_every_call_renews_the_lease(caller: Caller) -> None:
    handle = await caller.begin(lease_seconds=0.15)
    for _ in range(5):
        await asyncio.sleep(0.06)
        await caller.execute(ADD, transaction=handle)
    await caller.commit(handle)
    assert await caller.rows(TOTAL) == [[15]]


@pytest.mark.parametrize("opened", [{"max_lease_seconds": 7, "max_transaction_seconds": 0.2}], indirect=True)
async def test_a_lease_is_bounded_and_told_and_not_renewed_for_ever(caller: Caller) -> None:
    before = datetime.datetime.now(datetime.UTC)
    begun = await caller.database.begin(api.BeginRequest(lease_seconds=3600), caller.context)
    assert begun.lease_ends_at - before < datetime.timedelta(seconds=1)
    ended = None
    for _ in range(20):
        try:
            await caller.rows("select 1", transaction=begun.transaction)
        except ProviderError as error:
            ended = error.code
            break
        await asyncio.sleep(0.02)
    assert ended == "not_found"
    assert (await caller.execute(ADD)).rows_affected == 1


async def test_a_failed_statement_is_undone_alone(caller: Caller) -> None:
    handle = await caller.begin()
    await caller.execute(ADD, transaction=handle)
    with pytest.raises(ProviderError) as refused:
        await caller.execute("insert or fail into stock values ('new', 1), ('S1', 1)", transaction=handle)
    assert refused.value.code == "already_exists"
    with pytest.raises(ProviderError):
        await caller.batch(ADD, "insert into nowhere values (1)", transaction=handle)
    assert await caller.rows("select count(*), sum(quantity) from stock", transaction=handle) == [[5, 11]]
    await caller.commit(handle)
    assert await caller.rows(TOTAL) == [[11]]


@pytest.mark.parametrize("sql", ["commit", "rollback", "begin", "savepoint x", "release erp_statement", "end"])
async def test_a_statement_cannot_end_the_transaction_it_is_in(caller: Caller, sql: str) -> None:
    handle = await caller.begin()
    await caller.execute(ADD, transaction=handle)
    for attempt in (caller.execute(sql, transaction=handle), caller.rows(sql, transaction=handle)):
        with pytest.raises(ProviderError) as refused:
            await attempt
        assert refused.value.code == "invalid_argument"
    await caller.rollback(handle)
    assert await caller.rows(TOTAL) == [[10]]


async def test_a_conflict_clause_that_undoes_everything_ends_the_transaction(caller: Caller) -> None:
    handle = await caller.begin()
    await caller.execute(ADD, transaction=handle)
    with pytest.raises(ProviderError) as refused:
        await caller.execute("insert or rollback into stock values ('S1', 1)", transaction=handle)
    assert refused.value.code == "already_exists"
    with pytest.raises(ProviderError, match="a failure undid it") as ended:
        await caller.execute(ADD, transaction=handle)
    assert ended.value.code == "not_found"
    assert await caller.rows(TOTAL) == [[10]]
    assert (await caller.execute(ADD)).rows_affected == 1


async def test_a_query_inside_cannot_write_either(caller: Caller) -> None:
    handle = await caller.begin()
    for sql in (ADD, "delete from stock returning sku", "create table evil (a)", "pragma query_only = off"):
        with pytest.raises(ProviderError) as refused:
            await caller.rows(sql, transaction=handle)
        assert refused.value.code == "invalid_argument"
    assert (await caller.execute(ADD, transaction=handle)).rows_affected == 1
    await caller.commit(handle)
    assert await caller.rows(TOTAL) == [[11]]


async def test_savepoints_undo_a_part_and_can_be_used_again(caller: Caller) -> None:
    handle = await caller.begin()
    await caller.savepoint(handle, "first")
    await caller.execute(ADD, transaction=handle)
    await caller.savepoint(handle, "second")
    await caller.execute(ADD, transaction=handle)
    await caller.rollback(handle, savepoint="second")
    assert await caller.rows(TOTAL, transaction=handle) == [[11]]
    await caller.rollback(handle, savepoint="first")
    assert await caller.rows(TOTAL, transaction=handle) == [[10]]
    with pytest.raises(ProviderError) as refused:
        await caller.rollback(handle, savepoint="second")
    assert refused.value.code == "not_found"
    await caller.execute(ADD, transaction=handle)
    await caller.rollback(handle, savepoint="first")
    await caller.execute(ADD, transaction=handle)
    await caller.commit(handle)
    assert await caller.rows(TOTAL) == [[11]]


@pytest.mark.parametrize("name", ["x; drop table stock", "erp_statement", '"'])
async def test_a_savepoint_nobody_made_is_not_found_however_it_is_called(caller: Caller, name: str) -> None:
    handle = await caller.begin()
    with pytest.raises(ProviderError) as refused:
        await caller.rollback(handle, savepoint=name)
    assert refused.value.code == "not_found"
    await caller.commit(handle)
    assert await caller.rows(TOTAL) == [[10]]


async def test_a_read_only_transaction_sees_one_moment_and_keeps_nobody_waiting(caller: Caller) -> None:
    handle = await caller.begin(read_only=True, isolation="snapshot")
    await caller.execute(ADD)
    assert await caller.rows(TOTAL, transaction=handle) == [[10]]
    assert await caller.rows(TOTAL) == [[11]]
    with pytest.raises(ProviderError) as refused:
        await caller.execute(ADD, transaction=handle)
    assert refused.value.code == "failed_precondition"
    await caller.commit(handle)
    assert await caller.rows(TOTAL) == [[11]]


@pytest.mark.parametrize("opened", [{"max_read_transactions": 2}], indirect=True)
async def test_read_only_transactions_are_bounded_and_queries_go_on(caller: Caller) -> None:
    handles = [await caller.begin(read_only=True) for _ in range(2)]
    with pytest.raises(ProviderError) as refused:
        await caller.begin(read_only=True)
    assert (refused.value.code, refused.value.retry_after_seconds) == ("unavailable", 1.0)
    assert await caller.rows(TOTAL) == [[10]]
    await caller.rollback(handles[0])
    await caller.rollback(await caller.begin(read_only=True))


@pytest.mark.parametrize("level", ["repeatable_read", "snapshot", "serializable"])
async def test_two_changing_transactions_are_serial(caller: Caller, level: str) -> None:
    first = await caller.begin(isolation=level)
    second = asyncio.create_task(caller.begin(isolation=level))
    await caller.execute(ADD, transaction=first)
    assert not second.done()
    await caller.commit(first)
    handle = await second
    assert await caller.rows(TOTAL, transaction=handle) == [[11]]
    await caller.rollback(handle)


async def test_a_level_that_sqlite_does_not_have_is_refused(caller: Caller) -> None:
    with pytest.raises(ProviderError) as refused:
        await caller.begin(isolation="read_committed")
    assert refused.value.code == "unsupported"
    await caller.rollback(await caller.begin())


async def test_a_commit_that_breaks_a_foreign_key_undoes_all(caller: Caller) -> None:
    await caller.execute("create table line (sku text references stock (sku) deferrable initially deferred)")
    handle = await caller.begin()
    await caller.execute("insert into line values ('nowhere')", transaction=handle)
    with pytest.raises(ProviderError) as refused:
        await caller.commit(handle)
    assert refused.value.code == "failed_precondition"
    assert await caller.rows("select count(*) from line") == [[0]]
    assert (await caller.execute("insert into line values ('S1')")).rows_affected == 1


async def test_calls_of_one_transaction_wait_for_each_other(caller: Caller) -> None:
    handle = await caller.begin()
    await asyncio.gather(*(caller.execute(ADD, transaction=handle) for _ in range(20)))
    await caller.commit(handle)
    assert await caller.rows(TOTAL) == [[30]]


async def test_a_cancelled_change_ends_the_transaction_and_a_cancelled_query_does_not(caller: Caller) -> None:
    handle = await caller.begin()
    await caller.execute(ADD, transaction=handle)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await caller.rows(ENDLESS, transaction=handle)
    assert await caller.rows(TOTAL, transaction=handle) == [[11]]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await caller.execute(f"insert into stock select 'x', 1 from ({ENDLESS})", transaction=handle)
    with pytest.raises(ProviderError) as refused:
        await caller.commit(handle)
    assert refused.value.code == "not_found"
    assert await caller.rows(TOTAL) == [[10]]


async def test_a_cancelled_begin_does_not_keep_the_writer(caller: Caller) -> None:
    first = await caller.begin()
    waiting = [asyncio.create_task(caller.begin()) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await caller.rollback(first)
    assert (await caller.execute(ADD)).rows_affected == 1


async def test_closing_rolls_back_what_is_open(caller: Caller, open_context: OpenContext) -> None:
    changing, reading = await caller.begin(), await caller.begin(read_only=True)
    await caller.execute(ADD, transaction=changing)
    running = asyncio.create_task(caller.rows(ENDLESS, transaction=reading))
    await asyncio.sleep(0.02)
    await asyncio.wait_for(caller.database.close(), 30)
    with pytest.raises(ProviderError):
        await running
    with pytest.raises(ProviderError):
        await caller.commit(changing)
    again = SqliteDatabase({}, open_context)
    await again.open()
    assert await Caller(again, caller.context).rows(TOTAL) == [[10]]
    await again.close()


async def test_a_truncated_answer_is_continued_in_its_transaction(caller: Caller) -> None:
    handle = await caller.begin(read_only=True)
    sql, seen = "select sku, random() from stock where quantity > ? order by sku", []
    page = await caller.query(sql, 0, max_rows=2, transaction=handle)
    await caller.execute("delete from stock")
    while page.truncated:
        seen += page.rows
        page = await caller.query(sql, 0, max_rows=1, transaction=handle, cursor=page.next_cursor)
    assert [sku for sku, _ in seen + page.rows] == ["S1", "S2", "S3", "S4"]


async def test_a_cursor_is_of_one_statement_good_once_and_ended_by_a_change(caller: Caller) -> None:
    handle = await caller.begin()
    sql = "select sku from stock"

    async def refused(**facts: Any) -> str:
        with pytest.raises(ProviderError) as error:
            await caller.query(sql, max_rows=1, transaction=handle, **facts)
        return str(error.value.code)

    page = await caller.query(sql, max_rows=1, transaction=handle)
    with pytest.raises(ProviderError):
        await caller.query("select quantity from stock", transaction=handle, cursor=page.next_cursor)
    await caller.query(sql, max_rows=1, transaction=handle, cursor=page.next_cursor)
    assert await refused(cursor=page.next_cursor) == "failed_precondition"
    page = await caller.query(sql, max_rows=1, transaction=handle)
    await caller.execute(ADD, transaction=handle)
    assert await refused(cursor=page.next_cursor) == "failed_precondition"
    with pytest.raises(ProviderError) as outside:
        await caller.query(sql, max_rows=1, cursor="c")
    assert outside.value.code == "invalid_argument"
    await caller.commit(handle)
    assert await caller.rows(TOTAL) == [[11]]


HOLDER = """
import asyncio, sys, time
from pathlib import Path
from erp.contracts.models import db as api
from erp.providers.db.sqlite.provider import SqliteDatabase
from erp.runtime.context import Actor, CallContext
from erp.runtime.standalone import place

async def main():
    context = CallContext(tenant="acme", actor=Actor(id="a", tenant="acme"), request_id="r", deadline=time.monotonic() + 60)
    database = SqliteDatabase({}, place(Path(sys.argv[1]), tenant="acme"))
    await database.open()
    handle = (await database.begin(api.BeginRequest(), context)).transaction
    await database.execute(api.ExecuteRequest(sql="delete from stock", transaction=handle), context)
    print("held", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_transaction_of_a_killed_process_is_undone_and_holds_nobody_up(
    caller: Caller, open_context: OpenContext
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(open_context.data_dir), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    process.kill()
    await process.wait()
    assert await caller.rows(TOTAL) == [[10]]
    assert (await caller.execute(ADD)).rows_affected == 1
    assert (open_context.data_dir / FILE).exists()
