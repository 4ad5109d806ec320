"""Running statements and looking on the servers that ``erp db isolate`` knows; each returns what is wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

URL = "ERP_ISOLATE_URL"
CONNECT_SECONDS = 10
MYSQL_PORT = 3306


async def on_postgres(statements: list[str], role: str, *, check: bool) -> list[str]:
    """Run the statements in one transaction, then look at what ``role`` can reach."""
    import asyncpg

    from erp.vendor_clients.row_security.postgres import look

    url = os.environ.get(URL)
    if not url:
        return [f"set {URL} to the address of the database, such as postgresql://owner:password@host/database"]
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        return [f"the database of {URL} cannot be reached: {error or type(error).__name__}"]
    try:
        async with connection.transaction():
            for statement in statements:
                await connection.execute(statement)
        return (await look(connection, role)).problems if check else []
    except asyncpg.PostgresError as error:
        return [f"{error}; nothing was changed"]
    finally:
        await connection.close()


async def on_mariadb(statements: list[str], schema: str, *, check: bool) -> list[str]:
    """Run the statements one after the other, each of which is whole at once, then look at the views of ``schema``."""
    import asyncmy.errors

    from erp.vendor_clients.row_security.mysql import look, views_of

    url = os.environ.get(URL)
    if not url:
        return [f"set {URL} to the address of the server, such as mysql://owner:password@host/"]
    try:
        connection = await _mariadb(url)
    except (OSError, TimeoutError, asyncmy.errors.MySQLError, ValueError) as error:
        return [f"the server of {URL} cannot be reached: {_said(error)}"]
    try:
        for statement in statements:
            try:
                await connection.query(statement)
            except asyncmy.errors.MySQLError as error:
                return [f"{_said(error)}; what was run before it stays, and may be run again: {statement[:100]}"]
        return (await look(connection, views_of(schema))).problems if check else []
    finally:
        connection.close()


def named_file(scheme: str, ending: str) -> Path:
    """Return the file that the variable names: ``scheme:///FILE``, or with one slash more, as SQLAlchemy writes it.

    Raises:
        FileNotFoundError: it names none, or none that is there; the message says what to do.
    """
    parts = urlsplit(os.environ.get(URL, ""))
    if parts.scheme != scheme or parts.netloc or not parts.path:
        message = f"set {URL} to the shared file, such as {scheme}:///srv/erp/models/db-{scheme}/main.{ending}"
        raise FileNotFoundError(message)
    path = Path("/" + unquote(parts.path).lstrip("/"))
    if not path.is_file():
        message = f"{URL} names {path}, and there is no such file; make it with its tables first"
        raise FileNotFoundError(message)
    return path


async def _mariadb(url: str) -> Any:
    """Connect; ``?tls=disable`` or ``encrypt`` does not verify the server, ``?authority=FILE`` by other certificates."""
    from asyncmy import connection

    from erp.vendor_clients.guarded_tcp import tls_for

    parts, more = urlsplit(url), parse_qs(urlsplit(url).query)
    host, tls = parts.hostname or "", more.get("tls", ["verify"])[0]
    authority = more.get("authority")
    context = None
    if tls != "disable":
        trusted = Path(authority[0]).read_text(encoding="ascii") if authority else None  # noqa: ASYNC240  (once, at start)
        context = tls_for(host, verify=tls == "verify", authority=trusted)
    driver: Any = connection.Connection  # published with types that miss most of it
    made = driver(
        host=host,
        port=parts.port or MYSQL_PORT,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or "").encode(),
        ssl=context,
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
    )
    await made.connect()
    await made.query("SET SESSION sql_notes = 0")  # the driver prints them
    return made


def _said(error: BaseException) -> str:
    return str(error.args[-1]) if error.args else type(error).__name__
