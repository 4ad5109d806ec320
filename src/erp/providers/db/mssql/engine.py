"""SQL Server through Microsoft's driver for Python: how it is reached, and what its SQL is like."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from erp.contracts.models.db import Column
from erp.providers.db.mssql import failures
from erp.runtime.spi import Config, ProviderError
from erp.vendor_clients.row_security.mssql import KEY
from erp.vendor_clients.sql.mssql_words import connection_words

LOGIN_SECONDS = 10
LOCK_WAIT_MILLISECONDS = 5000
LEVELS = {
    "read_committed": "READ COMMITTED",
    "repeatable_read": "REPEATABLE READ",
    "snapshot": "SNAPSHOT",
    "serializable": "SERIALIZABLE",
}
_USUAL_LEVEL = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
"""The level stays with the session, whose next statement may be somebody else's."""
_SETTINGS = (
    "SET NOCOUNT OFF; SET XACT_ABORT OFF; SET QUOTED_IDENTIFIER ON; SET ANSI_NULLS ON; SET ANSI_WARNINGS ON;"
    " SET ARITHABORT ON; SET CONCAT_NULL_YIELDS_NULL ON; SET DATEFORMAT ymd; SET IMPLICIT_TRANSACTIONS OFF;"
    f" SET LOCK_TIMEOUT {LOCK_WAIT_MILLISECONDS}"
)
"""On which reading statements relies, whatever the login's defaults are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server, a database and who we are there."""

    address: str
    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    read_user: str | None
    read_password: str | None = field(repr=False)
    tls: str
    statement_seconds: float
    tenant: str | None
    """Whose rows of shared tables are seen; None where all are."""

    @classmethod
    def of(cls, config: Config, tenant: str, address: str) -> Endpoint:
        """Return what the configuration says."""
        return cls(
            address=address,
            host=config["host"],
            port=config.get("port", 1433),
            database=config["database"],
            user=config["user"],
            password=config.get("password", ""),
            read_user=config.get("read_user"),
            read_password=config.get("read_password"),
            tls=config.get("tls", "verify"),
            statement_seconds=config.get("max_statement_seconds", 30.0),
            tenant=tenant if config.get("mode") == "pooled" else None,
        )

    def words(self, *, read_only: bool) -> dict[str, str]:
        """Return the words of the connection string, which the driver escapes."""
        is_reader = read_only and self.read_user is not None
        words = connection_words(
            address=self.address,
            port=self.port,
            database=self.database,
            user=(self.read_user or self.user) if is_reader else self.user,
            password=(self.read_password or "") if is_reader else self.password,
            tls=self.tls,
        )
        intent = "ReadOnly" if is_reader else "ReadWrite"
        return {**words, "hostnameincertificate": self.host, "applicationintent": intent}


class MssqlEngine:
    """Statements take effect at once outside a transaction; what a query does in one is undone."""

    savepoint_sql = "SAVE TRANSACTION {name}"
    rollback_to_sql = "ROLLBACK TRANSACTION {name}"

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._running: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def connect(self, *, read_only: bool) -> Any:
        import mssql_python

        # The driver's own pool would hand a session with a tenant's context to another tenant.
        mssql_python.pooling(enabled=False)
        words: dict[str, Any] = dict(self._endpoint.words(read_only=read_only))
        connection = mssql_python.connect(autocommit=True, timeout=LOGIN_SECONDS, native_uuid=True, **words)
        connection.timeout = max(1, int(self._endpoint.statement_seconds))
        self.run(connection, _SETTINGS, ())
        if self._endpoint.tenant is not None:
            set_tenant = f"EXEC sp_set_session_context @key = N'{KEY}', @value = ?, @read_only = 1"
            self.run(connection, set_tenant, (self._endpoint.tenant,))
        return connection

    def begin(self, connection: Any, *, read_only: bool, isolation: str | None) -> None:  # noqa: ARG002
        """SQL Server has no transaction that only reads; whoever only reads undoes it."""
        level = LEVELS[isolation or "read_committed"]
        self.run(connection, f"SET TRANSACTION ISOLATION LEVEL {level}; BEGIN TRANSACTION", ())

    def commit(self, connection: Any) -> None:
        self.run(connection, f"COMMIT TRANSACTION; {_USUAL_LEVEL}", ())

    def rollback(self, connection: Any) -> None:
        """Undo it, unless the server has done so itself."""
        self.run(connection, f"IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; {_USUAL_LEVEL}", ())

    def run(self, connection: Any, sql: str, given: Sequence[Any]) -> Any:
        cursor = connection.cursor()
        self._running[connection] = cursor
        return cursor.execute(sql, *([tuple(given)] if given else []))

    def columns(self, cursor: Any) -> list[Column]:
        return [
            Column(name=each[0], type=getattr(each[1], "__name__", str(each[1]))) for each in cursor.description or ()
        ]

    def rows(self, cursor: Any, count: int) -> list[Any]:
        return [tuple(row) for row in cursor.fetchmany(count)]

    def affected(self, cursor: Any) -> int:
        return int(cursor.rowcount)

    def stop(self, connection: Any) -> None:
        """SQLCancel may be called from any thread (ODBC, "SQLCancel Function")."""
        cursor = self._running.get(connection)
        with suppress(Exception):
            if cursor is not None:
                cursor.hstmt._cancel()  # noqa: SLF001  (the driver offers it nowhere else)

    def is_usable(self, connection: Any) -> bool:
        return not connection.closed

    def explained(self, error: Exception) -> ProviderError:
        return failures.explained(error, is_shared=self._endpoint.tenant is not None)

    def is_lost(self, error: Exception) -> bool:
        return failures.is_lost(error)
