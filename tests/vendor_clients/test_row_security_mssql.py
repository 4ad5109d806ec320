"""Security policies of SQL Server: what is written, in Transact-SQL as another parser knows it, and what is looked at.

No server was at hand. The statements are held against sqlfluff's grammar of Transact-SQL, the judging against rows as
Microsoft describes the catalogue views.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from sqlfluff.core import Linter
from tests.support.mssql_catalogue import DEFAULT, PREDICATES, PRIMARY, READ_WRITE, TENANT, MssqlCatalogue

from erp.providers.db.mssql import catalogue
from erp.vendor_clients.row_security import mssql
from erp.vendor_clients.row_security.names import TableName

ORDERS = TableName("sales", "orders")
ODD = TableName("it's a", "Ä' --")
LINTER = Linter(dialect="tsql")


def unparsed(sql: str) -> list[str]:
    """What sqlfluff cannot read of ``sql``."""
    root = LINTER.parse_string(sql).tree
    assert root is not None
    return [segment.raw for segment in root.recursive_crawl("unparsable")]


def test_it_filters_and_blocks_by_the_context_of_the_session() -> None:
    default, policy, revoke, grant, deny = mssql.isolating(ORDERS, "tenant", "erp_app")

    assert default == (
        "IF OBJECT_ID(N'[sales].[erp_tenant_sales_orders]', N'D') IS NULL ALTER TABLE [sales].[orders] ADD CONSTRAINT"
        " [erp_tenant_sales_orders] DEFAULT CAST(SESSION_CONTEXT(N'erp_tenant') AS nvarchar(128)) FOR [tenant]"
    )
    predicate = "PREDICATE erp_isolation.is_own([tenant]) ON [sales].[orders]"
    assert policy == (
        "SET XACT_ABORT ON; BEGIN TRANSACTION; DROP SECURITY POLICY IF EXISTS erp_isolation.[sales_orders];"
        f" EXEC(N'CREATE SECURITY POLICY erp_isolation.[sales_orders] ADD FILTER {predicate},"
        f" ADD BLOCK {predicate} AFTER INSERT, ADD BLOCK {predicate} AFTER UPDATE,"
        f" ADD BLOCK {predicate} BEFORE UPDATE, ADD BLOCK {predicate} BEFORE DELETE"
        " WITH (STATE = ON, SCHEMABINDING = ON)'); COMMIT TRANSACTION"
    )
    assert revoke == "REVOKE CONTROL ON [sales].[orders] FROM [erp_app]"
    assert grant == "GRANT SELECT, INSERT, UPDATE, DELETE ON [sales].[orders] TO [erp_app]"
    assert deny == "DENY ALTER, REFERENCES, TAKE OWNERSHIP ON [sales].[orders] TO [erp_app]"


def test_nothing_is_denied_that_takes_reading_with_it() -> None:
    """Whoever is denied CONTROL is denied all that CONTROL implies (Microsoft, "DENY Object Permissions")."""
    denied = [one for one in mssql.isolating(ORDERS, "tenant", "erp_app") if one.startswith("DENY")]

    assert not any("CONTROL" in one or "SELECT" in one for one in denied)


def test_the_function_is_false_without_a_tenant_and_is_left_alone_once_it_is_there() -> None:
    schema, function = mssql.preparing()

    assert schema == "IF SCHEMA_ID(N'erp_isolation') IS NULL EXEC(N'CREATE SCHEMA erp_isolation')"
    own = "CAST(SESSION_CONTEXT(N''erp_tenant'') AS nvarchar(128))"
    exact = "COLLATE Latin1_General_100_BIN2"
    assert function == (
        "IF OBJECT_ID(N'erp_isolation.is_own', N'IF') IS NULL EXEC(N'CREATE FUNCTION erp_isolation.is_own"
        "(@tenant nvarchar(128)) RETURNS TABLE WITH SCHEMABINDING AS RETURN SELECT 1 AS is_own"
        f" WHERE @tenant = {own} AND @tenant {exact} = {own} {exact}')"
    )


@pytest.mark.parametrize("table", [ORDERS, ODD], ids=["plain", "odd"])
def test_another_parser_of_transact_sql_reads_every_statement(table: TableName) -> None:
    statements = [*mssql.preparing(), *mssql.isolating(table, "the tenant", "o'neil")]
    inner = [each.replace("''", "'") for one in statements for each in re.findall(r"EXEC\(N'(.*)'\)", one)]

    assert [each.split(" ", 2)[:2] for each in inner] == [
        ["CREATE", "SCHEMA"], ["CREATE", "FUNCTION"], ["CREATE", "SECURITY"],
    ]  # fmt: skip
    for statement in [*statements, *inner]:
        assert unparsed(statement) == []


@pytest.mark.parametrize(
    "query",
    [
        mssql.REACHED, mssql.HELD, mssql.POLICIES, mssql.COLUMNS, mssql.KEYS, mssql.PARALLEL,
        catalogue._TABLES.replace("?", "@a"),
        *(sql.format(marks="@a, @b") for sql in (catalogue._COLUMNS, catalogue._INDEXES, catalogue._KEYS)),
    ],
)  # fmt: skip
def test_another_parser_of_transact_sql_reads_every_question(query: str) -> None:
    assert unparsed(query) == []


def test_a_bracket_in_a_name_ends_no_name() -> None:
    statements = mssql.isolating(TableName("a]b", "c]d"), "e]f", "g]h")

    assert statements[-1] == "DENY ALTER, REFERENCES, TAKE OWNERSHIP ON [a]]b].[c]]d] TO [g]]h]"
    assert "is_own([e]]f]) ON [a]]b].[c]]d]" in statements[1]


def test_what_is_no_transact_sql_is_seen() -> None:
    assert unparsed("CREATE SECURITY POLICY ADD FILTER ON") != []


def test_a_question_is_asked_with_the_rights_of_the_user_whatever_its_name() -> None:
    assert mssql.as_user("o'neil", "SELECT 1") == "EXECUTE AS USER = N'o''neil'; SELECT 1; REVERT"


# -- looking ---------------------------------------------------------------------------------------


def problems(**answers: Sequence[Any]) -> list[str]:
    return mssql.look(MssqlCatalogue(**answers), "erp_app").problems


def test_a_table_with_its_policy_keeps_tenants_apart() -> None:
    found = mssql.look(MssqlCatalogue(), "erp_app")

    assert (found.problems, found.isolated) == ([], {ORDERS: "tenant"})


def test_what_the_user_cannot_reach_is_not_judged() -> None:
    assert problems(reached=[("sales", "orders", "U", *READ_WRITE), ("hr", "pay", "U", *(0,) * 7)]) == []


@pytest.mark.parametrize("missing", range(len(PREDICATES)))
def test_a_policy_without_one_of_its_predicates_does_not_pass(missing: int) -> None:
    kept = [each for number, each in enumerate(PREDICATES) if number != missing]

    assert problems(policies=[("sales", "orders", True, *each) for each in kept]) == [
        "sales.orders does not keep tenants apart"
    ]


@pytest.mark.parametrize(
    "policies",
    [
        [],
        [("sales", "orders", False, *each) for each in PREDICATES],
        [("sales", "orders", True, kind, when, "[dbo].[is_own]([tenant])") for kind, when, _ in PREDICATES],
        [("sales", "orders", True, kind, when, "[erp_isolation].[is_own]('acme')") for kind, when, _ in PREDICATES],
        [*[("sales", "orders", True, *each) for each in PREDICATES[:-1]],
         ("sales", "orders", True, "BLOCK", "BEFORE DELETE", "[erp_isolation].[is_own]([other])")],
    ],
    ids=["none", "off", "another function", "no column", "two columns"],
)  # fmt: skip
def test_a_policy_that_is_not_the_one_does_not_pass(policies: Sequence[Any]) -> None:
    assert problems(policies=policies) == ["sales.orders does not keep tenants apart"]


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"held": [(0, 0, 1, 0, 0, 0)]}, "the user erp_app has ALTER ANY SECURITY POLICY on the database"),
        ({"reached": [("sales", "orders", "U", 1, 1, 1, 1, 1, 0, 1)]}, "the user has ALTER, TAKE OWNERSHIP on sales.orders"),
        ({"columns": [(*TENANT[:3], "int", *TENANT[4:])]}, "sales.orders.tenant is int: the tenant's column must be nvarchar or varchar"),
        ({"columns": [(*TENANT[:4], True, DEFAULT)]}, "sales.orders.tenant may be null"),
        ({"columns": [(*TENANT[:5], None)]}, "sales.orders.tenant is not set by itself: new rows would need the tenant spelt out"),
        ({"columns": []}, "the columns of sales.orders cannot be seen: connect as an owner of the database"),
        ({"keys": [*PRIMARY, ("sales", "orders", "UQ", "number", None)]}, "sales.orders: the unique UQ has no tenant: its errors tell of other tenants' rows"),
        ({"keys": [*PRIMARY, ("sales", "orders", "FK", "parent", "sales.orders")]}, "sales.orders: the foreign key FK has no tenant: it reaches other tenants' rows"),
    ],
)  # fmt: skip
def test_what_lets_tenants_meet_is_named(answers: dict[str, Any], problem: str) -> None:
    assert problems(**answers) == [problem]


def test_a_foreign_key_to_a_table_that_tenants_do_not_share_is_none_of_ours() -> None:
    assert problems(keys=[*PRIMARY, ("sales", "orders", "FK", "currency", "dbo.currency")]) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("dbo", "report", "V"), "dbo.report is no table, and shows what nobody looked at: revoke the user's rights on it"),
        (("erp_isolation", "is_own", "IF"), "the user has rights on erp_isolation.is_own, on which policies rest: revoke them"),
        (("dbo", "loose", "U"), "dbo.loose does not keep tenants apart"),
    ],
)  # fmt: skip
def test_everything_else_that_the_user_reaches_is_named(row: tuple[str, ...], problem: str) -> None:
    assert problems(reached=[("sales", "orders", "U", *READ_WRITE), (*row, 1, 0, 0, 0, 0, 0, 0)]) == [problem]


@pytest.mark.parametrize("rows", [[], [(0,)], [(8,)]])
def test_queries_must_not_run_in_parallel(rows: Sequence[Any]) -> None:
    (problem,) = problems(parallel=rows)

    assert problem.endswith("ALTER DATABASE SCOPED CONFIGURATION SET MAXDOP = 1")
