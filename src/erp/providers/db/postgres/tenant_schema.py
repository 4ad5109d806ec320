"""A schema and a login for each tenant, made by the configured user when a tenant comes for the first time.

The barrier is the server's: a tenant's connections log in as its own role, which owns its schema and may enter no
other, so nothing that a statement does (``RESET ROLE`` inside a function, a name spelled out) leads elsewhere.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import secrets
from contextlib import suppress

from erp.providers.db.postgres.connecting import Endpoint, closed
from erp.providers.db.postgres.failures import explained
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.postgres_wire import Wire

ITERATIONS = 4096
_LOCK = 7_240_313_011
"""Any number: who makes a role holds this advisory lock."""


def login_of(endpoint: Endpoint, tenant: str) -> Endpoint:
    """Return the tenant's own login at ``endpoint``; its password follows from that of the configured user."""
    name = "erp_t_" + hashlib.sha256(f"{endpoint.database}\0{tenant}".encode()).hexdigest()[:24]
    password = hmac.new(
        endpoint.password.encode(), f"erp-tenant\0{name}\0{tenant}".encode(), hashlib.sha256
    ).hexdigest()
    settings = {**dict(endpoint.settings), "search_path": f"{name}, public"}
    return dataclasses.replace(endpoint, user=name, password=password, settings=tuple(settings.items()))


async def prepared(endpoint: Endpoint, tenant: str) -> Endpoint:
    """Return the tenant's login, having made role and schema if they were not there.

    Raises:
        ProviderError: ``unauthenticated`` or ``unavailable`` as for any connection; ``failed_precondition`` when the
            configured user may not make roles and schemas.
    """
    login = login_of(endpoint, tenant)
    try:
        await closed(await login.connect({}))
    except ProviderError as error:
        if error.code is not ErrorCode.UNAUTHENTICATED:
            raise
        await _make(endpoint, login)
    return login


async def _make(endpoint: Endpoint, login: Endpoint) -> None:
    connection = await endpoint.connect({})
    try:
        async with connection.transaction():
            await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
            await _role_and_schema(connection, login)
        with suppress(Exception):
            # Vectors are optional: without the extension, or without the right to add it, they are refused when asked for.
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    except Exception as error:
        made = explained(error)
        if made.code is not ErrorCode.PERMISSION_DENIED:
            raise made from error
        message = (
            "The user may not make logins and schemas for tenants. Give it CREATEROLE, and CREATE on the database."
        )
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=made.detail) from error
    finally:
        await closed(connection)


async def _role_and_schema(connection: Wire, login: Endpoint) -> None:
    name = login.user
    is_there = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name)
    verb = "ALTER" if is_there else "CREATE"
    await connection.execute(
        f"{verb} ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{verifier(login.password)}'"
    )
    await connection.execute(f"GRANT {name} TO CURRENT_USER")
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name} AUTHORIZATION {name}")
    if await connection.fetchval("SELECT has_schema_privilege($1, 'public', 'CREATE')", name):
        # As before PostgreSQL 15: a table made there would be found by every tenant that has none of that name.
        message = "Tenants would meet in the schema public. Run: REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)


def verifier(password: str) -> str:
    """Return what the server keeps of a password (RFC 5803), so that the password itself never reaches its log."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.new(salted, b"Client Key", hashlib.sha256).digest()).digest()
    server = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    texts = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${ITERATIONS}:{texts[0]}${texts[1]}:{texts[2]}"
