"""One connection to the server, with what asyncpg's public methods cannot do in one round trip. Loads asyncpg.

``Wire.run`` returns rows, columns and the server's word on what was done, and asks for no more rows than wanted:
``fetch`` takes all there are, and tells neither columns of an empty answer nor how many rows were affected.
"""

from __future__ import annotations

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


class Wire(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is published without types
    """A connection that runs a bounded statement in one round trip once it is prepared."""

    async def run(self, sql: str, arguments: Sequence[Any], limit: int = 0) -> Done:
        """Run one statement; ``limit`` rows at most are asked of the server, all with 0."""

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

    @contextmanager
    def _ended_when_confused(self) -> Iterator[None]:
        """Close the connection when driver and server no longer agree on what is going on, as after a lost one."""
        try:
            yield
        except asyncpg.exceptions.OutdatedSchemaCacheError:
            raise
        except asyncpg.InternalClientError as error:
            self.terminate()
            raise asyncpg.ConnectionDoesNotExistError(str(error)) from error


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
