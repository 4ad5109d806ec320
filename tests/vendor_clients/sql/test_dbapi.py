"""A database behind a blocking driver, proven on Python's own SQLite driver."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from erp.contracts.models.db import Column
from erp.errors import ProviderError
from erp.runtime.spi import UNSET, ErrorCode
from erp.vendor_clients.sql.dbapi import DbapiDatabase, Prepared
from erp.vendor_clients.sql.lending import Terms

pytestmark = pytest.mark.anyio
ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


class Counted(sqlite3.Connection):
    """A connection that notes its end."""

    closed: ClassVar[list[Any]]

    def close(self) -> None:
        self.closed.append(self)
        super().close()


class SqliteEngine:
    """The smallest engine."""

    savepoint_sql = "SAVEPOINT {name}"
    rollback_to_sql = "ROLLBACK TO {name}"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_down = False
        self.silence: threading.Event | None = None
        """Until it is set nothing answers, whatever is stopped."""
        self.closed: list[Any] = []
        self._factory: type[Counted] = type("OwnCounted", (Counted,), {"closed": self.closed})

    def connect(self, *, read_only: bool) -> sqlite3.Connection:
        mode = "ro" if read_only else "rw"
        return sqlite3.connect(
            f"file:{self._path}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            factory=self._factory,
        )

    def begin(self, connection: Any, *, read_only: bool, isolation: str | None) -> None:
        assert isolation is None
        connection.execute("BEGIN" if read_only else "BEGIN IMMEDIATE")

    def commit(self, connection: Any) -> None:
        connection.execute("COMMIT")

    def rollback(self, connection: Any) -> None:
        connection.execute("ROLLBACK")

    def run(self, connection: Any, sql: str, given: Sequence[Any]) -> Any:
        if self.is_down:
            raise ConnectionResetError
        if self.silence is not None:
            self.silence.wait(30)
        return connection.execute(sql, given)

    def columns(self, cursor: Any) -> list[Column]:
        return [Column(name=each[0]) for each in cursor.description or ()]

    def rows(self, cursor: Any, count: int) -> list[Any]:
        rows: list[Any] = cursor.fetchmany(count)
        return rows

    def affected(self, cursor: Any) -> int:
        return int(cursor.rowcount)

    def stop(self, connection: Any) -> None:
        connection.interrupt()

    def is_usable(self, connection: Any) -> bool:
        assert connection is not None
        return True

    def explained(self, error: Exception) -> ProviderError:
        return ProviderError(ErrorCode.INVALID_ARGUMENT, f"It failed: {error}.")

    def is_lost(self, error: Exception) -> bool:
        return isinstance(error, ConnectionResetError)


@pytest.fixture
def engine(tmp_path: Path) -> SqliteEngine:
    path = tmp_path / "database"
    with sqlite3.connect(path) as made:
        made.execute("create table stock (sku text primary key, quantity integer)")
        made.executemany("insert into stock values (?, ?)", [(f"S{number}", number) for number in range(5)])
    made.close()
    return SqliteEngine(path)


@pytest.fixture
async def database(engine: SqliteEngine) -> AsyncIterator[DbapiDatabase]:
    terms = Terms(size=2, wait_seconds=5.0)
    made = DbapiDatabase(engine, readers=terms, writers=terms, seconds=20.0, max_bytes=10_000, name="test")
    await made.open()
    yield made
    await made.close()


async def rows(database: DbapiDatabase, sql: str, *given: Any, max_rows: int = 10) -> list[Any]:
    return (await database.query(Prepared(sql, given), max_rows)).rows


TOTAL = "select count(*), sum(quantity) from stock"


async def test_a_query_is_bounded_and_says_so(database: DbapiDatabase) -> None:
    answer = await database.query(Prepared("select sku from stock order by sku", ()), 2)
    assert (answer.rows, answer.row_count, answer.truncated) == ([["S0"], ["S1"]], 2, True)
    assert await rows(database, "select sku from stock where quantity > ?", 3) == [["S4"]]


async def test_a_change_is_no_query_and_a_reader_cannot_make_one(database: DbapiDatabase) -> None:
    for sql in ("delete from stock", "create table x (a)"):
        with pytest.raises(ProviderError) as refused:
            await rows(database, sql)
        assert refused.value.code == "invalid_argument"
    assert await rows(database, TOTAL) == [[5, 10]]


async def test_rows_that_come_back_are_bounded_before_they_are_durable(database: DbapiDatabase) -> None:
    grown = Prepared("update stock set sku = sku || ? returning sku", ("x" * 9000,), returns=True)
    with pytest.raises(ProviderError) as refused:
        await database.execute(grown)
    assert refused.value.code == "failed_precondition"
    answer = await database.execute(
        Prepared("update stock set quantity = 9 where sku = 'S1' returning sku", (), returns=True)
    )
    assert (answer.rows_affected, answer.rows) == (1, [["S1"]])
    assert await rows(database, "select max(length(sku)) from stock") == [[2]]


async def test_a_batch_takes_effect_whole_or_not_at_all(database: DbapiDatabase) -> None:
    change = Prepared("update stock set quantity = 0", ())
    with pytest.raises(ProviderError) as refused:
        await database.batch([(change, UNSET), (Prepared("delete from stock where sku = 'none'", ()), 1)])
    assert refused.value.errors[0].pointer == "/params/statements/1/expect_rows"
    assert await rows(database, TOTAL) == [[5, 10]]
    done = await database.batch([(change, 5), (Prepared("delete from stock where sku = 'S0'", ()), 1)])
    assert [effect.rows_affected for effect in done.results] == [5, 1]
    assert await rows(database, TOTAL) == [[4, 0]]


async def test_a_session_goes_back_to_its_savepoints(database: DbapiDatabase) -> None:
    session = await database.session(read_only=False)
    await session.change(Prepared("delete from stock where sku = 'S0'", ()), 100, is_alone=False)
    await session.savepoint("a")
    await session.change(Prepared("delete from stock", ()), 100, is_alone=False)
    await session.rollback_to("a")
    await session.commit()
    session.release()
    assert await rows(database, TOTAL) == [[4, 10]]
    assert database.pool().in_use == 0


async def test_a_lost_connection_leaves_a_change_unknown_and_is_not_lent_again(
    database: DbapiDatabase, engine: SqliteEngine
) -> None:
    engine.is_down = True
    with pytest.raises(ProviderError) as refused:
        await database.execute(Prepared("delete from stock", ()))
    assert refused.value.code == "outcome_unknown"
    engine.is_down = False
    assert (await database.execute(Prepared("update stock set quantity = 1", ()))).rows_affected == 5


async def test_a_stream_has_every_row_and_gives_its_session_back(database: DbapiDatabase) -> None:
    sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2500) select i from n"
    items = [item async for item in database.stream(Prepared(sql, ()), 1000)]
    assert [row[0] for item in items for row in item.rows or ()] == list(range(1, 2501))
    assert database.pool().in_use == 0


async def test_closing_stops_what_runs(database: DbapiDatabase) -> None:
    import asyncio

    task = asyncio.ensure_future(rows(database, ENDLESS))
    await asyncio.sleep(0.2)
    async with asyncio.timeout(20):
        await database.close()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], ProviderError)


@pytest.mark.slow
async def test_a_silent_server_holds_no_call_beyond_its_time_and_its_connections_are_given_up(
    database: DbapiDatabase, engine: SqliteEngine
) -> None:
    await rows(database, TOTAL)
    engine.silence = threading.Event()
    begun = time.monotonic()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await rows(database, TOTAL)
    assert time.monotonic() - begun < 15
    assert (database.pool().in_use, engine.closed) == (0, [])

    silence, engine.silence = engine.silence, None
    assert await rows(database, TOTAL) == [[5, 10]]
    silence.set()
    for _ in range(3000):
        if len(engine.closed) == 3:
            break
        await asyncio.sleep(0.01)
    assert len(engine.closed) == 3
    assert await rows(database, TOTAL) == [[5, 10]]


@pytest.mark.slow
async def test_what_became_of_a_change_that_a_silent_server_was_sent_is_unknown(engine: SqliteEngine) -> None:
    terms = Terms(size=2, wait_seconds=5.0)
    database = DbapiDatabase(engine, readers=terms, writers=terms, seconds=-0.95, max_bytes=10_000, name="test")
    await database.open()
    silence = engine.silence = threading.Event()
    change = Prepared("update stock set quantity = quantity + 1", ())
    with pytest.raises(ProviderError) as unknown:
        await database.execute(change)
    with pytest.raises(ProviderError) as silent:
        await rows(database, TOTAL)
    assert (unknown.value.code, silent.value.code) == ("outcome_unknown", "timeout")

    engine.silence = None
    silence.set()
    await database.close()
