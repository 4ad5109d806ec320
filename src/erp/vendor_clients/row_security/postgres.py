"""Row-level security of PostgreSQL for tables that tenants share.

Each table has two policies: a permissive one that shows a tenant its rows, and a restrictive one that no further
policy can widen. Without a tenant both are false, so that whoever forgets to set one sees nothing.
Source: PostgreSQL 5.9 "Row Security Policies" and CREATE POLICY.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from erp.vendor_clients.row_security import SETTING
from erp.vendor_clients.row_security.names import TableName, quoted

POLICY = "erp_isolation"
BOUND = "erp_isolation_bound"
SHARED = "erp_shared"
_TENANT = f"nullif(current_setting('{SETTING}', true), '')"
_CONDITION = re.compile(
    rf"\(\(?(?P<column>[^()]+)\)?(?:::text)? = NULLIF\(current_setting\('{re.escape(SETTING)}'::text, true\), ''::text\)\)"
)


def isolating(table: TableName, column: str, role: str) -> list[str]:
    """Return the statements that keep tenants apart in ``table`` by ``column`` and let ``role`` use it."""
    name, own, user = _full(table), quoted(column), quoted(role)
    condition = f"({own} = {_TENANT})"
    return [
        f"ALTER TABLE {name} ALTER COLUMN {own} SET DEFAULT {_TENANT}, ALTER COLUMN {own} SET NOT NULL",
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {POLICY} ON {name}",
        f"DROP POLICY IF EXISTS {BOUND} ON {name}",
        f"CREATE POLICY {POLICY} ON {name} AS PERMISSIVE FOR ALL TO PUBLIC USING {condition} WITH CHECK {condition}",
        f"CREATE POLICY {BOUND} ON {name} AS RESTRICTIVE FOR ALL TO PUBLIC USING {condition} WITH CHECK {condition}",
        *_granting(table, user, "SELECT, INSERT, UPDATE, DELETE"),
    ]


def sharing(table: TableName, role: str) -> list[str]:
    """Return the statements that let every tenant read all rows of ``table``, and none change them."""
    name = _full(table)
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {SHARED} ON {name}",
        f"CREATE POLICY {SHARED} ON {name} AS PERMISSIVE FOR SELECT TO {quoted(role)} USING (true)",
        *_granting(table, quoted(role), "SELECT"),
    ]


def collecting(table: TableName, role: str, dimensions: int) -> list[str]:
    """Return the statements that make the table of a collection of vectors which tenants share."""
    name, plain = _full(table), table.name
    return [
        "CREATE EXTENSION IF NOT EXISTS vector",
        (
            f"CREATE TABLE {name} (tenant text NOT NULL DEFAULT {_TENANT}, id text, embedding vector({dimensions}) NOT NULL,"
            " body text, payload jsonb,"
            " words tsvector GENERATED ALWAYS AS (to_tsvector('simple', coalesce(body, ''))) STORED,"
            f" CONSTRAINT {quoted(plain + '_pkey')} PRIMARY KEY (tenant, id))"
        ),
        f"CREATE INDEX ON {name} USING gin (words)",
        *isolating(table, "tenant", role),
    ]


def _granting(table: TableName, role: str, rights: str) -> list[str]:
    return [
        f"REVOKE ALL ON {_full(table)} FROM {role}",
        f"GRANT USAGE ON SCHEMA {quoted(table.schema)} TO {role}",
        f"GRANT {rights} ON {_full(table)} TO {role}",
    ]


def _full(table: TableName) -> str:
    return f"{quoted(table.schema)}.{quoted(table.name)}"


# -- looking -----------------------------------------------------------------------------------------

_ROLE = """
SELECT r.rolsuper, r.rolbypassrls,
       ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid) AS groups
  FROM pg_roles r WHERE r.rolname = $1
"""
_TABLES = """
SELECT c.oid::int8 AS id, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
       c.relrowsecurity AS has_security, c.relforcerowsecurity AS is_forced, c.relowner = r.oid AS is_owner,
       coalesce(c.reloptions::text ILIKE '%security_invoker=true%', false) AS asks_as_caller,
       has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE') AS may_change,
       has_table_privilege(r.oid, c.oid, 'TRUNCATE, REFERENCES, TRIGGER') AS may_too_much
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.rolname = $1
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND (has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
        OR has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))
   AND has_schema_privilege(r.oid, n.oid, 'USAGE')
 ORDER BY 2, 3
"""
_POLICIES = """
SELECT polrelid::int8 AS id, polname::text AS name, polpermissive AS is_permissive, polcmd::text AS command,
       pg_get_expr(polqual, polrelid) AS using, pg_get_expr(polwithcheck, polrelid) AS checking
  FROM pg_policy WHERE polrelid = ANY($1::int8[]::oid[])
