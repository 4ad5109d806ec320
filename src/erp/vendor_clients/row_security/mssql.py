"""Security policies of SQL Server for tables that tenants share.

The tenant is kept in the session's context, read-only until the connection is reset, and compared by an inline
function; filter predicates hide other rows, block predicates refuse to make them.
Source: Microsoft, "Row-level security", "CREATE SECURITY POLICY" and "sp_set_session_context".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from erp.vendor_clients.row_security.names import TableName, quoted

KEY = "erp_tenant"
"""The key of the session's context: ``exec sp_set_session_context @key = N'erp_tenant', @value = ?, @read_only = 1``."""
SCHEMA = "erp_isolation"
_TENANT = f"CAST(SESSION_CONTEXT(N'{KEY}') AS nvarchar(128))"
_EXACT = "COLLATE Latin1_General_100_BIN2"
"""Most databases take acme for ACME. The plain comparison stands beside this one for indexes, which it can use."""
BLOCKED = ("AFTER INSERT", "AFTER UPDATE", "BEFORE UPDATE", "BEFORE DELETE")

Rows = Iterable[Sequence[Any]]


def preparing() -> list[str]:
    """Return the statements that are needed once: a schema for the function, and the function.

    A function that policies use cannot be altered, so one that is there stays.
    """
    function = (
        f"CREATE FUNCTION {SCHEMA}.is_own(@tenant nvarchar(128)) RETURNS TABLE WITH SCHEMABINDING AS"
        f" RETURN SELECT 1 AS is_own WHERE @tenant = {_TENANT} AND @tenant {_EXACT} = {_TENANT} {_EXACT}"
    )
    return [
        f"IF SCHEMA_ID(N'{SCHEMA}') IS NULL EXEC(N'CREATE SCHEMA {SCHEMA}')",
        f"IF OBJECT_ID(N'{SCHEMA}.is_own', N'IF') IS NULL EXEC(N'{_text(function)}')",
    ]


def isolating(table: TableName, column: str, role: str) -> list[str]:
    """Return the statements that keep tenants apart in ``table`` by ``column`` and let ``role`` use it."""
    name, own, user = _full(table), quoted(column, "[", "]"), quoted(role, "[", "]")
    default = quoted(f"erp_tenant_{table.schema}_{table.name}", "[", "]")
    constraint = f"{quoted(table.schema, '[', ']')}.{default}"
    return [
        (
            f"IF OBJECT_ID(N'{_text(constraint)}', N'D') IS NULL"
            f" ALTER TABLE {name} ADD CONSTRAINT {default} DEFAULT {_TENANT} FOR {own}"
        ),
        _replacing(table, own),
        # Whoever is denied CONTROL is denied SELECT with it; an earlier version did that.
        f"REVOKE CONTROL ON {name} FROM {user}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {user}",
        f"DENY ALTER, REFERENCES, TAKE OWNERSHIP ON {name} TO {user}",
    ]


def _replacing(table: TableName, column: str) -> str:
    """Put the policy in the place of one that may be there, with no moment between in which the table has none."""
    policy = f"{SCHEMA}.{quoted(f'{table.schema}_{table.name}', '[', ']')}"
    predicate = f"PREDICATE {SCHEMA}.is_own({column}) ON {_full(table)}"
    blocks = ", ".join(f"ADD BLOCK {predicate} {when}" for when in BLOCKED)
    made = f"CREATE SECURITY POLICY {policy} ADD FILTER {predicate}, {blocks} WITH (STATE = ON, SCHEMABINDING = ON)"
    # By EXEC, for Microsoft does not say whether it may stand behind other statements.
    return (
        f"SET XACT_ABORT ON; BEGIN TRANSACTION; DROP SECURITY POLICY IF EXISTS {policy};"
        f" EXEC(N'{_text(made)}'); COMMIT TRANSACTION"
    )


def _full(table: TableName) -> str:
    return f"{quoted(table.schema, '[', ']')}.{quoted(table.name, '[', ']')}"


def _text(name: str) -> str:
    return name.replace("'", "''")


# -- what a user can reach, and what keeps tenants apart there -------------------------------------

