"""In a shared DuckDB file a tenant sees and changes its own rows alone, whatever its statement says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import duckdb
import pytest
from tests.providers.db.conftest import Caller
from tests.providers.db.duckdb_pool import ROWS, SCHEMA, everything, make_pool, open_for

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.duckdb.provider import DuckdbDatabase
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
        ("from orders select max(total)", [[20]]),
        ("table orders", [[1, 10, "acme one"], [2, 20, "acme two"]]),
        ("select * exclude (note) from orders order by id", [[1, 10], [2, 20]]),
        ("select id from orders union select id + 100 from main.line order by 1", [[1], [2], [101]]),
        ("with o as (select * from orders) select max(total) from o", [[20]]),
        ("with recursive c(i) as (select 1 union all select i + 1 from c where i < 3) select count(*) from c", [[3]]),
        ("select (select max(total) from orders), (select count(*) from line)", [[20, 1]]),
        ("select id from orders where id in (select order_id from line)", [[1]]),
        ("select total, sum(total) over (order by id) from orders order by id", [[10, 10], [20, 30]]),
        ("select id from orders qualify row_number() over (order by total desc) = 1", [[2]]),
        ("select id from orders where total = 20 or note = 'globex one' or 1 = 1 order by id", [[1], [2]]),
        ("select a.id from orders a left join orders b on a.id = b.id + 7 where b.id is not null", []),
        ("select count(*) filter (where total > 10) from orders group by all", [[1]]),
        ("select list(note order by id) from orders", [['["acme one","acme two"]']]),
        ("select 'erp_held_line', 1", [["erp_held_line", 1]]),
        ("values (1, 'x')", [[1, "x"]]),
    ],
)
async def test_a_query_reads_the_tenants_rows_alone(acme: Caller, sql: str, rows: Any) -> None:
    assert await acme.rows(sql) == rows


MEANT = [
    "select id / 2, id // 2, id % 2, 7 / 2, 2 ** 3, id << 1, cast(total as varchar) from orders order by id",
    "select date_trunc('month', date '2026-03-05'), date '2026-03-05' + interval 3 day, date_diff('day', date '2026-01-01', date '2026-02-01')",
    "select strftime(date '2026-03-05', '%d.%m.%Y'), extract(year from date '2026-03-05'), dayname(date '2026-03-05')",
    "select ([10, 20, 30])[1], array_slice([10, 20, 30], 2, 3), [x * 2 for x in [1, 2] if x > 1] from orders order by id",
    "select json_extract_string('{\"a\": {\"b\": 5}}', '$.a.b'), cast('{\"a\": [1, 2]}' as json) -> 'a' -> 1, cast('{\"a\": \"x\"}' as json) ->> 'a'",
    "select note like 'a%', note ilike 'A%', regexp_matches(note, 'one$'), note || '-' || id, split_part(note, ' ', 2) from orders order by id",
    "select id, lag(total, 1, 0) over w, sum(total) over (w rows between 1 preceding and current row) from orders window w as (order by id)",
    "select coalesce(null, 5), nullif(1, 1), greatest(1, 3, 2), round(2.567, 1), try_cast('x' as integer), cast(1.5 as integer)",
    "select total > 10 as big, count(*), string_agg(note, '|' order by id desc), median(total), quantile_cont(total, 0.5) from orders group by 1 order by 1",
    "select distinct on (total) id from orders order by total, id limit 1 offset 1",
    "select id from orders order by note desc nulls first limit 50%",
    "select grouping(id), id, sum(total) from orders group by rollup (id) order by all",
    "select * from (values (1, 'a'), (2, null)) v(n, t) left join orders o on o.id = v.n order by n",
    "select case id when 1 then 'one' else 'more' end, id in (1, 3), id between 1 and 1, not id = 1, -id, id is distinct from 1 from orders order by id",
    "select a.id, b.id from orders a cross join orders b where (a.id, b.id) > (1, 1) order by all",
    "select max(total) filter (where id < 2), arg_max(note, total), count(distinct note), bool_and(id > 0) from orders",
    "select 0.1 + 0.2, cast(0.1 as double) + 0.2, 1e3, 1_000, 'it''s', chr(65), hash(1) > 0, timestamp '2026-01-01 00:00:00' at time zone 'UTC'",
]


@pytest.mark.parametrize("sql", MEANT)
async def test_a_statement_means_what_it_means_in_a_file_of_ones_own(
    acme: Caller, open_context: OpenContext, sql: str
) -> None:
    alone = DuckdbDatabase({}, open_context)
    await alone.open()
    own = Caller(alone, acme.context)
    await own.execute("create table orders (id integer primary key, total integer, note varchar)")
    await own.execute("insert into orders values (1, 10, 'acme one'), (2, 20, 'acme two')")
    try:
        assert await acme.rows(sql) == await own.rows(sql)
    finally:
        await alone.close()


async def test_parameters_keep_their_places_and_their_number_is_checked(acme: Caller) -> None:
    sql = "with c as (select ? as x) select ?, (select id from orders where id = ?), x, ? from c"
    assert await acme.rows(sql, "first", "second", 2, "last") == [["second", 2, "first", "last"]]
    with pytest.raises(ProviderError) as refused:
        await acme.rows(sql, "first", "second", 2)
    assert refused.value.code == "invalid_argument"
    assert refused.value.errors[0].pointer == "/params/parameters"


async def test_no_expression_of_a_query_meets_another_tenants_value(acme: Caller) -> None:
    """Its failing would show the value: DuckDB names what it could not convert."""
    await acme.execute("update orders set note = '7'")
    assert await acme.rows("select sum(cast(note as integer)) from orders where cast(note as integer) > 0") == [[14]]
    changed = await acme.execute("update orders set total = cast(note as integer) where cast(note as integer) = 7")
    assert changed.rows_affected == 2


async def test_changes_touch_the_tenants_rows_alone(acme: Caller, globex: Caller) -> None:
    before = everything(acme.database)
    assert (await acme.execute("insert into orders values (3, 30, 'x'), (4, 40, ?)", "y")).rows_affected == 2
    assert (await acme.execute("insert into orders (note, id) select note, id + 10 from orders")).rows_affected == 4
    assert (
        await acme.execute("update orders set total = total + 1 where total is not null or 1 = 1")
    ).rows_affected == 8
    upsert = (
        "insert into orders (id, total) values (1, 5), (90, 1)"
        " on conflict (id) do update set total = excluded.total returning *"
    )
    assert sorted((await acme.execute(upsert)).rows) == [[1, 5, "acme one"], [90, 1, None]]
    sql = "update orders as o set note = l.sku from line l where l.order_id = o.id returning id, note"
    assert (await acme.execute(sql)).rows == [[1, "acme-a"]]
    assert (await acme.execute("insert or replace into orders values (2, 0, 'over')")).rows_affected == 1
    assert (await acme.execute("insert or ignore into orders values (2, 7, 'not')")).rows_affected == 0
    assert (await acme.execute("update orders set id = id + 1000 where id = 2")).rows_affected == 1
    assert await acme.rows("select total, note from orders where id = 1002") == [[0, "over"]]
    assert (await acme.execute("delete from orders where id > 10 or 1 = 1 returning id")).rows_affected == 9
    after = everything(acme.database)
    assert [row for row in after["orders"] if row[0] == "acme"] == []
    for table in ("orders", "line"):
        assert [r for r in after[table] if r[0] == "globex"] == [r for r in before[table] if r[0] == "globex"]
    assert await globex.rows("select count(*), sum(total) from orders") == [[3, 264]]


async def test_rules_and_defaults_of_a_table_hold_for_changes(acme: Caller) -> None:
    await acme.execute("insert into line (id) values (5)")
    assert await acme.rows("select amount, sku from line where id = 5") == [["1.50", None]]
    before = everything(acme.database)
    for sql, code in {
        "insert into line (id) values (666)": "failed_precondition",
        "update line set id = 666": "failed_precondition",
        "insert into line (id) values (1)": "already_exists",
        "insert into line (id) values (7), (7)": "already_exists",
        "update line set id = 1": "already_exists",
        "insert into line (id) values (null)": "failed_precondition",
        "insert into line (id) values ('x')": "invalid_argument",
    }.items():
        with pytest.raises(ProviderError) as refused:
            await acme.execute(sql)
        assert (refused.value.code, sql) == (code, sql)
        assert "globex" not in repr(refused.value) + str(refused.value.detail)
    assert everything(acme.database) == before


async def test_tenants_use_the_same_keys_without_meeting(acme: Caller, globex: Caller) -> None:
    for caller, total in ((acme, 1), (globex, 2)):
        assert (await caller.execute("insert into orders (id, total) values (50, ?)", total)).rows_affected == 1
    assert [await caller.rows("select total from orders where id = 50") for caller in (acme, globex)] == [[[1]], [[2]]]


async def test_a_transaction_sees_its_own_changes_and_one_moment(acme: Caller, globex: Caller) -> None:
    handle = await acme.begin()
    await acme.execute("update orders set total = 7 where id = 1", transaction=handle)
    await globex.execute("delete from orders where id = 9")
    assert await acme.rows("select total from orders where id = 1", transaction=handle) == [[7]]
    assert await acme.rows("select total from orders where id = 1") == [[10]]
    page = await acme.query("select id from orders order by id", transaction=handle, max_rows=1)
    page = await acme.query(
        "select id from orders order by id", transaction=handle, max_rows=1, cursor=page.next_cursor
    )
    assert (page.rows, page.next_cursor) == ([[2]], UNSET)
    await acme.commit(handle)
    assert await acme.rows("select total from orders where id = 1") == [[7]]
    handle = await acme.begin()
    await acme.execute("delete from orders", transaction=handle)
    await acme.rollback(handle)
    assert await acme.rows("select count(*) from orders") == [[2]]
    assert await globex.rows("select count(*) from orders") == [[2]]


async def test_two_transactions_that_change_one_row_conflict_and_the_first_wins(acme: Caller) -> None:
    first, second = await acme.begin(), await acme.begin()
    await acme.execute("update orders set total = total + 1 where id = 1", transaction=first)
    with pytest.raises(ProviderError) as refused:
        await acme.execute("update orders set total = total + 1 where id = 1", transaction=second)
        await acme.commit(first)
        await acme.commit(second)
    assert refused.value.code == "conflict"
    await acme.rollback(second)
    await acme.commit(first)
    assert await acme.rows("select total from orders where id = 1") == [[11]]


async def test_a_failed_change_ends_its_transaction_and_nothing_is_committed(acme: Caller) -> None:
    before = everything(acme.database)
    handle = await acme.begin()
    await acme.execute("update orders set total = 50", transaction=handle)
    with pytest.raises(ProviderError) as duplicate:
        await acme.execute("insert into orders (id) values (1)", transaction=handle)
    assert duplicate.value.code == "already_exists"
    with pytest.raises(ProviderError) as refused:
        await acme.commit(handle)
    assert refused.value.code == "failed_precondition"
    assert everything(acme.database) == before


async def test_a_batch_is_done_as_a_whole_or_not_at_all(acme: Caller) -> None:
    assert await acme.batch("insert into orders (id) values (60)", "update orders set total = 60 where id = 60") == [
        1,
        1,
    ]
    before = everything(acme.database)
    with pytest.raises(ProviderError):
        await acme.batch("delete from orders", "insert into line (id) values (1)")
    assert everything(acme.database) == before


async def test_a_stream_shows_the_tenants_rows(acme: Caller) -> None:
    await acme.execute("insert into orders (id) select id + 100 * t.i from orders, (values (1), (2), (3)) t(i)")
    request = api.StreamRequest(sql="select id from orders order by id", rows_per_item=3)
    rows = [item.rows async for item in acme.database.stream(request, acme.context) if item.rows]
    assert [row[0] for each in rows for row in each] == [1, 2, 101, 102, 201, 202, 301, 302]


async def test_metadata_shows_the_tables_as_the_tenant_sees_them(acme: Caller) -> None:
    tables = (await acme.database.metadata(api.MetadataRequest(), acme.context)).tables
    assert [(table.name, [column.name for column in table.columns], table.primary_key) for table in tables] == [
        ("line", ["id", "order_id", "sku", "amount"], ["id"]),
        ("orders", ["id", "total", "note"], ["id"]),
    ]
    assert {table.row_estimate for table in tables} == {UNSET}
    for hidden in ("secret", "erp_isolation", "leak"):
        with pytest.raises(ProviderError) as refused:
            await acme.database.metadata(api.MetadataRequest(table=hidden), acme.context)
        assert refused.value.code == "not_found"


async def test_values_come_back_from_the_shared_file_as_they_went_in(
    open_context: OpenContext, call_context: Any
) -> None:
    make_pool(
        open_context,
        """create table kinds (tenant varchar, id integer, b boolean, h hugeint, d double, m decimal(38, 9), x blob, a date,
             t timestamp, z timestamptz, u uuid, j json, l integer[], i interval, primary key (tenant, id));
           create table erp_isolation as select 'kinds' as table_name, 'tenant' as tenant_column""",
    )
    acme = await open_for(open_context, call_context, "acme")
    values = (
        "1, true, 170141183460469231731687303715884105727, 0.1, 12345678901234567890123456789.123456789,"
        " cast('\\x00\\xAA' as blob), date '2026-01-02', timestamp '2026-01-02 03:04:05.123456',"
        " timestamptz '2026-01-02 03:04:05+02', cast('00000000-0000-0000-0000-000000000001' as uuid), '[1]', [1, null],"
        " interval 3 month"
    )
    try:
        await acme.execute(f"insert into kinds values ({values})")
        await acme.execute("insert into kinds (id) values (2)")
        shown = await acme.rows("select * from kinds order by id")
        assert shown[0][:12] == [1, True, "170141183460469231731687303715884105727", 0.1,
            "12345678901234567890123456789.123456789", {"$bytes": "AKo="}, "2026-01-02", "2026-01-02T03:04:05.123456",
            "2026-01-02T01:04:05Z", "00000000-0000-0000-0000-000000000001", "[1]", "[1,null]"]  # fmt: skip
        assert shown[1] == [2, *[None] * 12]
        await acme.execute("update kinds set b = false")
        assert (await acme.rows("select * exclude (b) from kinds where id = 1"))[0] == [
            value for number, value in enumerate(shown[0]) if number != 1
        ]
        assert await acme.rows("select count(*) from kinds where not b") == [[2]]
    finally:
        await acme.database.close()


LISTED = "create table erp_isolation as select 't' as table_name, 'org' as tenant_column; "
UNFIT = {
    "": "no such table",
    LISTED: "not an ordinary table",
    LISTED + "create view t as select 'a' as org": "not an ordinary table",
    LISTED + "create table t (org varchar, id integer)": "no primary key",
    LISTED + "create table t (org varchar primary key, id integer)": "no primary key of 'org' and another",
    LISTED + "create table t (org integer, id integer, primary key (org, id))": "no column 'org' of the type varchar",
    LISTED + "create table t (id integer primary key)": "no column 'org'",
    LISTED + "create table t (org varchar collate nocase, id integer, primary key (org, id))": "collation",
    LISTED + "create table t (org varchar, id integer, u integer unique, primary key (org, id))": "unique constraint on u",
    LISTED + "create table t (org varchar, id integer, primary key (org, id)); create unique index i on t (id)": "index 'i'",
    LISTED + "create sequence s; create table t (org varchar, id integer default nextval('s'), primary key (org, id))": "sequence",
    LISTED + "create table t (org varchar, id integer, g integer as (id + 1), primary key (org, id))": "generated",
    LISTED + "create table t (org varchar, id integer, b bit, primary key (org, id))": "type BIT",
    LISTED + "create table p (id integer primary key);"
    " create table t (org varchar, id integer references p (id), primary key (org, id))": "foreign key",
    LISTED + "create table t (org varchar, id integer, primary key (org, id));"
    " create table c (org varchar, id integer, foreign key (org, id) references t (org, id))": "foreign key",
    LISTED + "create type mood as enum ('a'); create table t (org varchar, id integer, m mood, primary key (org, id))": "type",
    LISTED + "create table t (org varchar, id integer, erp_x integer, primary key (org, id))": "erp_",
    "create table erp_isolation as select 'erp_t' as table_name, 'org' as tenant_column;"
    " create table erp_t (org varchar, id integer, primary key (org, id))": "not an ordinary table",
    LISTED + "create table t (org varchar, id integer, primary key (org, id));"
    " create table log (a integer);"
    " create trigger seen after insert on t for each statement insert into log values (1)": "trigger",
}  # fmt: skip


@pytest.mark.parametrize(("script", "why"), UNFIT.items(), ids=range(len(UNFIT)))
async def test_a_file_that_would_not_keep_tenants_apart_is_not_opened(
    open_context: OpenContext, script: str, why: str
) -> None:
    path = make_pool(open_context, script or "select 1")
    database = DuckdbDatabase({"mode": "pooled", "file": "main"}, open_context)
    with pytest.raises(ProviderError, match=why) as refused:
        await database.open()
    assert refused.value.code == "failed_precondition"
    await database.close()
    duckdb.connect(str(path)).close()


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"mode": "pooled"}, "mode pooled needs file"),
        ({"file": "main"}, "file is only possible with mode pooled"),
        ({"mode": "siloed", "file": "main"}, "file is only possible with mode pooled"),
    ],
)
async def test_a_configuration_that_contradicts_itself_is_refused(
    open_context: OpenContext, config: dict[str, Any], why: str
) -> None:
    with pytest.raises(ProviderError, match=why) as refused:
        DuckdbDatabase(config, open_context)
    assert refused.value.code == "failed_precondition"


async def test_a_shared_file_is_made_by_the_operator_alone(open_context: OpenContext) -> None:
    database = DuckdbDatabase({"mode": "pooled", "file": "missing"}, open_context)
    with pytest.raises(ProviderError, match="The operator makes it") as refused:
        await database.open()
    assert refused.value.code == "failed_precondition"
    await database.close()
    assert list(open_context.shared_dir.rglob("missing*")) == []


async def test_a_tenants_limits_hold_for_its_own_engine_and_not_for_the_file(
    open_context: OpenContext, call_context: Any, acme: Caller
) -> None:
    greedy: Any = await open_for(open_context, call_context, "globex", threads=7, memory_megabytes=64)
    asked = "select current_setting('threads')"
    root: Any = greedy.database._root
    assert [engine.execute(asked).fetchone() for engine in (root._memory, root._file)] == [(7,), (2,)]
    await greedy.database.close()
    assert await acme.rows("select count(*) from orders") == [[2]]


@pytest.mark.slow
async def test_a_tenant_with_more_rows_than_its_memory_is_told_so(open_context: OpenContext, call_context: Any) -> None:
    rows = "insert into orders select 'acme', i, i, rpad('', 400, chr(65 + (i % 26)::integer)) || i from range(400000) t(i);"
    make_pool(open_context, SCHEMA + ROWS.replace("'acme'", "'other'") + rows)
    acme = await open_for(open_context, call_context, "acme", memory_megabytes=64)
    with pytest.raises(ProviderError, match="memory_megabytes") as refused:
        await acme.rows("select count(note) from orders")
    assert refused.value.code == "failed_precondition"
    assert await acme.rows("select 1") == [[1]]
    await acme.database.close()


@pytest.mark.slow
async def test_a_long_statement_is_stopped_and_holds_nobody_up(
    open_context: OpenContext, call_context: Any, acme: Caller
) -> None:
    slow = await open_for(open_context, call_context, "globex", max_statement_seconds=0.5)
    endless = "with recursive c(i) as (select 1 union all select i + 1 from c) select max(i) from c, orders"
    for attempt in (slow.rows(endless), slow.execute(f"update orders set total = ({endless})")):
        with pytest.raises(ProviderError) as refused:
            await attempt
        assert refused.value.code == "timeout"
    assert await slow.rows("select sum(total) from orders") == [[264]]
    assert (await acme.execute("update orders set total = 0")).rows_affected == 2
    await slow.database.close()


async def test_nothing_of_a_statement_is_left_for_the_next(acme: Caller) -> None:
    database: Any = acme.database
    left = "select table_name from duckdb_tables() union all select view_name from duckdb_views() where not internal"
    await acme.execute("update orders set total = 1 where id = 1")
    with pytest.raises(ProviderError):
        await acme.execute("update orders set id = 5")
    await acme.rows("select * from line")
    async with database._sessions.lent() as session:
        for engine in (session._handle._memory, session._handle._file):
            names = {name for (name,) in engine.execute(left).fetchall()}
            assert not {name for name in names if name.startswith("erp_held") or name == "erp_arriving"}
        assert session._handle._memory.execute(left).fetchall() == []
    assert everything(database)["orders"][0] == ("acme", 1, 1, "acme one")
