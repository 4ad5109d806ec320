"""Snowflake through its connector: how it is reached, and what its SQL is like."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.request import getproxies

from erp.contracts.models.db import Column
from erp.providers.db.snowflake import failures
from erp.runtime.spi import Config, ErrorCode, ProviderError

LOGIN_SECONDS = 10
LISTENER_SECONDS = 5.0
_PLAIN = re.compile(r"[A-Z_][A-Z0-9_$]*")
_EXACT = 2**63 - 1
_TYPES = ("fixed", "real", "text", "date", "timestamp", "variant", "timestamp_ltz", "timestamp_tz", "timestamp_ntz",
          "object", "array", "binary", "time", "boolean", "geography", "geometry", "vector", "map", "file")  # fmt: skip
"""By the connector's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An account, and who we are there."""

    account: str
    host: str
    port: int
    protocol: str
    user: str
    password: str | None = field(repr=False, default=None)
    private_key: str | None = field(repr=False, default=None)
    database: str
    schema: str
    warehouse: str | None
    role: str | None
    read_role: str | None
    statement_seconds: float

    @classmethod
    def of(cls, config: Config) -> Endpoint:
        """Return what the configuration says."""
        return cls(
            account=config["account"],
            host=config.get("host") or f"{config['account']}.snowflakecomputing.com",
            port=config.get("port", 443),
            protocol="https" if config.get("tls", "verify") == "verify" else "http",
            user=config["user"],
            password=config.get("password"),
            private_key=config.get("private_key"),
            database=config["database"],
            schema=config.get("schema", "PUBLIC"),
            warehouse=config.get("warehouse"),
            role=config.get("role"),
            read_role=config.get("read_role"),
            statement_seconds=config.get("max_statement_seconds", 60.0),
        )


class SnowflakeEngine:
    """A connection commits each statement; the one for queries uses the role for reading, if there is one."""

    savepoint_sql = rollback_to_sql = ""

    def __init__(self, endpoint: Endpoint, schema: str) -> None:
        self._endpoint = endpoint
        self._schema = schema

    def connect(self, *, read_only: bool) -> Any:
        import snowflake.connector

        end = self._endpoint
        _require_listener(end.host, end.port)
        role = (end.read_role or end.role) if read_only else end.role
        settings: dict[str, Any] = {
            "STATEMENT_TIMEOUT_IN_SECONDS": max(1, int(end.statement_seconds)),
            "LOCK_TIMEOUT": max(1, int(end.statement_seconds)),
            "MULTI_STATEMENT_COUNT": 1,
            "ABORT_DETACHED_QUERY": True,
            "TIMEZONE": "UTC",
            "QUERY_TAG": "erp-provider-layer",
        }
        named: dict[str, Any] = {"warehouse": end.warehouse, "role": role, "password": end.password}
        more: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
        if end.private_key is not None:
            more["private_key"] = _der(end.private_key)
        return snowflake.connector.connect(
            account=end.account,
            host=end.host,
            port=end.port,
            protocol=end.protocol,
            user=end.user,
            database=end.database,
            schema=self._schema,
            paramstyle="qmark",
            autocommit=True,
            login_timeout=LOGIN_SECONDS,
            network_timeout=max(LOGIN_SECONDS, int(end.statement_seconds)),
            session_parameters=settings,
            validate_default_parameters=False,
            # Else it asks the metadata services of three clouds for each login, and AWS with the credentials of this
            # machine, what it runs on: no business of a tenant's, and five seconds where nobody knows those names.
            platform_detection_timeout_seconds=0.0,
            application="erp_provider_layer",
            **more,
        )

    def begin(self, connection: Any, *, read_only: bool, isolation: str | None) -> None:  # noqa: ARG002
        """Snowflake knows READ COMMITTED alone, and no transaction that only reads."""
        connection.cursor().execute("BEGIN", _no_retry=True)

    def commit(self, connection: Any) -> None:
        connection.cursor().execute("COMMIT", _no_retry=True)

    def rollback(self, connection: Any) -> None:
        connection.cursor().execute("ROLLBACK", _no_retry=True)

    def run(self, connection: Any, sql: str, given: Sequence[Any]) -> Any:
        cursor = connection.cursor()
        # Whether to repeat is the layer's to say. The connector would go on for a minute, whoever waits.
        cursor.execute(sql, list(given) or None, _no_retry=True)
        return cursor

    def columns(self, cursor: Any) -> list[Column]:
        described = cursor.description or ()
        return [Column(name=lowered(each[0]), type=_name(each[1])) for each in described]

    def rows(self, cursor: Any, count: int) -> list[Any]:
        return [tuple(map(_exact, row)) for row in cursor.fetchmany(count)]

    def affected(self, cursor: Any) -> int:
        """Rows inserted, updated and deleted: those of the summary, which is all that a statement without rows answers."""
        return int(cursor.rowcount or 0)

    def stop(self, connection: Any) -> None:
        """Ask Snowflake to cancel what runs, in a thread of its own: asking takes a trip, and maybe retries."""
        if not getattr(connection, "erp_is_stopping", False):
            connection.erp_is_stopping = True
            threading.Thread(target=_cancel, args=(connection,), daemon=True, name="db-snowflake-stop").start()

    def is_usable(self, connection: Any) -> bool:
        return not connection.is_closed()

    def explained(self, error: Exception) -> ProviderError:
        return failures.explained(error)

    def is_lost(self, error: Exception) -> bool:
        return failures.is_lost(error)


def _cancel(connection: Any) -> None:
    import snowflake.connector.errors

    with suppress(snowflake.connector.errors.Error, AttributeError, TypeError):
        connection.cursor().execute(f"SELECT SYSTEM$CANCEL_ALL_QUERIES({int(connection.session_id)})", _no_retry=True)
    connection.erp_is_stopping = False


def _require_listener(host: str, port: int) -> None:
    """Find out at once that nobody is there, for which the connector takes its time; not where a proxy stands between.

    Raises:
        OSError: nobody listens.
    """
    if not getproxies():
        socket.create_connection((host, port), LISTENER_SECONDS).close()


def lowered(name: str) -> str:
    """Show a name that needs no quotes, which Snowflake keeps in upper case, in lower case, as other engines do."""
    return name.lower() if _PLAIN.fullmatch(name) else name


def _name(number: Any) -> str:
    return _TYPES[number] if isinstance(number, int) and number < len(_TYPES) else str(number).lower()


def _exact(value: Any) -> Any:
    """Numbers of more than 64 bits as text, for JSON has no exact form for them."""
    return str(value) if isinstance(value, int) and abs(value) > _EXACT else value


def _der(pem: str) -> bytes:
    """The key as the connector takes it.

    Raises:
        ProviderError: ``failed_precondition`` when it is none.
    """
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        message = 'private_key is no private key in PEM without a passphrase. See Snowflake, "Key-pair authentication".'
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message) from error
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
