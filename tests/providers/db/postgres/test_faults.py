"""Whatever fails underneath, callers are told the truth, and the next call works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

import pytest
from tests.providers.db.postgres.conftest import Caller, Open, Server, calling

from erp.contracts.models import db as api
from erp.errors import ProviderError

pytestmark = [pytest.mark.live, pytest.mark.anyio]


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110  (a server does not announce it)
            await asyncio.sleep(0.01)


async def refusal(work: Awaitable[Any]) -> ProviderError:
    with pytest.raises(ProviderError) as refused:
        await work
    return refused.value


SLOW_WRITE = "insert into stock select 'new', 1 from pg_sleep(20)"


async def test_a_change_whose_backend_dies_has_an_unknown_outcome_and_the_next_one_works(
    caller: Caller, server: Server
) -> None:
    task = asyncio.ensure_future(caller.execute(SLOW_WRITE))
    await until(lambda: server.backends(server.owner, "insert into stock%"))
    await server.kill(server.owner, "insert into stock%")

    assert (await refusal(task)).code == "outcome_unknown"
    assert await caller.rows("select count(*) from stock where sku = 'new'") == [[0]]
    assert (await caller.execute("insert into stock values ('new', 1)")).rows_affected == 1


async def test_a_query_whose_backend_dies_can_be_sent_again(caller: Caller, server: Server) -> None:
    sql = "select count(*) from generate_series(1, 1000000000)"
    task = asyncio.ensure_future(caller.rows(sql))
    await until(lambda: server.backends(server.owner, "select count%"))
    await server.kill(server.owner, "select count%")

    assert (await refusal(task)).code == "unavailable"
    assert await caller.rows("select 1") == [[1]]


async def test_connections_that_died_while_idle_are_replaced(caller: Caller, server: Server) -> None:
    await caller.rows("select 1")
    killed = await server.kill(server.owner)
    await asyncio.sleep(0.1)

    assert killed >= 2
    assert await caller.rows("select 2") == [[2]]
    assert (await caller.execute("delete from stock")).rows_affected == 5


async def test_a_batch_whose_backend_dies_before_its_commit_changes_nothing(caller: Caller, server: Server) -> None:
    task = asyncio.ensure_future(caller.batch("delete from stock", SLOW_WRITE))
    await until(lambda: server.backends(server.owner, "insert into stock%"))
    await server.kill(server.owner, "insert into stock%")

    assert (await refusal(task)).code == "unavailable"
    assert await caller.rows("select count(*) from stock") == [[5]]


async def test_a_transaction_whose_backend_dies_has_ended(caller: Caller, server: Server) -> None:
    transaction = await caller.begin()
    await caller.execute("delete from stock", transaction=transaction)
    await server.kill(server.owner, "%")
    await asyncio.sleep(0.1)

    assert (await refusal(caller.rows("select 1", transaction=transaction))).code in {"unavailable", "not_found"}
    assert (await refusal(caller.commit(transaction))).code == "not_found"
    assert await caller.rows("select count(*) from stock") == [[5]]


async def test_when_all_connections_are_busy_a_call_is_told_to_come_back(
    open_database: Open, call_context: Any
) -> None:
    caller = calling(await open_database(writers=1, wait_seconds=0.1, max_transactions=5), call_context)
    await caller.execute("create table t (a int)")
    transaction = await caller.begin()

    busy = await refusal(caller.execute("insert into t values (1)"))
    assert (busy.code, busy.retryable, busy.retry_after_seconds) == ("unavailable", True, 1.0)
    await caller.rollback(transaction)
    assert (await caller.execute("insert into t values (1)")).rows_affected == 1


async def test_no_more_transactions_are_open_than_there_may_be(open_database: Open, call_context: Any) -> None:
    caller = calling(await open_database(max_transactions=1), call_context)
    transaction = await caller.begin()

    assert (await refusal(caller.begin())).code == "unavailable"
    await caller.rollback(transaction)
    await caller.rollback(await caller.begin())


async def test_the_server_stops_a_statement_that_takes_too_long(open_database: Open, call_context: Any) -> None:
    caller = calling(await open_database(max_statement_seconds=0.3), call_context)
    await caller.execute("create table t (a int)")
    started = time.monotonic()

    assert (await refusal(caller.rows("select count(*) from generate_series(1, 1000000000)"))).code == "timeout"
    assert (await refusal(caller.execute("insert into t select 1 from pg_sleep(60)"))).code == "timeout"
    assert time.monotonic() - started < 20
    assert await caller.rows("select count(*) from t") == [[0]]


async def test_a_statement_that_was_given_up_stops_on_the_server_and_frees_its_connection(
    open_database: Open, server: Server, call_context: Any
) -> None:
    database = await open_database(readers=1, writers=1, wait_seconds=20)
    caller = calling(database, call_context)
    await caller.execute("create table t (a int)")
    for work in (caller.rows("select count(*) from generate_series(1, 1000000000)"),
                 caller.execute("insert into t select 1 from pg_sleep(60)")):  # fmt: skip
        task = asyncio.ensure_future(work)
        await until(lambda: _active(server))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert await caller.rows("select count(*) from t") == [[0]]
    assert (await caller.execute("insert into t values (1)")).rows_affected == 1
    await until(lambda: _is_idle(server))


async def _active(server: Server) -> bool:
    sql = "select 1 from pg_stat_activity where usename = $1 and state = 'active'"
    return bool(await server.rows(sql, server.owner))


async def _is_idle(server: Server) -> bool:
    return not await _active(server)


async def test_a_lease_that_runs_out_undoes_its_changes(open_database: Open, call_context: Any) -> None:
    caller = calling(await open_database(max_lease_seconds=0.2), call_context)
    await caller.execute("create table t (a int primary key)")
    transaction = await caller.begin(lease_seconds=60)
    await caller.execute("insert into t values (1)", transaction=transaction)

    # The same key: it waits for the transaction's end.
    assert (await caller.execute("insert into t values (1)")).rows_affected == 1
    gone = await refusal(caller.commit(transaction))
    assert (gone.code, gone.message) == (
        "not_found",
        "The transaction has ended: its lease ran out. Begin another one.",
    )


async def test_a_transaction_is_found_by_its_own_actor_alone(caller: Caller, call_context: Any) -> None:
    transaction = await caller.begin()
    for other in (
        calling(caller.database, call_context, tenant="rival"),
        calling(caller.database, call_context, name="key_2"),
    ):
        assert (await refusal(other.rows("select 1", transaction=transaction))).code == "not_found"
        assert (await refusal(other.rollback(transaction))).code == "not_found"
    await caller.rollback(transaction)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"port": 1}, "unavailable"),
        ({"host": "name.invalid"}, "unavailable"),
        ({"password": "wrong"}, "unauthenticated"),
        ({"user": "nobody_we_know"}, "unauthenticated"),
        ({"database": "no_such_database"}, "failed_precondition"),
        ({"host": "10.255.255.1"}, "failed_precondition"),
        ({"tls": "encrypt"}, "failed_precondition"),
        ({"tls": "verify", "tls_authority": "no certificate"}, "failed_precondition"),
    ],
)
async def test_a_connection_that_cannot_be_opened_says_why(
    open_database: Open, settings: dict[str, Any], code: str
) -> None:
    error = await refusal(open_database(**settings))

    assert error.code == code
    assert "a-password" not in f"{error!r} {error.detail}"


async def test_settings_and_locks_do_not_outlive_a_call(open_database: Open, call_context: Any) -> None:
    caller = calling(await open_database(writers=1), call_context)
    await caller.execute("select set_config('statement_timeout', '1', false), pg_advisory_lock(7)")
    transaction = await caller.begin()
    await caller.execute("select set_config('search_path', 'nowhere', false)", transaction=transaction)
    await caller.commit(transaction)

    (row,) = await caller.returned("select current_setting('search_path'), current_setting('statement_timeout')")
    assert row == ["public", "30s"]
    (locks,) = await caller.returned("select count(*) from pg_locks where locktype = 'advisory'")
    assert locks == [0]


async def test_a_reader_that_was_talked_into_writing_is_not_lent_again(open_database: Open, call_context: Any) -> None:
    database = await open_database(readers=1, functions=["set_config"])
    caller = calling(database, call_context)
    await caller.execute("create table t (a int)")
    # An operator who allows set_config gives the parser's barrier away; that of the server still stands.
    await caller.rows("select set_config('default_transaction_read_only', 'off', false)")

    async with database._opened().database.readers.lent() as connection:
        assert connection.get_settings().default_transaction_read_only == "on"


async def test_a_stream_of_a_dead_backend_ends_with_an_error(caller: Caller, server: Server) -> None:
    request = api.StreamRequest(sql="select n from generate_series(1, 100000) as g(n)", rows_per_item=10)
    stream = caller.database.stream(request, caller.context)
    await anext(stream)
    await anext(stream)
    await server.kill(server.owner)

    async def rest() -> None:
        async for _ in stream:
            pass

    assert (await refusal(rest())).code == "unavailable"
    assert await caller.rows("select 1") == [[1]]


class Stoppable:
    """A port in front of the server; what has come through it so far can be stopped for good."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._passing: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        self.stop()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def stop(self) -> None:
        """Pass nothing more on, and close nothing: as a network that is cut."""
        for task in self._passing:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", self._behind)
        self._writers += [writer, behind[1]]
        for source, target in ((reader, behind[1]), (behind[0], writer)):
            self._passing.add(asyncio.ensure_future(self._pass(source, target)))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
        target.close()


