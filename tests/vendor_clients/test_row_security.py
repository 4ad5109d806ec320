"""The statements of PostgreSQL that keep tenants of shared tables apart. That they do is shown in tests/providers/db/postgres."""

from __future__ import annotations

import pytest
import sqlglot

from erp.vendor_clients.row_security import postgres
from erp.vendor_clients.row_security.names import TableName, collection_table

ORDERS = TableName("sales", "orders")


@pytest.mark.parametrize("name", ['a"b', "a]b", "a'b", "Ä b"])
def test_a_name_stays_a_name_whatever_it_is(name: str) -> None:
    for statement in postgres.isolating(TableName(name, name), name, name):
        assert len(sqlglot.tokenize(statement, read="postgres")) > 3
        assert name.replace('"', '""') in statement


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
