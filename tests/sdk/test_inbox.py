"""An event is handled once however often it comes, and again when handling it failed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from erp.sdk.inbox import Inbox

EVENT = {"id": "e-1", "source": "/services/order", "type": "erp.order.submitted"}


def connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=30, check_same_thread=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(connected(tmp_path / "own.db")) as connection:
        connection.execute("create table booked (event text)")
        Inbox(connection, consumer="billing").prepare()
    return tmp_path / "own.db"


@pytest.fixture
def own(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connected(path)) as connection:
        yield connection


def booking(event: dict[str, Any]) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute("insert into booked values (?)", (event["id"],))


def booked(path: Path) -> list[str]:
    with closing(connected(path)) as connection:
        return [row[0] for row in connection.execute("select event from booked order by event")]


def test_an_event_that_comes_again_is_not_handled_again(own: sqlite3.Connection, path: Path) -> None:
    inbox = Inbox(own, consumer="billing")
    assert [inbox.handle(EVENT, booking(EVENT)) for _ in range(3)] == [True, False, False]
    assert booked(path) == ["e-1"]


def test_each_consumer_handles_it_and_each_source_has_ids_of_its_own(own: sqlite3.Connection, path: Path) -> None:
    assert Inbox(own, consumer="billing").handle(EVENT, booking(EVENT))
    assert Inbox(own, consumer="shipping").handle(EVENT, booking(EVENT))
    assert Inbox(own, consumer="billing").handle({**EVENT, "source": "/other"}, booking(EVENT))
    assert booked(path) == ["e-1", "e-1", "e-1"]


def test_what_fails_leaves_nothing_and_can_be_handled_again(own: sqlite3.Connection, path: Path) -> None:
    inbox = Inbox(own, consumer="billing")

    def half(connection: sqlite3.Connection) -> None:
        booking(EVENT)(connection)
        message = "the power went out"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError):
        inbox.handle(EVENT, half)
    assert booked(path) == []
    assert inbox.handle(EVENT, booking(EVENT))
    assert booked(path) == ["e-1"]


def test_of_two_processes_with_the_same_event_one_handles_it(path: Path) -> None:
    begun, may_end = threading.Event(), threading.Event()
    found: dict[str, bool] = {}

    def slowly(connection: sqlite3.Connection) -> None:
        begun.set()
        may_end.wait(30)
        booking(EVENT)(connection)

    def first() -> None:
        with closing(connected(path)) as connection:
            found["first"] = Inbox(connection, consumer="billing").handle(EVENT, slowly)

    def second() -> None:
        with closing(connected(path)) as connection:
            found["second"] = Inbox(connection, consumer="billing").handle(EVENT, booking(EVENT))

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    may_end.set()
    for thread in threads:
        thread.join(30)

    assert found == {"first": True, "second": False}
    assert booked(path) == ["e-1"]


def test_notes_that_are_old_enough_are_forgotten(own: sqlite3.Connection, path: Path) -> None:
    inbox = Inbox(own, consumer="billing")
    inbox.handle(EVENT, booking(EVENT))
    inbox.forget(3600)
    assert inbox.handle(EVENT, booking(EVENT)) is False
    inbox.forget(-1)
    assert inbox.handle(EVENT, booking(EVENT)) is True
    assert booked(path) == ["e-1", "e-1"]


def test_a_connection_that_commits_by_itself_is_refused_with_the_remedy(path: Path) -> None:
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        pytest.raises(ValueError, match="Open it without autocommit"),
    ):
        Inbox(connection, consumer="billing")


@pytest.mark.parametrize("missing", ["id", "source"])
def test_an_event_without_its_name_is_refused_and_nothing_is_noted(
    own: sqlite3.Connection, path: Path, missing: str
) -> None:
    with pytest.raises(KeyError, match=missing):
        Inbox(own, consumer="billing").handle(_without(missing), booking(EVENT))
    assert booked(path) == []


def _without(name: str) -> dict[str, str]:
    return {key: value for key, value in EVENT.items() if key != name}
