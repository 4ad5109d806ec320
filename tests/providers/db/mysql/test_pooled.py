"""Tenants that share tables of MariaDB see and change their own rows as if there were no others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.providers.db.mysql.conftest import STOCK, Shop, refusal

from erp.contracts.models import db as api

pytestmark = [pytest.mark.live, pytest.mark.anyio]


async def test_each_tenant_sees_and_changes_its_own_rows(shop: Shop) -> None:
    acme, rival = await shop.caller("acme"), await shop.caller("rival")

    assert await acme.rows("select sku, quantity from stock order by sku") == [["A", 1], ["B", 2]]
    assert await rival.rows("select * from stock") == [["A", 100, "rival one"]]
    assert (await acme.execute("update stock set quantity = quantity + ? where 1 or 1", 1)).rows_affected == 2
    assert (await rival.execute("insert into stock (sku, quantity) values (?, ?)", "A2", 5)).rows_affected == 1
    assert (await acme.execute("delete from stock where sku = 'A2' or sku = 'A2'")).rows_affected == 0
    upsert = "insert into stock (sku, quantity) values ('A', 7), ('C', 7) on duplicate key update quantity = values(quantity)"
    await acme.execute(upsert)
    assert await acme.rows("select code from currency order by code") == [["EUR"], ["USD"]]
    assert await shop.run(STOCK) == [
        ("acme", "A", 7, "acme one"), ("acme", "B", 3, None), ("acme", "C", 7, None),
        ("rival", "A", 100, "rival one"), ("rival", "A2", 5, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "given", "rows"),
    [
        ("select s.sku from stock s join currency c on c.code = ? where s.sku = ?", ["EUR", "A"], [["A"]]),
        ("select sku from stock order by sku limit ?, ?", [1, 5], [["B"]]),
        ("select sku from stock where note like 'acme%' and sku <> '?:%s'", [], [["A"]]),
        ("select ':erp_tenant', '%s', ?", ["x"], [[":erp_tenant", "%s", "x"]]),
        ("with s as (select * from stock) select max(quantity) from s", [], [[2]]),
        ("select sku from stock union select code from currency order by 1", [], [["A"], ["B"], ["EUR"], ["USD"]]),
        ("select (select max(quantity) from stock), (select count(*) from line)", [], [[2, 0]]),
        ("select sku, sum(quantity) over (order by sku) from stock", [], [["A", "1"], ["B", "3"]]),
        ("select sku from stock where quantity in (100, 1) or 'rival one' = note", [], [["A"]]),
        (
            "select STOCK.sku from STOCK where not exists (select 1 from stock b where b.quantity > 2)",
            [],
            [["A"], ["B"]],
        ),
    ],
)
async def test_a_query_reads_the_tenants_rows_alone(shop: Shop, sql: str, given: list[Any], rows: Any) -> None:
    acme = await shop.caller("acme")
    assert await acme.rows(sql, *given) == rows


async def test_changes_return_rows_and_take_what_a_query_finds(shop: Shop) -> None:
    acme = await shop.caller("acme")
    added = await acme.execute("insert into stock (sku, quantity) values (?, ?) returning sku, quantity", "C", 3)
    copied = await acme.execute("insert into stock (sku, quantity) select concat(sku, ?), quantity from stock", "-copy")
    gone = await acme.execute("delete from stock where sku like ? returning *", "%copy")
    line = await acme.execute("insert into line (id, sku) values (1, 'A')")

    assert (added.rows, copied.rows_affected) == ([["C", 3]], 3)
    assert sorted(row[0] for row in gone.rows or []) == ["A-copy", "B-copy", "C-copy"]
    assert line.rows_affected == 1
    assert await acme.rows("select sku from line") == [["A"]]


async def test_tenants_use_the_same_keys_without_meeting(shop: Shop) -> None:
    acme, rival = await shop.caller("acme"), await shop.caller("rival")
    for caller, quantity in ((acme, 1), (rival, 2)):
        await caller.execute("insert into stock (sku, quantity) values ('same', ?)", quantity)
    assert await acme.rows("select quantity from stock where sku = 'same'") == [[1]]
    assert (await refusal(acme.execute("insert into stock (sku) values ('same')"))).code == "already_exists"


async def test_transactions_streams_and_batches_are_the_tenants_too(shop: Shop) -> None:
    acme = await shop.caller("acme")
    transaction = await acme.begin()
    await acme.execute("insert into stock (sku) values ('C')", transaction=transaction)
    await acme.savepoint(transaction, "s")
    assert (await acme.execute("delete from stock", transaction=transaction)).rows_affected == 3
    await acme.rollback(transaction, savepoint="s")
    assert await acme.rows("select count(*) from stock", transaction=transaction) == [[3]]
    await acme.commit(transaction)
    stream = acme.database.stream(api.StreamRequest(sql="select sku from stock order by sku"), acme.context)
    assert [row for item in [item async for item in stream] if item.rows for row in item.rows] == [["A"], ["B"], ["C"]]
    assert await acme.batch("update stock set quantity = 0", "delete from stock where sku = 'C'") == [3, 1]
    assert (await shop.run(STOCK))[-1] == ("rival", "A", 100, "rival one")


async def test_metadata_shows_the_tenants_shape_and_counts_nobodys_rows(shop: Shop) -> None:
    acme = await shop.caller("acme")
    result = await acme.database.metadata(api.MetadataRequest(), acme.context)
    tables = {table.name: table for table in result.tables}

    assert list(tables) == ["currency", "line", "stock"]
    assert [column.name for column in tables["stock"].columns] == ["sku", "quantity", "note"]
    assert (tables["stock"].primary_key, tables["stock"].indexes[0].columns) == (["sku"], ["quantity"])
    assert [(key.columns, key.references) for key in tables["line"].foreign_keys] == [(["sku"], ["sku"])]
    assert all(not isinstance(table.row_estimate, int) for table in result.tables)
    missing = acme.database.metadata(api.MetadataRequest(table="secret"), acme.context)
    assert (await refusal(missing)).code == "not_found"


async def test_a_pool_may_be_narrowed_to_some_tables_and_never_widened(shop: Shop) -> None:
    acme = await shop.caller("acme", tables=["stock", "secret"])
    assert await acme.rows("select count(*) from stock") == [[2]]
    for table in ("currency", "secret"):
        assert (await refusal(acme.rows(f"select * from {table}"))).code == "invalid_argument"
    assert [table.name for table in (await acme.database.metadata(api.MetadataRequest(), acme.context)).tables] == [
        "stock"
    ]


async def test_twenty_first_calls_of_a_tenant_at_once_make_its_logins_once(shop: Shop) -> None:
    callers = await asyncio.gather(*(shop.caller("acme", readers=1, writers=1) for _ in range(20)))
    answers = await asyncio.gather(*(caller.rows("select count(*) from stock") for caller in callers))
    assert answers == [[[2]]] * 20
    assert await shop.run(f"select count(*) from {shop.name}_pooled.erp_tenants") == [(2,)]
