"""The statements that keep tenants of shared tables apart. Those of PostgreSQL are proven in tests/providers/db/postgres."""

from __future__ import annotations

import pytest
import sqlglot

from erp.vendor_clients.row_security import mssql, postgres
from erp.vendor_clients.row_security.names import TableName, collection_table

ORDERS = TableName("sales", "orders")


def test_sql_server_filters_and_blocks_by_the_context_of_the_session() -> None:
    default, drop, policy, grant, deny = mssql.isolating(ORDERS, "tenant", "erp_app")

    assert default == (
        "IF OBJECT_ID(N'sales.erp_tenant_sales_orders', N'D') IS NULL ALTER TABLE [sales].[orders] ADD CONSTRAINT"
        " [erp_tenant_sales_orders] DEFAULT CAST(SESSION_CONTEXT(N'erp_tenant') AS nvarchar(128)) FOR [tenant]"
    )
    assert drop == "DROP SECURITY POLICY IF EXISTS erp_isolation.[sales_orders]"
    predicate = "erp_isolation.is_own([tenant]) ON [sales].[orders]"
    assert policy == (
        f"CREATE SECURITY POLICY erp_isolation.[sales_orders] ADD FILTER PREDICATE {predicate},"
        f" ADD BLOCK PREDICATE {predicate} AFTER INSERT, ADD BLOCK PREDICATE {predicate} AFTER UPDATE,"
        f" ADD BLOCK PREDICATE {predicate} BEFORE UPDATE, ADD BLOCK PREDICATE {predicate} BEFORE DELETE"
        " WITH (STATE = ON, SCHEMABINDING = ON)"
    )
    assert grant == "GRANT SELECT, INSERT, UPDATE, DELETE ON [sales].[orders] TO [erp_app]"
    assert deny == "DENY ALTER, CONTROL, REFERENCES ON [sales].[orders] TO [erp_app]"


def test_the_function_of_sql_server_compares_with_the_session_and_is_false_without_a_tenant() -> None:
    schema, function = mssql.preparing()

    assert "CREATE SCHEMA erp_isolation" in schema
    assert function.endswith(
        "RETURN SELECT 1 AS is_own WHERE @tenant = CAST(SESSION_CONTEXT(N'erp_tenant') AS nvarchar(128))"
    )


@pytest.mark.parametrize("name", ['a"b', "a]b", "a'b", "Ä b"])
def test_a_name_stays_a_name_whatever_it_is(name: str) -> None:
    for statement in postgres.isolating(TableName(name, name), name, name):
        assert len(sqlglot.tokenize(statement, read="postgres")) > 3
        assert name.replace('"', '""') in statement
    quoted = name.replace("]", "]]")
    assert f"[{quoted}].[{quoted}]" in mssql.isolating(TableName(name, name), name, name)[-1]


def test_tables_are_named_with_or_without_their_schema() -> None:
    assert TableName.parse("orders", "public") == TableName("public", "orders")
    assert TableName.parse("sales.orders", "public") == ORDERS
    for wrong in ("a.b.c", "", ".", "a."):
        with pytest.raises(ValueError, match="is not a table"):
            TableName.parse(wrong, "public")


def test_a_collection_has_a_table_that_leaves_room_for_its_indexes() -> None:
    assert collection_table("notes") == "erp_vectors_notes"
    long = collection_table("a" * 63)
    assert (len(long) <= 57, long != collection_table("a" * 62 + "b")) == (True, True)
