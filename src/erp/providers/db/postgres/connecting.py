"""How the server is reached: address, TLS, credentials and the settings of each connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from erp.providers.db.postgres.failures import refused
from erp.runtime.spi import Config
from erp.vendor_clients.guarded_tcp import permitted_address, tls_for

if TYPE_CHECKING:
    from erp.vendor_clients.postgres_wire import Wire

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
CACHED_STATEMENTS = 256
SPARE_BYTES = 4 * 1024 * 1024
"""For the frames around values, and for what the provider itself asks about the schema."""
_SETTINGS = {
    "application_name": "erp-provider-layer",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
    "row_security": "on",
    "default_transaction_isolation": "read committed",
}
"""On which reading statements and writing values relies, whatever the database's defaults are."""


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
    settings: tuple[tuple[str, str], ...] = ()
    answer_bytes: int = 2**31
    """What the server may send for one request at most."""

    @classmethod
    def of(cls, config: Config) -> Endpoint:
        """Return what the configuration says."""
        statement = int(config.get("max_statement_seconds", 30.0) * 1000)
        idle = int(config.get("max_lease_seconds", 60.0) * 1000) + 10_000
        schema = config.get("schema", "public")
        settings = {
            "statement_timeout": str(statement),
            "idle_in_transaction_session_timeout": str(idle),
            "search_path": "public" if schema == "public" else f'"{schema}", public',
        }
        return cls(
            host=config["host"],
            port=config.get("port", 5432),
            database=config["database"],
            user=config["user"],
            password=config.get("password", ""),
            tls=config.get("tls", "verify"),
            tls_authority=config.get("tls_authority"),
            settings=tuple(settings.items()),
            answer_bytes=2 * config.get("max_result_bytes", 16_777_216) + SPARE_BYTES,
        )

    async def connect(self, more: Mapping[str, str]) -> Wire:
        """Open a connection with further settings.

        Raises:
            ProviderError: ``unavailable``, ``unauthenticated``, or ``failed_precondition`` when TLS or the database is not
                what is configured.
        """
        import asyncpg

        from erp.vendor_clients.postgres_wire import Wire

        address = await permitted_address(self.host, self.port)
        tls = None
        if self.tls != "disable":
            tls = tls_for(self.host, verify=self.tls == "verify", authority=self.tls_authority)
        try:
            made: Wire = await asyncpg.connect(
                host=address,
                port=self.port,
                database=self.database,
                user=self.user,
                password=self.password,
                ssl=tls or False,
                timeout=CONNECT_SECONDS,
                statement_cache_size=CACHED_STATEMENTS,
                max_cached_statement_lifetime=3600,
                server_settings={**_SETTINGS, **dict(self.settings), **more},
                connection_class=Wire,
            )
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise refused(error) from error
        await made.prepare_types()
        made.bound(self.answer_bytes)
        return made


async def closed(connection: Wire) -> None:
    """Close a connection, politely if the server answers."""
    try:
        await asyncio.shield(connection.close(timeout=CLOSE_SECONDS))
    except (Exception, asyncio.CancelledError):
        connection.terminate()
        raise
