"""Tables that tenants share: a statement runs in an engine of the tenant's own, which holds nothing but its rows.

DuckDB has no users, no authorizer and no row security, so nothing in the engine that has the file could stand under a
rewritten statement; and its optimizer moves conditions about, so that an expression might be evaluated on, and fail
with a value of, another tenant's row. So the engine that has the file (the pool) never sees a caller's statement:

1. The statement is rewritten (``safe_sql.isolation``) so that it names the tenant's rows alone.
2. Fixed statements carry the tenant's rows of the tables that it names into an engine in memory, and there it runs.
   What was not carried is not there, whatever the statement says and however the parsers err.
3. What a change did to the carried rows is carried back by fixed statements, in the transaction that read them; each
   names the tenant, and each must hit as many rows as were carried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from erp.providers.db.duckdb.changes import MAX_RETURNED_ROWS
from erp.providers.db.duckdb.sessions import Limits, opened
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.row_security.duckdb import ARRIVING, PooledTable, load
from erp.vendor_clients.row_security.names import quoted
from erp.vendor_clients.sql.pages import CHUNK

IN_MEMORY = Path(":memory:")


class Own(msgspec.Struct, frozen=True):
    """The values of a statement of one tenant, and what it changes."""

    values: Mapping[str, Any]
    target: str | None = None
    only_adds: bool = False
    """Whether no row that is there already matters to it, so that the table need not be carried."""


class Pool:
    """The engine that has the file, and one in memory for this tenant; both are ``root`` of sessions."""

    def __init__(self, path: Path, limits: Limits, tenant: str) -> None:
        """Raises ProviderError: ``failed_precondition`` when the file cannot be shared, ``unavailable`` when it is taken."""
        self._tenant = tenant
        with ExitStack() as undone:
            self._memory = opened(IN_MEMORY, replace(limits, spill_megabytes=0))
            undone.callback(self._memory.close)
            # The file's engine belongs to all tenants: a configuration of one of them sets nothing there.
            self._file = opened(path, Limits())
            undone.callback(self._file.close)
            self.tables = load(self._file, self._memory)
            undone.pop_all()

    def cursor(self) -> PooledHandle:
        """Return a connection for one session."""
        return PooledHandle(self._file.cursor(), self._memory.cursor(), self.tables, self._tenant)

    def close(self) -> None:
        """Close both engines; the file's stays open while other tenants use it."""
        self._memory.close()
        self._file.close()


class _Stream:
    """Rows of one engine as another reads them (https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html)."""

    def __init__(self, relation: Any) -> None:
        self._relation = relation

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._relation.__arrow_c_stream__(requested_schema)


class PooledHandle:
    """A connection as sessions use it: texts of the layer run on the file, statements of a caller in the tenant's engine."""

    def __init__(self, file: Any, memory: Any, tables: Mapping[str, PooledTable], tenant: str) -> None:
        self._file = file
        self._memory = memory
        self._tables = tables
        self._tenant = {"tenant": tenant}
        self._present: list[str] = []
        self._description: list[Any] | None = None
        self._rows: list[Any] = []

    def extract_statements(self, sql: str) -> Any:
        """Return the statements that the tenant's engine sees in ``sql``."""
        return self._memory.extract_statements(sql)

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run a text of the layer on the file, or a caller's statement, whose parameters are ``Own``, on the tenant's rows."""
        self._forget()
        if isinstance(statement, str):
            return self._file.execute(statement) if parameters is None else self._file.execute(statement, parameters)
        self._run(statement, parameters)
        return self

    def _run(self, statement: Any, own: Own) -> None:
        target = None if own.target is None else self._tables[own.target]
        for table in self._tables.values():
            is_changed = table is target and not own.only_adds
            # Too many tables at worst: a name in a string counts as well.
            if is_changed or table.held in statement.query:
                self._hold(table)
        if target is not None:
            self._place(target, with_rows=not own.only_adds)
        used = {name: value for name, value in own.values.items() if name in statement.named_parameters}
        self._memory.execute(statement, used)
        if target is not None:
            self._description = self._memory.description
            while len(self._rows) <= MAX_RETURNED_ROWS and (more := self._memory.fetchmany(CHUNK)):
                self._rows += more
            # One row too many: whoever reads them refuses the change.
            if len(self._rows) <= MAX_RETURNED_ROWS:
                self._carry_back(target, only_adds=own.only_adds)

    # -- the tenant's rows -------------------------------------------------------------------------

    def _hold(self, table: PooledTable) -> None:
        """Carry the tenant's rows into its engine."""
        self._memory.execute(table.holding())
        self._present.append(table.held)
        rows = self._file.sql(table.own_rows(), params=self._tenant)
        into = f"INSERT INTO {quoted(table.held)} FROM {ARRIVING}"
        _carried(rows, self._memory, into, {})

    def _place(self, table: PooledTable, *, with_rows: bool) -> None:
        self._memory.execute(table.target())
        self._present.append(table.name)
        if with_rows:
            self._memory.execute(f"INSERT INTO main.{quoted(table.name)} FROM {quoted(table.held)}")

    def _forget(self) -> None:
        """Drop what the statement before was given."""
        self._description, self._rows = None, []
        while self._present:
            self._memory.execute(f"DROP TABLE IF EXISTS temp.main.{quoted(self._present[-1])}")
            self._present.pop()

    def _carry_back(self, table: PooledTable, *, only_adds: bool) -> None:
        if _number(self._memory.execute(table.foreign(), self._tenant)):
            message = "The statement would make rows of another tenant; nothing was changed."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        if only_adds:
            self._apply(table, f"FROM main.{quoted(table.name)}", table.add())
            return
        self._apply(table, table.removed(), table.remove())
        self._apply(table, table.altered(), table.alter())
        self._apply(table, table.added(), table.add())

    def _apply(self, table: PooledTable, rows: str, change: str) -> None:
        """Make ``change``, which names the tenant, with ``rows`` of its engine."""
        expected = _number(self._memory.execute(f"SELECT count(*) FROM ({rows})"))  # noqa: S608
        if not expected:
            return
        made = _carried(self._memory.sql(rows), self._file, change, self._tenant)
        if made != expected:
            message = f"Rows of {table.name!r} changed meanwhile; nothing was changed. Try again."
            raise ProviderError(ErrorCode.CONFLICT, message)

    # -- the result, as a connection of DuckDB gives it ----------------------------------------------

    @property
    def description(self) -> Any:
        """Columns of the open result."""
        return self._memory.description if self._description is None else self._description

    def fetchmany(self, count: int) -> list[Any]:
        """Return the next rows."""
        if self._description is None:
            rows: list[Any] = self._memory.fetchmany(count)
            return rows
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows

    def fetchone(self) -> Sequence[Any] | None:
        """Return the next row."""
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def interrupt(self) -> None:
        """Stop what runs in either engine."""
        self._memory.interrupt()
        self._file.interrupt()

    def close(self) -> None:
        """Close both connections."""
        self._memory.close()
        self._file.close()


def _carried(rows: Any, handle: Any, change: str, values: Mapping[str, Any]) -> int:
    """Run ``change`` on ``handle`` with ``rows`` of another engine as what arrives; return how many rows it changed."""
    import duckdb

    handle.register(ARRIVING, _Stream(rows))
    try:
        return _number(handle.execute(change, values))
    finally:
        # In a transaction that has failed nothing can be dropped; its end drops it.
        with suppress(duckdb.Error):
            handle.unregister(ARRIVING)


def _number(result: Any) -> int:
    """Return the one number of a result, read to its end: DuckDB does nothing else before."""
    return int(result.fetchall()[0][0])
