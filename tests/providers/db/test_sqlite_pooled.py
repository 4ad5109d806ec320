"""In a shared file a tenant sees and changes its own rows alone, whatever its statement says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.providers.db.conftest import Caller
from tests.providers.db.pool_file import SCHEMA, everything, make_pool, open_for, pool_path

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.sqlite.provider import SqliteDatabase
from erp.runtime.spi import UNSET, OpenContext

pytestmark = pytest.mark.anyio


@pytest.fixture
async def acme(open_context: OpenContext, call_context: Any) -> AsyncIterator[Caller]:
    make_pool(open_context)
    made = await open_for(open_context, call_context, "acme")
    yield made
    await made.database.close()


@pytest.fixture
async def globex(acme: Caller, open_context: OpenContext, call_context: Any) -> AsyncIterator[Caller]:
    made = await open_for(open_context, call_context, "globex")
    yield made
    await made.database.close()


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("select * from orders order by id", [[1, 10, "acme one"], [2, 20, "acme two"]]),
        ('select "ORDERS".id from "ORDERS" order by 1', [[1], [2]]),
        ("select o.id, l.sku from main.orders as o join line l on l.order_id = o.id", [[1, "acme-a"]]),
        ("select count(*) from orders, line", [[2]]),
        ("select count(*) from orders natural join line", [[0 + 1]]),
        ("select id from orders union select id + 100 from main.line order by 1", [[1], [2], [101]]),
        ("with o as (select * from orders) select max(total) from o", [[20]]),
        ("with recursive c(i) as (select 1 union all select i + 1 from c where i < 3) select count(*) from c", [[3]]),
        ("select (select max(total) from orders), (select count(*) from line)", [[20, 1]]),
        ("select id from orders where id in (select order_id from line)", [[1]]),
        ("select * from (select total from orders order by total desc limit 1)", [[20]]),
        ("select total, sum(total) over (order by id) from orders order by id", [[10, 10], [20, 30]]),
        ("select 1 where exists (select 1 from orders where total = 99)", []),
        ("select id from orders where total = 20 or note = 'globex one' or 1 = 1 order by id", [[1], [2]]),
        ("select [id] from [orders] where `id` = 2", [[2]]),
        ("select id from orders -- where\n where id = 2 /* or 1 */", [[2]]),
        ("select value from json_each('[3, 4]')", [[3], [4]]),
        ("select a.id from orders a left join orders b on a.id = b.id + 7 where b.id is not null", []),
        ("values (1, 'x')", [[1, "x"]]),
    ],
)
async def test_a_query_reads_the_tenants_rows_alone(acme: Caller, sql: str, rows: Any) -> None:
    assert await acme.rows(sql) == rows


async def test_parameters_keep_their_places_and_their_number_is_checked(acme: Caller) -> None:
    sql = "with c as (select ? as x) select ?, (select id from orders where id = ?), x, ? from c"
    assert await acme.rows(sql, "first", "second", 2, "last") == [["second", 2, "first", "last"]]
    with pytest.raises(ProviderError) as refused:
        await acme.rows(sql, "first")
    assert [error.pointer for error in refused.value.errors] == ["/params/parameters"]


async def test_changes_stay_among_the_tenants_rows(acme: Caller, globex: Caller, open_context: OpenContext) -> None:
    before = everything(pool_path(open_context))
    assert (await acme.execute("insert into orders values (?, ?, ?)", 3, 30, "new")).rows_affected == 1
    assert (await acme.execute("insert into orders (id) select id + 10 from orders")).rows_affected == 3
    assert (await acme.execute("update orders set total = total + 1 where total is not null or 1")).rows_affected == 6
    upsert = (
        "insert into orders (id, total) values (1, 5) on conflict (id) do update set total = excluded.total returning *"
    )
    assert (await acme.execute(upsert)).rows == [[1, 5, "acme one"]]
    changed = await acme.execute(
        "update orders as o set note = l.sku from line l where l.order_id = o.id returning id, note"
    )
    assert changed.rows == [[1, "acme-a"]]
    assert (await acme.execute("insert or replace into orders values (2, 0, 'over')")).rows_affected == 1
    assert (await acme.execute("delete from orders where id > 10 or 1 = 1 returning id")).rows_affected == 6
    after = everything(pool_path(open_context))
    assert [row for row in after["orders"] if row[0] == "acme"] == []
    assert [row for row in after["line"] if row[0] == "acme"] == []
    for table in ("orders", "line"):
        assert [r for r in after[table] if r[0] == "globex"] == [r for r in before[table] if r[0] == "globex"]
    assert await globex.rows("select count(*), sum(total) from orders") == [[3, 264]]


async def test_tenants_use_the_same_keys_without_meeting(acme: Caller, globex: Caller) -> None:
    for caller, total in ((acme, 1), (globex, 2)):
        assert (await caller.execute("insert into orders (id, total) values (50, ?)", total)).rows_affected == 1
    assert [await caller.rows("select total from orders where id = 50") for caller in (acme, globex)] == [[[1]], [[2]]]
    with pytest.raises(ProviderError) as refused:
        await acme.execute("insert into orders (id) values (50)")
    assert refused.value.code == "already_exists"


HOSTILE_QUERIES = [
    "select * from secret",
    "select * from main.secret",
    "select * from erp_isolation",
    "select * from sqlite_master",
    "select * from sqlite_schema",
    "select * from main.sqlite_master",
    "select * from sqlite_temp_master",
    "select * from temp.sqlite_temp_schema",
    "select * from temp.orders",
    "select * from pragma_table_info('orders')",
    "select * from pragma_database_list",
    "select * from dbstat",
    "select * from sqlite_stmt",
    "select org from orders",
    "select orders.org from orders",
    "select rowid from orders",
    "select _rowid_ from orders",
    "select oid from line",
    "select 1 in orders",
    "select 1 where (1, 2, 3, 4) in main.orders",
    "select 1 in json_each('[1]')",
    "with orders as (select * from main.orders) select * from orders",
    "with ORDERS as (select 1) select * from orders",
    'with "Orders" (a) as (select 1) select * from orders',
    "with c as (select * from secret) select * from c",
    "select * from secret where exists (with secret as (select 1) select 1)",
    "select * from (with secret as (select 1) select 1), secret",
    "with erp_cte_x as (select 1) select * from erp_cte_x",
    "select * from erp_cte_secret",
    "select * from orders as erp_rows",
    "select :erp_tenant",
    "select * from orders where total = :erp_tenant",
    "select @a",
    "select $a",
    "select ?1",
    "select * from orders indexed by orders_total",
    "select * from orders not indexed",
    "select * from orders t(a, b, c)",
    "select * from globex.orders",
    "select * from main.main.orders",
    "select * from 'orders', 'secret'",
    "select * from orders; select * from secret",
    "select * from orders union select * from secret",
    "select (select a from secret)",
    "select * from orders order by (select a from secret)",
    "select * from orders limit (select count(*) from secret)",
    "select * from orders group by id having (select a from secret) is not null",
    "select * from orders join secret on 1",
    "select sum(id) over (order by (select a from secret)) from orders",
    "select * from (orders join (secret) on 1)",
    "delete from orders",
    "insert into orders values (5, 5, 'x')",
    "with x as (delete from orders returning *) select * from x",
    "explain select * from orders",
    "explain query plan select * from orders",
    "pragma table_info(orders)",
    "attach ':memory:' as globex",
    "select load_extension('x')",
    "select \"load_extension\"('x')",
    "select erp_tenant()",
    "select fts3_tokenizer('simple')",
    "table orders",
    "(((" + "(select 1)" + ")))" + ")",
    "select " + "(" * 60 + "1" + ")" * 60,
    "select " + "not " * 5000 + "1",
    "select * from orders" + " join orders" * 30,
    "select " + "1," * 15_000 + "1",
    "select * from \uff2f\uff32\uff24\uff25\uff32\uff33",
    "select * from orders\u200b",
    "select * from \u212aorders",
]


@pytest.mark.parametrize("sql", HOSTILE_QUERIES, ids=range(len(HOSTILE_QUERIES)))
async def test_a_hostile_query_is_refused_and_nothing_changes(
    acme: Caller, open_context: OpenContext, sql: str
) -> None:
    before = everything(pool_path(open_context))
    with pytest.raises(ProviderError) as refused:
        await acme.rows(sql)
    assert refused.value.code == "invalid_argument"
    assert "globex" not in repr(refused.value)
    assert everything(pool_path(open_context)) == before
    assert await acme.rows("select count(*) from orders") == [[2]]


HOSTILE_CHANGES = [
    "insert into orders (org, id) values ('globex', 5)",
    "insert into orders (\"ORG\", id) values ('globex', 5)",
    "insert into orders (id, id, org) values (1, 2, 'globex')",
    "insert into orders values ('globex', 5, 5, 'x')",
    "insert into orders (id) values (5, 'globex')",
    "insert into orders (id) select 5, 'globex'",
    "insert into orders default values",
    "insert into secret values (1)",
    "insert into erp_isolation values ('secret', 'a')",
    "insert into orders (id) values (1) on conflict (id) do update set org = 'globex'",
    "insert into orders (id) values (1) on conflict (id) do update set (total, org) = (1, 'globex')",
    "insert into orders (id) select a from secret",
    "insert into orders (id, note) select 5, note from main.orders as m where m.org = 'globex'",
    "replace into orders values ('globex', 1, 1, 'x')",
    "update orders set org = 'globex'",
    "update orders set \"Org\" = 'globex'",
    "update orders set (total, org) = (1, 'globex')",
    "update main.orders set org = null",
    "update secret set a = 1",
    "update orders set note = a from secret",
    "update orders set note = (select group_concat(a) from secret)",
    "update orders set total = 1 where org = 'globex'",
    "update orders as o set total = 1 where o.org = 'globex'",
    "update orders set total = 1 where id in orders",
    "update orders set total = 1 returning org",
    "update orders set total = 1 returning (select a from secret)",
    "update orders indexed by orders_total set total = 1",
    "delete from secret",
    "delete from erp_isolation",
    "delete from orders where org = 'globex'",
    "delete from orders where id in main.orders",
    "delete from orders where exists (select a from secret)",
    "delete from orders returning org",
    "delete from temp.orders",
    "delete from erp_cte_orders",
    "create table evil (a)",
    "create temp table orders (a)",
    "create temp view orders as select 1",
    "create view evil as select * from orders",
    "create trigger evil after insert on orders begin delete from line; end",
    "create index evil on orders (total)",
    "alter table orders rename to evil",
    "alter table orders drop column org",
    "drop table orders",
    "drop view if exists orders",
    "pragma foreign_keys = off",
    "pragma recursive_triggers = off",
    "attach ':memory:' as evil",
    "vacuum",
    "vacuum into '/tmp/evil.db'",
    "reindex",
    "analyze",
    "begin",
    "commit",
    "savepoint s",
    "delete from orders; delete from secret",
    "with x as (select 1) delete from secret",
    "insert into temp.erp_last_insert values (1)",
    "with orders as (select 1 as id) delete from orders where id in (select id from orders)",
]


@pytest.mark.parametrize("sql", HOSTILE_CHANGES, ids=range(len(HOSTILE_CHANGES)))
async def test_a_hostile_change_is_refused_and_nothing_changes(
    acme: Caller, open_context: OpenContext, sql: str
) -> None:
    before = everything(pool_path(open_context))
    with pytest.raises(ProviderError) as refused:
        await acme.execute(sql)
    assert refused.value.code == "invalid_argument"
    assert everything(pool_path(open_context)) == before
    assert (await acme.execute("update orders set total = 0")).rows_affected == 2


@pytest.mark.parametrize(
    "sql",
    [
        "select * from orders where case when note like 'globex%' then abs(-9223372036854775808) else 1 end",
        "select sum(case when total > 50 then abs(-9223372036854775808) end) from orders",
        "select note from orders where json_extract(case when total > 50 then '{' else '{}' end, '$') is not null",
        "select * from orders order by case when total > 50 then abs(-9223372036854775808) end",
    ],
)
async def test_no_expression_is_evaluated_on_another_tenants_row(acme: Caller, sql: str) -> None:
    await acme.rows(sql)


async def test_no_condition_of_a_change_is_evaluated_on_another_tenants_row(acme: Caller) -> None:
    trap = "case when note like 'globex%' then abs(-9223372036854775808) else 1 end"
    assert (await acme.execute(f"update orders set total = 1 where {trap}")).rows_affected == 2
    assert (await acme.execute(f"delete from orders where {trap}")).rows_affected == 2


async def test_a_foreign_key_does_not_reach_another_tenants_row(acme: Caller, globex: Caller) -> None:
    with pytest.raises(ProviderError) as refused:
        await acme.execute("insert into line (id, order_id) values (7, 9)")
    assert refused.value.code == "failed_precondition"
    await acme.execute("delete from orders where id = 1")
    assert await acme.rows("select count(*) from line") == [[0]]
    assert await globex.rows("select count(*) from line") == [[2]]


async def test_transactions_work_in_a_shared_file_and_are_short(acme: Caller, globex: Caller) -> None:
    begun = await acme.database.begin(api.BeginRequest(lease_seconds=60), acme.context)
    await acme.execute("update orders set total = 0", transaction=begun.transaction)
    assert await acme.rows("select sum(total) from orders", transaction=begun.transaction) == [[0]]
    assert await globex.rows("select sum(total) from orders") == [[264]]
    with pytest.raises(ProviderError):
        await acme.rows("select * from secret", transaction=begun.transaction)
    await acme.commit(begun.transaction)
    assert await acme.rows("select sum(total) from orders") == [[0]]
    assert (await acme.batch("update orders set total = 4", "delete from line")) == [2, 1]


async def test_metadata_hides_what_is_not_the_tenants(acme: Caller) -> None:
    result = await acme.database.metadata(api.MetadataRequest(), acme.context)
    tables = {table.name: table for table in result.tables}
    assert list(tables) == ["line", "orders"]
    assert [column.name for column in tables["orders"].columns] == ["id", "total", "note"]
    assert (tables["orders"].primary_key, tables["orders"].row_estimate) == (["id"], 2)
    assert {tuple(index.columns) for index in tables["orders"].indexes} == {("id",), ("total",)}
    assert [(key.columns, key.references) for key in tables["line"].foreign_keys] == [(["order_id"], ["id"])]
    with pytest.raises(ProviderError) as refused:
        await acme.database.metadata(api.MetadataRequest(table="secret"), acme.context)
    assert refused.value.code == "not_found"


async def test_a_tenant_is_found_by_its_name_also_where_analyze_saw_one_tenant_alone(
    open_context: OpenContext, call_context: Any
) -> None:
    many = "with recursive n(i) as (select 3 union select i + 1 from n where i < 3000) insert into orders select 'acme', i, 1, 'x' from n"
    make_pool(open_context, f"{SCHEMA} {many}; insert into line values ('acme', 1, 3, 'a'); analyze")
    callers = [await open_for(open_context, call_context, tenant) for tenant in ("globex", "acme")]
    everyone = "select o.note, l.sku from orders as o join line as l on l.order_id = o.id where o.note > 'a'"
    assert [await caller.rows(everyone) for caller in callers] == [[], [["x", "a"]]]
    assert [await caller.rows("select * from orders where note < 'a'") for caller in callers] == [[], []]
    for sql, changed in {
        "update orders set total = 2 where note = 'x'": [0, 2998],
        "update orders set total = l.id from line as l where l.sku = orders.note": [0, 0],
        "delete from orders where note = 'x' or total > 5": [0, 2998],
    }.items():
        assert [(await caller.execute(sql)).rows_affected for caller in callers] == changed
    for caller in callers:
        await caller.database.close()


async def test_rows_are_streamed_from_a_shared_file(acme: Caller) -> None:
    request = api.StreamRequest(sql="select id from orders where id > ? order by id", parameters=[0])
    items = [item async for item in acme.database.stream(request, acme.context)]
    assert items[1].rows == [[1], [2]]
    assert items[0].rows is UNSET


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("drop table erp_isolation", "has no such table"),
        ("insert into erp_isolation values ('nowhere', 'org')", "is not an ordinary table"),
        ("create view v as select * from orders; insert into erp_isolation values ('v', 'org')", "is not an ordinary"),
        ("insert into erp_isolation values ('secret', 'org')", "has no column 'org'"),
        ("insert into erp_isolation values ('secret', 'a')", "has no primary key"),
        ("create index bad on orders (total)", "has the index 'bad'"),
        ("create index bad on orders (lower(org))", "has the index 'bad'"),
        ("create trigger t after insert on orders begin delete from line; end", "has a trigger"),
        ("delete from erp_isolation where table_name = 'orders'", "has a foreign key"),
    ],
)
async def test_a_file_that_is_not_fit_to_be_shared_is_not_opened(
    open_context: OpenContext, call_context: Any, change: str, why: str
) -> None:
    make_pool(open_context, f"{SCHEMA}; {change}")
    with pytest.raises(ProviderError, match=why) as refused:
        await open_for(open_context, call_context, "acme")
    assert refused.value.code == "failed_precondition"


@pytest.mark.parametrize(
    "config",
    [{"mode": "pooled"}, {"file": "main"}, {"mode": "pooled", "file": "main", "tables": ["orders"]}],
)
async def test_a_configuration_that_contradicts_itself_is_refused(
    open_context: OpenContext, config: dict[str, Any]
) -> None:
    with pytest.raises(ProviderError) as refused:
        SqliteDatabase(config, open_context)
    assert refused.value.code == "failed_precondition"


async def test_a_shared_file_is_never_made_by_a_tenant(open_context: OpenContext, call_context: Any) -> None:
    with pytest.raises(ProviderError, match="There is no shared file") as refused:
        await open_for(open_context, call_context, "acme")
    assert refused.value.code == "failed_precondition"
    assert not pool_path(open_context).parent.exists()