"""
_COLUMNS = """
SELECT a.attrelid::int8 AS id, a.attname::text AS name, format_type(a.atttypid, NULL) AS type, a.attnotnull AS required,
       pg_get_expr(d.adbin, d.adrelid) AS "default"
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = ANY($1::int8[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
"""
_UNIQUE = """
SELECT x.indrelid::int8 AS id, i.relname::text AS name, NULL::int8 AS target,
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = x.indrelid AND a.attnum = ANY(x.indkey::int2[])) AS columns
  FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
 WHERE x.indrelid = ANY($1::int8[]::oid[]) AND (x.indisunique OR x.indisexclusion)
UNION ALL
SELECT c.conrelid::int8, c.conname::text, c.confrelid::int8,
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attnum = ANY(c.conkey))
  FROM pg_constraint c WHERE c.conrelid = ANY($1::int8[]::oid[]) AND c.contype = 'f'
"""


@dataclass(slots=True)
class Found:
    """What a role can reach, and what is wrong with it."""

    isolated: dict[TableName, str] = field(default_factory=dict)
    """Tables that keep tenants apart -> the tenant's column."""
    shared: set[TableName] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


async def look(connection: Any, role: str) -> Found:
    """Return what ``role`` can reach; ``connection`` is one of asyncpg, of any user.

    A problem is whatever would let one tenant see, change or learn of the rows of another.
    """
    found = Found()
    known = await connection.fetchrow(_ROLE, role)
    if known is None:
        found.problems.append(f"there is no role {role}")
        return found
    found.problems += _role_problems(role, known)
    tables = await connection.fetch(_TABLES, role)
    ids = [table["id"] for table in tables]
    policies, columns, unique = [_grouped(await connection.fetch(sql, ids)) for sql in (_POLICIES, _COLUMNS, _UNIQUE)]
    keys: dict[int, str] = {}
    for table in tables:
        name = TableName(table["schema"], table["name"])
        column = _judge(found, name, table, policies.get(table["id"], []), columns.get(table["id"], []))
        if column is not None:
            keys[table["id"]] = column
    for table in tables:
        if table["id"] in keys:
            found.problems += _key_problems(
                f"{table['schema']}.{table['name']}", unique.get(table["id"], []), keys, keys[table["id"]]
            )
    return found


def _role_problems(role: str, known: Mapping[str, Any]) -> list[str]:
    problems = []
    if known["rolsuper"]:
        problems.append(f"the role {role} is a superuser, for whom no policy holds")
    if known["rolbypassrls"]:
        problems.append(f"the role {role} has BYPASSRLS")
    if known["groups"]:
        problems.append(f"the role {role} can become {', '.join(known['groups'])}")
    return problems


def _judge(
    found: Found, name: TableName, table: Mapping[str, Any], policies: Sequence[Any], columns: Sequence[Any]
) -> str | None:
    """Put a table where it belongs; return the tenant's column of one that keeps tenants apart."""
    problems = found.problems
    if table["kind"] in {"v", "m", "f"}:
        if not table["asks_as_caller"] or table["kind"] != "v":
            problems.append(f"{name} is a view that shows rows whatever policies its tables have: set security_invoker")
        return None
    if table["may_too_much"]:
        problems.append(f"the role may TRUNCATE {name}, refer to it or have triggers on it")
    by_name = {policy["name"]: policy for policy in policies}
    if set(by_name) == {SHARED} and table["has_security"] and not table["may_change"]:
        found.shared.add(name)
        return None
    column = _isolated_by(by_name)
    if column is None or not table["has_security"]:
        problems.append(f"{name} does not keep tenants apart")
        return None
    if table["is_owner"] and not table["is_forced"]:
        problems.append(f"the role owns {name}, and its policies are not forced")
    elif not table["is_forced"]:
        problems.append(f"the policies of {name} do not hold for its owner: FORCE ROW LEVEL SECURITY")
    problems += _column_problems(name, column, columns)
    found.isolated[name] = column
    return column


def _isolated_by(policies: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The tenant's column when both policies say what they have to."""
    columns = set()
    for name, is_permissive in ((POLICY, True), (BOUND, False)):
        policy = policies.get(name)
        if policy is None or policy["is_permissive"] is not is_permissive or policy["command"] != "*":
            return None
        for text in (policy["using"], policy["checking"]):
            match = _CONDITION.fullmatch(text or "")
            if match is None:
                return None
            columns.add(match["column"].strip('"'))
    return columns.pop() if len(columns) == 1 else None


def _column_problems(name: TableName, column: str, columns: Sequence[Any]) -> list[str]:
    known = next((each for each in columns if each["name"] == column), None)
    if known is None:
        return [f"{name} has no column {column}"]
    problems = []
    if known["type"] not in {"text", "character varying"}:
        problems.append(f"{name}.{column} is {known['type']}: the tenant's column must be text")
    if not known["required"]:
        problems.append(f"{name}.{column} may be null")
    if SETTING not in (known["default"] or ""):
        problems.append(f"{name}.{column} is not set by itself: new rows would need the tenant spelt out")
    return problems


def _key_problems(name: str, keys: Sequence[Any], columns: Mapping[int, str], column: str) -> list[str]:
    problems = []
    for key in keys:
        if key["target"] is None and column not in key["columns"]:
            problems.append(f"{name}: the unique {key['name']} has no {column}: its errors tell of other tenants' rows")
        if key["target"] in columns and column not in key["columns"]:
            problems.append(f"{name}: the foreign key {key['name']} has no {column}: it reaches other tenants' rows")
    return problems


def _grouped(rows: Sequence[Any]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return found
