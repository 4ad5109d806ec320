"""One connection to the server, with what asyncpg's public methods cannot do in one round trip. Loads asyncpg.

``Wire.run`` returns rows, columns and the server's word on what was done, and asks for no more rows than wanted:
``fetch`` takes all there are, and tells neither columns of an empty answer nor how many rows were affected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg

from erp.contracts.models.db import Column

_PLAIN = ("numeric", "money", "date", "time", "timetz", "interval", "uuid", "json", "jsonb", "xml", "inet", "cidr",
          "macaddr", "macaddr8", "point", "line", "lseg", "box", "path", "polygon", "circle", "tsvector", "tsquery", "bit",
          "varbit", "oid", "xid", "pg_lsn", "jsonpath")  # fmt: skip
"""Types whose values go both ways as the text the server writes and reads: exact, and quicker than objects."""
_INTEGERS = frozenset({"int2", "int4", "int8"})
RESET = "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET SESSION AUTHORIZATION; RESET ALL; DISCARD TEMP"


class Done:
    """What a statement has brought."""

    __slots__ = ("columns", "rows", "status")

    def __init__(self, rows: Sequence[Any], status: str, columns: list[Column]) -> None:
        self.rows = rows
        self.status = status
        self.columns = columns

    @property
    def rows_affected(self) -> int:
        """How many rows were changed; none for a query or a change of the schema."""
        word, _, count = self.status.rpartition(" ")
        return int(count) if count.isdigit() and not word.startswith("SELECT") else 0


class TooLargeError(Exception):
    """The server sent more bytes for one request than may be kept; the connection was ended."""


class Meter(asyncio.Protocol):
    """Stands between the socket and asyncpg, which keeps all of an answer however large it is; bounds each one."""

    def __init__(self, inner: Any, transport: Any, limit: int) -> None:
        self._inner = inner
        self._transport = transport
        self._limit = limit
        self._count = 0
        self.is_over = False

    def begin(self) -> None:
        """Count a new answer."""
        self._count = 0

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._count += len(data)
        if self._count > self._limit:
            self.is_over = True
            self._transport.abort()
        else:
            self._inner.data_received(data)


class Wire(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is published without types
    """A connection that runs a bounded statement in one round trip once it is prepared."""

    meter: Meter | None = None

    def bound(self, answer_bytes: int) -> None:
        """End the connection when an answer becomes larger."""
        self.meter = Meter(self._protocol, self._transport, answer_bytes)
        self._transport.set_protocol(self.meter)

    async def run(self, sql: str, arguments: Sequence[Any], limit: int = 0) -> Done:
        """Run one statement; ``limit`` rows at most are asked of the server, all with 0.

        Raises:
            TooLargeError: The answer is larger than may be; the connection is lost.
        """

        def bind(state: Any, timeout: float | None) -> Any:
            refuse_fractions(state._get_parameters(), arguments)  # noqa: SLF001  (asyncpg's own state of a statement)
            return self._protocol.bind_execute(
                state=state, args=arguments, portal_name="", limit=limit, return_extra=True, timeout=timeout
            )

        with self._ended_when_confused(), self._stmt_exclusive_section:
            (rows, status, _), state = await self._do_execute(sql, bind, None)
        return Done(rows, status.decode() if status else "", columns_of(state._get_attributes()))  # noqa: SLF001

    async def prepare_types(self) -> None:
        """Have values exchanged as the contract shows them."""
        for name in _PLAIN:
            await self.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=str, format="text")
        for name in ("timestamp", "timestamptz"):
            await self.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=_moment, format="text")

    async def plain(self, sql: str) -> str:
        """Run statements of the provider's own; return the server's word on the last one."""
        with self._ended_when_confused():
            status: str = await self.execute(sql)
        return status

    async def more(self, cursor: Any, count: int) -> Sequence[Any]:
        """Return the next rows of an open cursor; raises as ``run``."""
        with self._ended_when_confused():
            rows: Sequence[Any] = await cursor.fetch(count)
        return rows

    @contextmanager
    def _ended_when_confused(self) -> Iterator[None]:
        """Close the connection when driver and server no longer agree on what is going on, as after a lost one."""
        if self.meter is not None:
            self.meter.begin()
        try:
            yield
        except asyncpg.exceptions.OutdatedSchemaCacheError:
            raise
        except Exception as error:
            if self.meter is not None and self.meter.is_over:
                raise TooLargeError from error
            if isinstance(error, asyncpg.InternalClientError):
                self.terminate()
                raise asyncpg.ConnectionDoesNotExistError(str(error)) from error
            raise


def refuse_fractions(types: Sequence[Any], arguments: Sequence[Any]) -> None:
    """Refuse a fraction where an integer stands: asyncpg would cut it off without a word."""
    for number, (kind, value) in enumerate(zip(types, arguments, strict=False), 1):
        if type(value) is float and kind.name in _INTEGERS and not value.is_integer():
            message = f"invalid input for query argument ${number}: {value} (a fraction is no integer)"
            raise asyncpg.DataError(message)


def _moment(text: str) -> str:
    """``2026-11-22 10:00:00+00`` as RFC 3339 writes it; infinity stays what it is."""
    return text.replace(" ", "T", 1).removesuffix("+00") + ("Z" if text.endswith("+00") else "")


def columns_of(attributes: Sequence[Any]) -> list[Column]:
    """Name and type of the columns of an answer."""
    return [Column(name=one.name, type=one.type.name) for one in attributes]
