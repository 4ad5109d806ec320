"""Security policies of SQL Server for tables that tenants share.

The tenant is kept in the session's context, read-only until the connection is reset, and compared by an inline
function; filter predicates hide other rows, block predicates refuse to make them.
Source: Microsoft, "Row-level security" and "sp_set_session_context".
"""

from __future__ import annotations

from erp.vendor_clients.row_security.names import TableName, quoted

KEY = "erp_tenant"
"""The key of the session's context: ``exec sp_set_session_context @key = N'erp_tenant', @value = ?, @read_only = 1``."""
SCHEMA = "erp_isolation"
_TENANT = f"CAST(SESSION_CONTEXT(N'{KEY}') AS nvarchar(128))"


def preparing() -> list[str]:
    """Return the statements that are needed once: a schema for the function, and the function."""
    return [
        f"IF SCHEMA_ID(N'{SCHEMA}') IS NULL EXEC(N'CREATE SCHEMA {SCHEMA}')",
        (
            f"CREATE OR ALTER FUNCTION {SCHEMA}.is_own(@tenant nvarchar(128)) RETURNS TABLE WITH SCHEMABINDING AS"
            f" RETURN SELECT 1 AS is_own WHERE @tenant = {_TENANT}"
        ),
    ]


def isolating(table: TableName, column: str, role: str) -> list[str]:
    """Return the statements that keep tenants apart in ``table`` by ``column`` and let ``role`` use it."""
    name, own, user = _full(table), quoted(column, "[", "]"), quoted(role, "[", "]")
    policy = f"{SCHEMA}.{quoted(f'{table.schema}_{table.name}', '[', ']')}"
    predicate = f"{SCHEMA}.is_own({own}) ON {name}"
    default = quoted(f"erp_tenant_{table.schema}_{table.name}", "[", "]")
    object_name = default[1:-1].replace("'", "''")
    return [
        (
            f"IF OBJECT_ID(N'{_text(table.schema)}.{object_name}', N'D') IS NULL"
            f" ALTER TABLE {name} ADD CONSTRAINT {default} DEFAULT {_TENANT} FOR {own}"
        ),
        f"DROP SECURITY POLICY IF EXISTS {policy}",
        (
            f"CREATE SECURITY POLICY {policy} ADD FILTER PREDICATE {predicate},"
            f" ADD BLOCK PREDICATE {predicate} AFTER INSERT, ADD BLOCK PREDICATE {predicate} AFTER UPDATE,"
            f" ADD BLOCK PREDICATE {predicate} BEFORE UPDATE, ADD BLOCK PREDICATE {predicate} BEFORE DELETE"
            " WITH (STATE = ON, SCHEMABINDING = ON)"
        ),
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {user}",
        f"DENY ALTER, CONTROL, REFERENCES ON {name} TO {user}",
    ]


def _full(table: TableName) -> str:
    return f"{quoted(table.schema, '[', ']')}.{quoted(table.name, '[', ']')}"


def _text(name: str) -> str:
    return name.replace("'", "''")
