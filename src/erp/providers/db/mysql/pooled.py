"""Tables that tenants share: the server keeps their rows apart, and the statements are rewritten besides.

A tenant's statements run under logins of its own, which may use views and nothing else; each view shows the rows whose
tenant is that of the login. So the barrier holds whatever a statement says, also where the rewriting (``safe_sql``) or
the parsers err. What is not as ``erp db isolate`` makes it, and nothing is opened at all.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from erp.contracts.models.db import Table
from erp.providers.db.mysql import catalogue
from erp.providers.db.mysql.connecting import Endpoint, closed, plain
from erp.providers.db.mysql.failures import explained
from erp.providers.db.mysql.tenant_database import logins_of
from erp.runtime.spi import UNSET, ErrorCode, ProviderError
from erp.vendor_clients.row_security.mysql import LOGINS, RIGHTS, Found, look

PREFIX = "erp_p_"
SHOWN = 5
_GRANT = re.compile(r"GRANT (?P<rights>[A-Z, ]+) ON (?P<place>.+?) TO `(?P<login>[^`]+)`@`%`.*")
_LACKING = frozenset({ErrorCode.UNAUTHENTICATED, ErrorCode.PERMISSION_DENIED, ErrorCode.FAILED_PRECONDITION})
_Grants = dict[str, str]
"""What a login may do, by where."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What a tenant has of tables that it shares."""

    endpoint: Endpoint
    """Of the layer's own user, which makes logins and sees the shape of the tables, but none of their rows."""
    reading: Endpoint
    writing: Endpoint
    found: Found

    async def tables(
        self, after: str, only: str | None, limit: int, visible: frozenset[str] | None
    ) -> tuple[list[Table], str]:
        """Describe the tables behind the views as the tenant sees them; return the server's version too."""
        names = frozenset((*self.found.isolated, *self.found.shared))
        connection = await dataclasses.replace(self.endpoint, database=self.found.schema).connect(read_only=True)
        try:
            listed = names if visible is None else names & visible
            tables = await catalogue.tables(connection, after, only, limit, listed)
            return [self._shown(table) for table in tables], connection.get_server_info()
        except Exception as error:
            raise explained(error) from error
        finally:
            await closed(connection)

    def _shown(self, table: Table) -> Table:
        """Leave out the tenant's column, and how many rows all tenants have together."""
        table.row_estimate = UNSET
        hidden = self.found.isolated.get(table.name)
        visible = self.found.columns[table.name]
        table.columns = [one for one in table.columns if one.name in visible and one.name != hidden]
        table.primary_key = [name for name in table.primary_key if name != hidden]
        for index in table.indexes:
            index.columns = [name for name in index.columns if name != hidden]
        for key in table.foreign_keys:
            pairs = [pair for pair in zip(key.columns, key.references, strict=True) if pair[0] != hidden]
            key.columns, key.references = [mine for mine, _ in pairs], [theirs for _, theirs in pairs]
        return table


async def joined(endpoint: Endpoint, tenant: str) -> Pool:
    """Return the tenant's part of the pool whose views are in the database of ``endpoint``, having made its logins.

    Raises:
        ProviderError: ``unauthenticated`` or ``unavailable`` as for any connection; ``failed_precondition`` when tenants would
            not be kept apart, or the configured user may not make logins.
    """
    if not endpoint.password:
        message = "Mode pooled needs a user with a password: the passwords of the tenants' logins follow from it."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    reading, writing = (
        dataclasses.replace(login, database=endpoint.database) for login in logins_of(endpoint, tenant, PREFIX)
    )
    connection = await endpoint.connect(read_only=False)
    try:
        found = await _looked(connection, endpoint.database)
        await _name_logins(connection, endpoint.database, tenant, (reading, writing))
        for login in (reading, writing):
            await _make(connection, login, _wanted(endpoint.database, found, login is writing))
    finally:
        await closed(connection)
    return Pool(endpoint, reading, writing, found)


