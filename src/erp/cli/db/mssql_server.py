"""Running statements and looking on a SQL Server. Written by Microsoft's documentation: no server was at hand."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from erp.cli.db.servers import CONNECT_SECONDS, URL

PORT = 1433
_TLS = {"verify": ("Mandatory", "no"), "encrypt": ("Mandatory", "yes"), "disable": ("Optional", "yes")}


def on_mssql(statements: list[str], role: str, *, check: bool) -> list[str]:
    """Run the statements in one transaction, then look at what the user ``role`` can reach; returns what is wrong."""
    try:
        words = connection_words(os.environ.get(URL, ""))
    except ValueError as error:
        return [str(error)]
    try:
        import mssql_python

        connection = mssql_python.connect(autocommit=False, timeout=CONNECT_SECONDS, **words)
    except Exception as error:  # noqa: BLE001  (the driver's native part fails in ways of its own)
        return [f"the server of {URL} cannot be reached: {_said(error)}"]
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


def connection_words(url: str) -> dict[str, Any]:
    """Read ``mssql://owner:password@host[:port]/database[?tls=verify|encrypt|disable]`` as the driver's keywords.

    Raises:
        ValueError: for another address; the message says what one looks like.
    """
    parts = urlsplit(url)
    tls = parse_qs(parts.query).get("tls", ["verify"])[0]
    database = unquote(parts.path.strip("/"))
    if parts.scheme != "mssql" or not parts.hostname or not parts.username or not database or tls not in _TLS:
        message = f"set {URL} to the address of the database, such as mssql://owner:password@host/database?tls=verify"
        raise ValueError(message)
    encrypt, trust = _TLS[tls]
    return {
        "server": f"tcp:{parts.hostname},{parts.port or PORT}",
        "database": database,
        "uid": unquote(parts.username),
        "pwd": unquote(parts.password or ""),
        "encrypt": encrypt,
        "trustservercertificate": trust,
    }


def _said(error: Exception) -> str:
    return str(getattr(error, "ddbc_error", "") or error).strip().partition("\n")[0] or type(error).__name__
