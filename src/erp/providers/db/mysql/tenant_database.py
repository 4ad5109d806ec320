"""A database and two logins for each tenant, made by the configured user when a tenant comes for the first time.

The barrier is the server's: a tenant's connections log in as its own users, which may enter no other database, have no
right to files, and of which the one for queries may only read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac

from erp.providers.db.mysql.connecting import Endpoint, closed, plain
from erp.runtime.spi import ErrorCode, ProviderError

WRITING = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW"
READING = "SELECT, SHOW VIEW"


def logins_of(endpoint: Endpoint, tenant: str, prefix: str = "erp_t_") -> tuple[Endpoint, Endpoint]:
    """Return the tenant's logins for reading and writing; their passwords follow from that of the configured user."""
    name = prefix + hashlib.sha256(f"{endpoint.database}\0{tenant}".encode()).hexdigest()[:22]
    reading, writing = [
        dataclasses.replace(endpoint, database=name, user=f"{name}_{kind}", password=_password(endpoint, name, kind))
        for kind in ("r", "w")
    ]
    return reading, writing


def _password(endpoint: Endpoint, name: str, kind: str) -> str:
    return hmac.new(endpoint.password.encode(), f"erp-tenant\0{name}\0{kind}".encode(), hashlib.sha256).hexdigest()


async def prepared(endpoint: Endpoint, tenant: str) -> tuple[Endpoint, Endpoint]:
    """Return the tenant's logins, having made them and the database if they were not there.

    Raises:
        ProviderError: ``unauthenticated`` or ``unavailable`` as for any connection; ``failed_precondition`` when the
            configured user may not make databases and users.
    """
    logins = logins_of(endpoint, tenant)
    try:
        for login in logins:
            await closed(await login.connect(read_only=True))
    except ProviderError as error:
        if error.code not in {ErrorCode.UNAUTHENTICATED, ErrorCode.PERMISSION_DENIED, ErrorCode.FAILED_PRECONDITION}:
            raise
        await _make(endpoint, *logins)
    return logins


async def _make(endpoint: Endpoint, reading: Endpoint, writing: Endpoint) -> None:
    connection = await endpoint.connect(read_only=False)
    name = reading.database
    try:
        await plain(connection, f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4")
        for login, rights in ((reading, READING), (writing, WRITING)):
            await plain(connection, f"CREATE USER IF NOT EXISTS '{login.user}'@'%' IDENTIFIED BY '{login.password}'")
            await plain(connection, f"ALTER USER '{login.user}'@'%' IDENTIFIED BY '{login.password}'")
            await plain(connection, f"GRANT {rights} ON `{name}`.* TO '{login.user}'@'%'")
    except ProviderError as error:
        if error.code is not ErrorCode.PERMISSION_DENIED:
            raise
        message = (
            "The user may not make databases and logins for tenants. Give it CREATE, CREATE USER and GRANT OPTION."
        )
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=error.detail) from error
    finally:
        await closed(connection)