TOO_MUCH = (
    "CONTROL",
    "ALTER",
    "ALTER ANY SECURITY POLICY",
    "ALTER ANY SCHEMA",
    "ALTER ANY ROLE",
    "IMPERSONATE ANY USER",
)
"""Permissions on a database with which policies can be changed, or left behind."""
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "ALTER", "REFERENCES", "TAKE OWNERSHIP")
_OWN = re.compile(r"\(?\[?erp_isolation\]?\.\[?is_own\]?\(\[(?P<column>(?:[^\]]|\]\])+)\]\)\)?")
_HELD_THERE = ", ".join(
    f"HAS_PERMS_BY_NAME(QUOTENAME(s.name) + N'.' + QUOTENAME(o.name), N'OBJECT', N'{right}')" for right in _RIGHTS
)
REACHED = (
    f"SELECT s.name, o.name, RTRIM(o.type), {_HELD_THERE}"  # noqa: S608  (the names are ours)
    " FROM sys.objects o JOIN sys.schemas s ON s.schema_id = o.schema_id"
    " WHERE o.type IN ('U', 'V', 'IF', 'TF', 'FT', 'SN') AND o.is_ms_shipped = 0 ORDER BY s.name, o.name"
)
"""To be asked as the user; tables, views, functions that return rows, and synonyms."""
HELD = "SELECT " + ", ".join(f"HAS_PERMS_BY_NAME(NULL, N'DATABASE', N'{right}')" for right in TOO_MUCH)
POLICIES = (
    "SELECT s.name, o.name, p.is_enabled, d.predicate_type_desc, d.operation_desc, d.predicate_definition"
    " FROM sys.security_predicates d JOIN sys.security_policies p ON p.object_id = d.object_id"
    " JOIN sys.objects o ON o.object_id = d.target_object_id JOIN sys.schemas s ON s.schema_id = o.schema_id"
)
COLUMNS = (
    "SELECT s.name, o.name, c.name, t.name, c.is_nullable, d.[definition]"
    " FROM sys.columns c JOIN sys.objects o ON o.object_id = c.object_id JOIN sys.schemas s ON s.schema_id = o.schema_id"
    " JOIN sys.types t ON t.user_type_id = c.user_type_id"
    " LEFT JOIN sys.default_constraints d ON d.object_id = c.default_object_id WHERE o.type = 'U'"
)
KEYS = (
    "SELECT s.name, o.name, i.name, c.name, CAST(NULL AS nvarchar(257)) FROM sys.indexes i"
    " JOIN sys.objects o ON o.object_id = i.object_id JOIN sys.schemas s ON s.schema_id = o.schema_id"
    " JOIN sys.index_columns k ON k.object_id = i.object_id AND k.index_id = i.index_id"
    " JOIN sys.columns c ON c.object_id = k.object_id AND c.column_id = k.column_id"
    " WHERE i.is_unique = 1 AND k.is_included_column = 0 AND o.type = 'U' UNION ALL"
    " SELECT s.name, o.name, f.name, c.name, r.name + N'.' + q.name FROM sys.foreign_keys f"
    " JOIN sys.objects o ON o.object_id = f.parent_object_id JOIN sys.schemas s ON s.schema_id = o.schema_id"
    " JOIN sys.objects q ON q.object_id = f.referenced_object_id JOIN sys.schemas r ON r.schema_id = q.schema_id"
    " JOIN sys.foreign_key_columns k ON k.constraint_object_id = f.object_id"
    " JOIN sys.columns c ON c.object_id = k.parent_object_id AND c.column_id = k.parent_column_id"
)
PARALLEL = "SELECT CAST(value AS int) FROM sys.database_scoped_configurations WHERE name = N'MAXDOP'"


@dataclass(slots=True)
class Found:
    """What a user can reach, and what is wrong with it."""

    isolated: dict[TableName, str] = field(default_factory=dict)
    """Tables that keep tenants apart -> the tenant's column."""
    problems: list[str] = field(default_factory=list)


def as_user(user: str, query: str) -> str:
    """Return a batch that asks ``query`` with the rights of ``user``, which must be no role (Microsoft, "EXECUTE AS")."""
    return f"EXECUTE AS USER = N'{_text(user)}'; {query}; REVERT"