async def test_connections_that_fell_silent_are_replaced_when_calls_were_given_up(
    open_database: Open, server: Server, call_context: Any
) -> None:
    async with Stoppable(server.config["port"]) as way:
        database = await open_database(port=way.port, readers=1, writers=1, wait_seconds=30)
        caller = calling(database, call_context)
        await caller.execute("create table t (a int)")
        await caller.rows("select 1")
        way.stop()
        for work in (caller.rows("select 1"), caller.execute("insert into t values (1)")):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await work

        async with asyncio.timeout(40):
            assert await caller.rows("select 2") == [[2]]
            assert (await caller.execute("insert into t values (2)")).rows_affected == 1
        await database.close()


async def test_closing_ends_what_runs(open_database: Open, call_context: Any) -> None:
    database = await open_database()
    caller = calling(database, call_context)
    transaction = await caller.begin()
    running = asyncio.ensure_future(caller.rows("select count(*) from generate_series(1, 1000000000)"))
    await asyncio.sleep(0.1)
    async with asyncio.timeout(30):
        await database.close()
        assert (await refusal(running)).code == "unavailable"

    assert (await refusal(caller.rows("select 1", transaction=transaction))).code == "unavailable"


async def test_an_answer_that_would_fill_the_memory_is_cut_and_a_row_that_would_is_refused(
    open_database: Open, call_context: Any
) -> None:
    caller = calling(await open_database(max_result_bytes=65_536), call_context)
    await caller.execute("create table t (a text)")
    many = "select repeat('x', 20000) from generate_series(1, 100000)"
    huge = "select repeat('x', 100000000)"
    facts = {"transaction": await caller.begin(read_only=True)}
    cut = await caller.query(many, max_rows=100_000, **facts)
    next_page = await caller.query(many, max_rows=100_000, cursor=cut.next_cursor, **facts)
    for page in (await caller.query(many, max_rows=100_000), cut, next_page):
        assert (page.row_count, page.truncated) == (3, True)

    assert (await refusal(caller.query(huge))).code == "failed_precondition"
    assert (await refusal(caller.query(huge, **facts))).code == "failed_precondition"
    too_much = "insert into t select repeat('x', 20000) from generate_series(1, 1000) returning a"
    assert (await refusal(caller.execute(too_much))).code == "failed_precondition"
    assert await caller.rows("select count(*) from t") == [[0]]
