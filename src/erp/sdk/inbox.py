"""Handle every event once: what was handled is noted in the transaction that handles it.

An event is delivered at least once, under an id that stays the same. A consumer that writes to a database of its own keeps an
``Inbox`` there: the note that an event was handled and what the event led to become durable together, or not at all, whenever
the consumer dies.

Inbox(connection, consumer="billing")   a connection of the Python Database API 2.0 (PEP 249)
  .prepare()                            make the table, once
  .handle(event, work)                  ``work(connection)`` unless the event was handled before; True when it ran
  .forget(older_than_seconds)           drop old notes; keep them longer than the bus redelivers or replays
"""

from __future__ import annotations

import datetime
import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

TABLE = "erp_inbox"
_PREPARE = (
    f"create table if not exists {TABLE} (consumer varchar(128) not null, event varchar(64) not null,"
    " event_id varchar(256) not null, handled_at varchar(32) not null, primary key (consumer, event))"
)


class Inbox:
    """The events that one consumer has handled, in its own database.

    Two processes of a consumer may be given the same event at once: the database lets one note it, and the other one waits
    for that and finds it handled, or handles it when the first one fails.
    """

    def __init__(self, connection: Any, *, consumer: str, placeholder: str = "?") -> None:
        """``placeholder``: how statements of the driver mark a parameter (``?`` of sqlite3, ``%s`` of psycopg).

        Raises:
            ValueError: the connection commits every statement by itself, so that nothing could be noted together.
        """
        self._connection = connection
        self._consumer = consumer
        self._insert = f"insert into {TABLE} values ({', '.join([placeholder] * 4)})"  # noqa: S608  (a constant)
        self._delete = f"delete from {TABLE} where consumer = {placeholder} and handled_at < {placeholder}"  # noqa: S608  (a constant)
        if _commits_by_itself(connection):
            message = "The connection commits every statement by itself. Open it without autocommit."
            raise ValueError(message)

    def prepare(self) -> None:
        """Make the table where it is missing."""
        self._run(_PREPARE, ())
        self._connection.commit()

    def handle(self, event: Mapping[str, Any], work: Callable[[Any], object]) -> bool:
        """Note ``event`` and run ``work(connection)`` in one transaction; False when it was handled before.

        ``event`` is a CloudEvent: ``source`` and ``id`` together tell it from all others (CloudEvents 1.0, section 3.1.1).
        ``work`` must not commit. What it raises undoes everything, so that the event can be handled again.

        Raises:
            KeyError: the event has no ``id`` or ``source``.
        """
        note = (self._consumer, _key(event), str(event["id"])[:256], _moment(0.0))
        try:
            self._run(self._insert, note)
        except self._connection.IntegrityError:
            self._connection.rollback()
            return False
        except BaseException:
            self._connection.rollback()
            raise
        try:
            work(self._connection)
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            raise
        return True

    def forget(self, older_than_seconds: float) -> None:
        """Drop notes of events that were handled so long ago that they cannot come again."""
        self._run(self._delete, (self._consumer, _moment(-older_than_seconds)))
        self._connection.commit()

    def _run(self, sql: str, parameters: tuple[str, ...]) -> None:
        cursor = self._connection.cursor()
        try:
            cursor.execute(sql, parameters)
        finally:
            cursor.close()


def _key(event: Mapping[str, Any]) -> str:
    """Return the event's name in a length that every engine can index."""
    return hashlib.sha256(f"{event['source']}\0{event['id']}".encode()).hexdigest()


def _moment(seconds: float) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return moment.isoformat(timespec="microseconds")


def _commits_by_itself(connection: Any) -> bool:
    if getattr(connection, "autocommit", None) is True:
        return True
    # Where sqlite3 follows its older rules, no isolation level means autocommit; to psycopg it means the server's.
    is_legacy = getattr(connection, "autocommit", -1) == -1
    return isinstance(connection, sqlite3.Connection) and is_legacy and connection.isolation_level is None