async def _looked(connection: Any, views: str) -> Found:
    try:
        found = await look(connection, views)
    except Exception as error:
        raise explained(error) from error
    if not found.problems and not found.isolated:
        found.problems.append("there is no view that keeps tenants apart")
    if found.problems:
        raise _apart(found.problems)
    return found


def _apart(problems: list[str]) -> ProviderError:
    rest = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
    message = f"Tenants would not be kept apart: {'; '.join(problems[:SHOWN])}{rest}. `erp db isolate` writes what is missing."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message)


async def _name_logins(connection: Any, views: str, tenant: str, logins: tuple[Endpoint, ...]) -> None:
    """Write down whose the logins are, before there are any."""
    cursor = connection.cursor()
    try:
        for login in logins:
            await cursor.execute(f"INSERT IGNORE INTO `{views}`.{LOGINS} VALUES (%s, %s)", (login.user, tenant))  # noqa: S608
        names = tuple(login.user for login in logins)
        await cursor.execute(f"SELECT tenant FROM `{views}`.{LOGINS} WHERE login IN %s", (names,))  # noqa: S608
        owners = [row[0] for row in await cursor.fetchall()]
    except Exception as error:
        raise _incapable(explained(error)) from error
    if owners != [tenant] * len(logins):
        raise _apart([f"{views}.{LOGINS} has the tenant's logins under another name"])


def _wanted(views: str, found: Found, writes: bool) -> _Grants:  # noqa: FBT001  (internal)
    rights = RIGHTS if writes else "SELECT"
    grants = {f"`{views}`.{_quoted(name)}": rights for name in found.isolated}
    return grants | {f"`{views}`.{_quoted(name)}": "SELECT" for name in found.shared}


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


async def _make(connection: Any, login: Endpoint, wanted: _Grants) -> None:
    """Have ``login`` exist with exactly the rights that are wanted, and know it from the server."""
    granted = await _granted(login)
    if granted is None or granted != wanted:
        try:
            await _grant(connection, login, granted or {}, wanted)
        except ProviderError as error:
            raise _incapable(error) from error
        granted = await _granted(login)
    if granted != wanted:
        others = sorted(set(granted or {}) - set(wanted))
        raise _apart([f"the login {login.user} has other rights than on its views ({', '.join(others) or 'fewer'})"])


async def _grant(connection: Any, login: Endpoint, granted: _Grants, wanted: _Grants) -> None:
    name = f"'{login.user}'@'%'"
    await plain(connection, f"CREATE USER IF NOT EXISTS {name} IDENTIFIED BY '{login.password}'")
    await plain(connection, f"ALTER USER {name} IDENTIFIED BY '{login.password}'")
    for place, rights in granted.items():
        if wanted.get(place) != rights and place.startswith(f"`{login.database}`."):
            # A view that is gone leaves its rights behind.
            await plain(connection, f"REVOKE {rights} ON {place} FROM {name}")
    for place, rights in wanted.items():
        if granted.get(place) != rights:
            await plain(connection, f"GRANT {rights} ON {place} TO {name}")


async def _granted(login: Endpoint) -> _Grants | None:
    """Return what ``login`` may do, as the server tells itself; None when it cannot come in yet."""
    try:
        connection = await login.connect(read_only=True)
    except ProviderError as error:
        if error.code not in _LACKING:
            raise
        return None
    try:
        cursor = connection.cursor()
        await cursor.execute("SHOW GRANTS")
        lines = [str(row[0]) for row in await cursor.fetchall()]
    except Exception as error:
        raise explained(error) from error
    finally:
        await closed(connection)
    grants: _Grants = {}
    for line in lines:
        match = _GRANT.fullmatch(line)
        if match is None or match["login"] != login.user or "GRANT OPTION" in line:
            grants[line] = "?"  # a role, or what this reader does not know: never what is wanted
        elif match["rights"] != "USAGE":
            grants[match["place"]] = match["rights"]
    return grants


def _incapable(error: ProviderError) -> ProviderError:
    if error.code is not ErrorCode.PERMISSION_DENIED:
        return error
    message = "The user may not make logins for tenants. `erp db isolate` writes the rights that it needs."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=error.detail)