def look(connection: Any, user: str) -> Found:
    """Return what ``user`` can reach; ``connection`` is one of the DB API, of an owner of the database.

    A problem is whatever would let one tenant see, change or learn of the rows of another.
    """

    def rows(query: str) -> list[Sequence[Any]]:
        return [tuple(row) for row in connection.cursor().execute(query).fetchall()]

    held, reached = rows(as_user(user, HELD)), rows(as_user(user, REACHED))
    found = Found(problems=_user_problems(user, held[0]) + _parallel_problems(rows(PARALLEL)))
    policies = _by_table(rows(POLICIES))
    for schema, name, kind, *rights in reached:
        if any(rights):
            _judge(found, TableName(schema, name), str(kind), dict(zip(_RIGHTS, rights, strict=True)), policies)
    columns, keys = _by_table(rows(COLUMNS)), _by_table(rows(KEYS))
    for table, column in found.isolated.items():
        found.problems += _column_problems(table, column, columns[table])
        found.problems += _key_problems(found, table, column, keys[table])
    return found


def _by_table(rows: Rows) -> defaultdict[TableName, list[Sequence[Any]]]:
    found: defaultdict[TableName, list[Sequence[Any]]] = defaultdict(list)
    for schema, name, *rest in rows:
        found[TableName(schema, name)].append(rest)
    return found


def _user_problems(user: str, held: Sequence[Any]) -> list[str]:
    rights = [right for right, is_held in zip(TOO_MUCH, held, strict=True) if is_held]
    return [f"the user {user} has {', '.join(rights)} on the database"] if rights else []


def _parallel_problems(rows: Sequence[Sequence[Any]]) -> list[str]:
    if rows and rows[0][0] == 1:
        return []
    why = "queries may run in parallel, where SESSION_CONTEXT can be wrong (Microsoft, known issues of SESSION_CONTEXT)"
    return [f"{why}: ALTER DATABASE SCOPED CONFIGURATION SET MAXDOP = 1"]


def _judge(
    found: Found,
    table: TableName,
    kind: str,
    rights: dict[str, Any],
    policies: dict[TableName, list[Sequence[Any]]],
) -> None:
    """Keep a table that is isolated, or say what is wrong with it. Views show what their tables' policies let through."""
    if table.schema == SCHEMA:
        found.problems.append(f"the user has rights on {table}, on which policies rest: revoke them")
        return
    if kind != "U":
        found.problems.append(f"{table} is no table, and shows what nobody looked at: revoke the user's rights on it")
        return
    column = _isolated_by(policies.get(table, []))
    if column is None:
        found.problems.append(f"{table} does not keep tenants apart")
        return
    held = [right for right in ("ALTER", "REFERENCES", "TAKE OWNERSHIP") if rights[right]]
    if held:
        found.problems.append(f"the user has {', '.join(held)} on {table}")
    found.isolated[table] = column


def _isolated_by(predicates: Sequence[Sequence[Any]]) -> str | None:
    """The tenant's column when policies that are enabled filter and block by it whatever is done."""
    held = {(kind, operation): _OWN.fullmatch(text) for is_on, kind, operation, text in predicates if is_on}
    wanted = [held.get(("FILTER", None)), *(held.get(("BLOCK", when)) for when in BLOCKED)]
    columns = {match["column"].replace("]]", "]") if match else None for match in wanted}
    return columns.pop() if len(columns) == 1 else None


def _column_problems(table: TableName, column: str, columns: Sequence[Sequence[Any]]) -> list[str]:
    known = next((each for each in columns if each[0] == column), None)
    if known is None:
        return [f"the columns of {table} cannot be seen: connect as an owner of the database"]
    _, kind, is_nullable, default = known
    problems = []
    if kind not in {"nvarchar", "varchar"}:
        problems.append(f"{table}.{column} is {kind}: the tenant's column must be nvarchar or varchar")
    if is_nullable:
        problems.append(f"{table}.{column} may be null")
    if KEY not in (default or ""):
        problems.append(f"{table}.{column} is not set by itself: new rows would need the tenant spelt out")
    return problems


def _key_problems(found: Found, table: TableName, column: str, parts: Sequence[Sequence[Any]]) -> list[str]:
    keys: dict[tuple[str, str | None], set[str]] = {}
    for key, part, target in parts:
        keys.setdefault((key, target), set()).add(part)
    isolated = {str(other) for other in found.isolated}
    problems = []
    for (key, target), columns in keys.items():
        if column in columns:
            continue
        if target is None:
            problems.append(f"{table}: the unique {key} has no {column}: its errors tell of other tenants' rows")
        elif target in isolated:
            problems.append(f"{table}: the foreign key {key} has no {column}: it reaches other tenants' rows")
    return problems
