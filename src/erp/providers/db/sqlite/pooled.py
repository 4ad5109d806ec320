"""The rules where tenants share a file: four barriers, each of which would do.

1. The statement is rewritten (``safe_sql.isolation``): tables become filtered subqueries, changes get a condition.
2. What is read are temporary views of the tenant's rows, whose names nobody can guess; the authorizer refuses to
   read a shared table in any other way, except the one that a change is about
   (https://www.sqlite.org/c3ref/set_authorizer.html names the view through which a column is read).
3. Temporary triggers refuse every change of a row that is, or would become, another tenant's.
4. The plan of each statement must find rows by the tenant's column, so that no expression of a statement is ever
   evaluated on another tenant's row, where its failing or its duration could tell something.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from erp.providers.db.sqlite.catalogue import quoted
from erp.providers.db.sqlite.functions import HARMLESS
from erp.providers.db.sqlite.guards import CHANGING_ROWS, MARK, ROW_SOURCES
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.row_security.sqlite import load

if TYPE_CHECKING:
    from erp.vendor_clients.row_security.sqlite import PooledTable
    from erp.vendor_clients.safe_sql.isolation import Confined, Isolation

MAX_PROVEN = 2000
LIKELIHOOD = "0.00001"
"""What makes SQLite find rows by the tenant's column even where ANALYZE saw one tenant alone and scanning looks as cheap;
without its figures the guess is as it was (https://www.sqlite.org/lang_corefunc.html#likelihood)."""
_VISIT = re.compile(r"^(SCAN|SEARCH) (\S+)")


class SharedFile:
    """The rules of one tenant in a file of several."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._token = f"erp_{secrets.token_hex(16)}_"
        self._proven: OrderedDict[str, None] = OrderedDict()
        self._target: str | None = None
        self.tables: dict[str, PooledTable] = {}

    def isolation(self) -> Isolation:
        """Return what rewrites this tenant's statements; known once a connection was prepared."""
        from erp.vendor_clients.safe_sql.isolation import Isolation
        from erp.vendor_clients.safe_sql.relations import Relation

        relations = {
            name: Relation(
                name=table.name,
                columns=table.columns,
                tenant_column=table.tenant_column,
                source=self._token + table.name,
                source_schema="temp",
                likelihood=LIKELIHOOD,
            )
            for name, table in self.tables.items()
        }
        return Isolation("sqlite", relations, HARMLESS, ROW_SOURCES)

    def prepare(self, connection: sqlite3.Connection, *, writes: bool) -> None:
        """Make the views and, where rows can change, the triggers, on this connection alone."""
        self.tables = self.tables or load(connection)
        own = self._token + "tenant"
        connection.create_function(own, 0, lambda: self._tenant, deterministic=True)
        for table in self.tables.values():
            connection.execute(
                f"CREATE TEMP VIEW {quoted(self._token + table.name)} AS SELECT * FROM main.{quoted(table.name)}"  # noqa: S608
                f" AS {quoted(self._token + 'rows')} WHERE likelihood({quoted(table.tenant_column)} = {own}(), {LIKELIHOOD})"
            )
            if writes:
                self._guard(connection, table, own)

    def _guard(self, connection: sqlite3.Connection, table: PooledTable, own: str) -> None:
        column = quoted(table.tenant_column)
        for event, rows in {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}.items():
            foreign = " OR ".join(f"{row}.{column} IS NOT {own}()" for row in rows)
            connection.execute(
                f"CREATE TEMP TRIGGER {quoted(self._token + event + table.name)} BEFORE {event} ON main.{quoted(table.name)}"
                f" WHEN {foreign} BEGIN SELECT RAISE(ABORT, 'a row of another tenant'); END"
            )

    # -- the authorizer --------------------------------------------------------------------------

    def may_read(
        self, action: int, first: str | None, second: str | None, database: str | None, source: str | None
    ) -> int:
        if action == sqlite3.SQLITE_READ:
            allowed = self._is_own_reading((first or "").lower(), second, database, source)
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = (second or "").lower() in HARMLESS or second == self._token + "tenant"
        else:
            allowed = action in {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def _is_own_reading(self, table: str, column: str | None, database: str | None, source: str | None) -> bool:
        if table in self.tables:
            return (source or "").startswith(self._token)
        if table.startswith(self._token):
            return True
        is_named_query = table.startswith("erp_cte_") and not column and database in (None, "main")
        return is_named_query or table in ROW_SOURCES

    def may_write(
        self, action: int, first: str | None, second: str | None, database: str | None, source: str | None
    ) -> int:
        table, column = (first or "").lower(), (second or "").lower()
        if table == MARK:
            allowed = database in ("temp", None) and action in CHANGING_ROWS | {sqlite3.SQLITE_READ}
        elif table in self.tables and action in CHANGING_ROWS:
            allowed = self._is_own_change(action, table, column)
        elif table in self.tables and action == sqlite3.SQLITE_READ and self._is_looked_up(table, column):
            allowed = True
        else:
            return self.may_read(action, first, second, database, source)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def _is_own_change(self, action: int, table: str, column: str) -> bool:
        """Whether it changes the target, or what a foreign key to it takes along, but moves no row to another tenant."""
        target = self.tables.get(self._target or "")
        if target is None or (action == sqlite3.SQLITE_UPDATE and column == self.tables[table].tenant_column):
            return False
        return table == self._target or table in target.relatives

    def _is_looked_up(self, table: str, column: str) -> bool:
        """Whether it is a column of the changed table, or of a foreign key, which SQLite itself looks up."""
        target = self.tables.get(self._target or "")
        return target is not None and (table == self._target or column in target.relatives.get(table, ()))

    # -- each statement --------------------------------------------------------------------------

    def enter(
        self, connection: sqlite3.Connection, confined: Confined, parameters: Mapping[str, Any], *, writes: bool
    ) -> None:
        """Prove the plan of a statement that is about to run on ``connection``.

        Raises:
            ProviderError: ``failed_precondition`` when it would visit rows of other tenants.
        """
        if writes:
            # There is one writer; readers, of which there are several, have no target.
            self._target = confined.target
        if confined.sql in self._proven:
            return
        names = {self._token + "rows", confined.alias}
        for row in connection.execute(f"EXPLAIN QUERY PLAN {confined.sql}", parameters).fetchall():
            visit = _VISIT.match(str(row[3]))
            if visit is not None and visit[2] in names and not self._finds_by_tenant(str(row[3])):
                message = "The statement would visit rows of other tenants to find its own. Write it more plainly."
                raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=str(row[3]).replace(self._token, ""))
        self._proven[confined.sql] = None
        if len(self._proven) > MAX_PROVEN:
            self._proven.popitem(last=False)

    def _finds_by_tenant(self, visit: str) -> bool:
        columns = {table.tenant_column for table in self.tables.values()}
        return visit.startswith("SEARCH") and any(f"({column}=?" in visit.lower() for column in columns)
