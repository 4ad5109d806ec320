"""Changes that wait share a commit; each is whole, undone alone, and answered only once it is durable."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from erp.errors import ProviderError
from erp.providers.db.sqlite import writes
from erp.providers.db.sqlite.connections import GuardedConnection
from erp.providers.db.sqlite.file import DatabaseFile, FileSettings
from erp.providers.db.sqlite.guards import OwnFile

pytestmark = pytest.mark.anyio


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[DatabaseFile]:
    made = DatabaseFile(tmp_path / "database.sqlite3", FileSettings(statement_seconds=30.0), OwnFile())
    await made.open()
    await made.write(lambda c: c.execute("create table t (a integer primary key)"))
    yield made
    await made.close()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each transaction that is committed."""
    made: list[int] = []
    real = writes.committed

    def counted(connection: GuardedConnection) -> None:
        made.append(1)
        real(connection)

    monkeypatch.setattr(writes, "committed", counted)
    return made


def stored(file: DatabaseFile) -> list[int]:
    with closing(sqlite3.connect(file.path)) as connection:
        return [row[0] for row in connection.execute("select a from t order by a")]


def insertion(number: int, sql: str = "insert into t values ({})") -> Callable[[GuardedConnection], int]:
    def work(connection: GuardedConnection) -> int:
        connection.execute(sql.format(number))
        return number

    return work


async def all_of(file: DatabaseFile, *works: Callable[[GuardedConnection], int]) -> list[object]:
    """Run ``works`` so that all but the first wait for one transaction; return results and failures."""
    return list(await asyncio.gather(*(file.write(work) for work in works), return_exceptions=True))


async def test_what_waits_shares_one_commit(file: DatabaseFile, commits: list[int]) -> None:
    assert await all_of(file, *(insertion(number) for number in range(40))) == list(range(40))
    assert stored(file) == list(range(40))
    assert len(commits) <= 3


async def test_one_that_fails_is_undone_alone(file: DatabaseFile) -> None:
    def half(connection: GuardedConnection) -> int:
        connection.execute("insert into t values (100)")
        connection.execute("insert into t values (1)")
        return 0

    found = await all_of(file, insertion(1), half, insertion(2))

    assert (found[0], found[2]) == (1, 2)
    assert isinstance(found[1], ProviderError)
    assert found[1].code == "already_exists"
    assert stored(file) == [1, 2]


@pytest.mark.parametrize(
    "sql", ["insert or rollback into t values (1)", "insert or rollback into t select 1 union all select 7"]
)
async def test_one_that_ends_the_transaction_costs_the_others_nothing(file: DatabaseFile, sql: str) -> None:
    found = await all_of(file, insertion(1), insertion(2), insertion(0, sql), insertion(3))

    assert [found[0], found[1], found[3]] == [1, 2, 3]
    assert isinstance(found[2], ProviderError)
    assert stored(file) == [1, 2, 3]


async def test_what_is_checked_at_the_commit_fails_the_one_it_belongs_to(file: DatabaseFile) -> None:
    await file.write(lambda c: c.execute("create table child (a references t deferrable initially deferred)").rowcount)
    orphan = insertion(99, "insert into child values ({})")
    found = await all_of(file, insertion(1), orphan, insertion(2))

    assert (found[0], found[2]) == (1, 2)
    assert isinstance(found[1], ProviderError)
    assert found[1].code == "failed_precondition"
    assert stored(file) == [1, 2]


async def test_one_that_is_cancelled_is_stopped_and_costs_the_others_nothing(file: DatabaseFile) -> None:
    begun = threading.Event()

    def endless(connection: GuardedConnection) -> int:
        begun.set()
        sql = (
            "with recursive n(i) as (select 1 union all select i + 1 from n) insert into t select i from n where i < 0"
        )
        connection.execute(sql)
        return 0

    first = asyncio.create_task(file.write(insertion(1)))
    slow = asyncio.create_task(file.write(endless))
    others = [asyncio.create_task(file.write(insertion(number))) for number in (2, 3)]
    await asyncio.to_thread(begun.wait, 30)
    slow.cancel()

    assert await asyncio.wait_for(asyncio.gather(first, *others), 30) == [1, 2, 3]
    await asyncio.wait([slow], timeout=30)
    assert slow.cancelled()
    assert stored(file) == [1, 2, 3]


async def test_one_that_is_cancelled_while_it_waits_never_runs(file: DatabaseFile) -> None:
    released = threading.Event()
    first = asyncio.create_task(file.write(lambda _: released.wait(30)))
    await asyncio.sleep(0.05)
    dropped = asyncio.create_task(file.write(insertion(5)))
    await asyncio.sleep(0)
    dropped.cancel()
    released.set()

    assert await first is True
    await file.write(insertion(6))
    assert stored(file) == [6]


async def test_a_long_transaction_takes_no_more_along(file: DatabaseFile, commits: list[int]) -> None:
    def slow(connection: GuardedConnection) -> int:
        time.sleep(2 * writes.SHARED_SECONDS)
        return insertion(1)(connection)

    await all_of(file, insertion(0), slow, insertion(2), insertion(3))

    assert stored(file) == [0, 1, 2, 3]
    assert len(commits) >= 2


async def test_closing_refuses_what_waits(file: DatabaseFile) -> None:
    released = threading.Event()
    first = asyncio.create_task(file.write(lambda _: released.wait(30)))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(file.write(insertion(5)))
    await asyncio.sleep(0)
    closing_ = asyncio.create_task(file.close())
    with pytest.raises(ProviderError, match="The database is closed"):
        await waiting
    released.set()
    await closing_
    await asyncio.gather(first, return_exceptions=True)
    assert stored(file) == []
