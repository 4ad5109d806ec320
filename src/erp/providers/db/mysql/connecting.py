"""How the server is reached: address, TLS, credentials and the settings of each connection."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from erp.providers.db.mysql.failures import explained, refused
from erp.runtime.spi import Config
from erp.vendor_clients.guarded_tcp import permitted_address, tls_for

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
LOCK_WAIT_SECONDS = 5
_MULTI_STATEMENTS = 1 << 16
_FOUND_ROWS = 2
"""Counts rows that were found rather than those whose values became others, as every other engine does."""
_AS_TEXT = frozenset({0, 10, 11, 13, 246})
"""Decimals, dates, times, years: the text the server writes is exact, and needs no object in between."""
_SQL_MODE = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,ONLY_FULL_GROUP_BY"
"""On which reading statements relies: neither ANSI_QUOTES nor NO_BACKSLASH_ESCAPES."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server, a database and who we are there."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    tls: str
    tls_authority: str | None = None
    statement_seconds: float = 30.0

    @classmethod
    def of(cls, config: Config) -> Endpoint:
        """Return what the configuration says."""
        return cls(
            host=config["host"],
            port=config.get("port", 3306),
            database=config["database"],
            user=config["user"],
            password=config.get("password", ""),
            tls=config.get("tls", "verify"),
            tls_authority=config.get("tls_authority"),
            statement_seconds=config.get("max_statement_seconds", 30.0),
        )

    async def connect(self, *, read_only: bool) -> Any:
        """Open a connection; in one that is read-only the server refuses changes of lasting rows.

        Raises:
            ProviderError: ``unavailable``, ``unauthenticated``, or ``failed_precondition`` when TLS or the database is not
                what is configured.
        """
        made = await self._driver()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await made.connect()
                await self._prepare(made, read_only=read_only)
        except asyncio.CancelledError:
            made.close()
            raise
        except Exception as error:
            made.close()
            raise refused(error) from error
        made.select_limit, made.endpoint = 0, self
        return made

    async def _driver(self) -> Any:
        from asyncmy import connection
        from asyncmy.converters import conversions

        address = await permitted_address(self.host, self.port)
        tls = None
        if self.tls != "disable":
            tls = tls_for(self.host, verify=self.tls == "verify", authority=self.tls_authority)
        driver: Any = connection.Connection  # published with types that miss most of it
        made = driver(
            host=address,
            port=self.port,
            database=self.database,
            user=self.user,
            password=self.password.encode(),
            ssl=tls,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            client_flag=_FOUND_ROWS,
            binary_prefix=True,
            conv={key: value for key, value in conversions.items() if key not in _AS_TEXT} | {7: _instant, 12: _moment},
            program_name="erp-provider-layer",
        )
        # The driver always asks for several statements in one text; without that the server refuses them.
        made._client_flag &= ~_MULTI_STATEMENTS  # noqa: SLF001  (the driver has no setting for it)
        return made

    async def _prepare(self, connection: Any, *, read_only: bool) -> None:
        access = "READ ONLY" if read_only else "READ WRITE"
        # The driver asks for warnings and prints them; nobody reads them there.
        settings = f"sql_notes = 0, max_error_count = 0, sql_mode = '{_SQL_MODE}', time_zone = '+00:00', innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}"
        await plain(connection, f"SET SESSION {settings}")
        await plain(connection, f"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, {access}")
        if "MariaDB" in connection.get_server_info():
            await plain(connection, f"SET SESSION max_statement_time = {self.statement_seconds}")
        else:
            # Of queries only; changes are stopped from outside.
            await plain(connection, f"SET SESSION max_execution_time = {max(1, int(self.statement_seconds * 1000))}")


def _instant(text: str) -> str:
    """A TIMESTAMP, which the server keeps in UTC, as RFC 3339 writes it."""
    return f"{text.replace(' ', 'T', 1)}Z"


def _moment(text: str) -> str:
    return text.replace(" ", "T", 1)


async def plain(connection: Any, sql: str) -> None:
    """Run a statement of the provider's own, which returns nothing."""
    try:
        await connection.query(sql)
    except Exception as error:
        raise explained(error) from error


def is_usable(connection: Any) -> bool:
    """Whether the connection is open, as far as this side knows."""
    return bool(connection.connected) and not connection._stream_broken  # noqa: SLF001  (there is no other way to ask)


def is_in_transaction(connection: Any) -> bool:
    """Whether the server said so with its last success."""
    return bool(connection.server_status & 1)


async def closed(connection: Any) -> None:
    """Close a connection, politely if the server answers."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.ensure_closed()
    connection.close()
