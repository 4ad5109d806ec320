"""Running statements and looking on a SQL Server. Written by Microsoft's documentation: no server was at hand."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from erp.cli.db.servers import CONNECT_SECONDS, URL
from erp.vendor_clients.sql.mssql_words import TLS, connection_words

PORT = 1433


def on_mssql(statements: list[str], role: str, *, check: bool) -> list[str]:
    """Run the statements in one transaction, then look at what the user ``role`` can reach; returns what is wrong."""
    try:
        words = words_of(os.environ.get(URL, ""))
    except ValueError as error:
        return [str(error)]
    try:
        import mssql_python

        connection = mssql_python.connect(autocommit=False, timeout=CONNECT_SECONDS, **words)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001  (the driver's native part fails in ways of its own)
        if "shared object" in str(error):
            return [f"the driver cannot be loaded: {_said(error)}; Debian: apt-get install libltdl7 libgssapi-krb5-2"]
        return [
            f"the server of {URL} cannot be reached: {_said(error)}; does it listen there, and let this machine in?"
        ]
    with closing(connection):
        return held(connection, statements, role, check=check)


def held(connection: Any, statements: list[str], role: str, *, check: bool) -> list[str]:
    """Run the statements and look, on an open connection of the DB API; what fails is undone."""
    from erp.vendor_clients.row_security.mssql import look

    try:
        for statement in statements:
            connection.cursor().execute(statement)
        problems = look(connection, role).problems if check else []
        connection.commit()
    except Exception as error:  # noqa: BLE001  (whatever it is, it is undone and told)
        connection.rollback()
        return [f"{_said(error)}; nothing was changed"]
    return problems


def words_of(url: str) -> dict[str, Any]:
    """Read ``mssql://owner:password@host[:port]/database[?tls=verify|encrypt|disable]`` as the driver's words.

    Raises:
        ValueError: for another address; the message says what one looks like.
    """
    parts = urlsplit(url)
    tls = parse_qs(parts.query).get("tls", ["verify"])[0]
    database = unquote(parts.path.strip("/"))
    if parts.scheme != "mssql" or not parts.hostname or not parts.username or not database or tls not in TLS:
        message = f"set {URL} to the address of the database, such as mssql://owner:password@host/database?tls=verify"
        raise ValueError(message)
    return connection_words(
        address=parts.hostname,
        port=parts.port or PORT,
        database=database,
        user=unquote(parts.username),
        password=unquote(parts.password or ""),
        tls=tls,
    )


def _said(error: Exception) -> str:
    return str(getattr(error, "ddbc_error", "") or error).strip().partition("\n")[0] or type(error).__name__
