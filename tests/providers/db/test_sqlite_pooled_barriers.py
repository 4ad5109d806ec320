"""Each barrier of a shared file holds alone, and no statement made by chance shows or changes another tenant's rows."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.providers.db.conftest import Caller
from tests.providers.db.pool_file import everything, make_pool, open_for, pool_path

from erp.errors import ProviderError
from erp.providers.db.sqlite.connections import connect
from erp.providers.db.sqlite.pooled import SharedFile
from erp.runtime.spi import OpenContext
from erp.vendor_clients.row_security.sqlite import load
from erp.vendor_clients.safe_sql.isolation import Confined


@pytest.fixture
async def acme(open_context: OpenContext, call_context: Any) -> AsyncIterator[Caller]:
    make_pool(open_context)
    made = await open_for(open_context, call_context, "acme")
    yield made
    await made.database.close()


UNWRITTEN_QUERIES = [
    "select * from orders",
    "select * from main.orders",
    "select count(*) from orders",
    "select count(*) from main.line",
    "select 1 in (select id from main.orders)",
    "select 1 in main.orders",
    "with erp_cte_o as (select * from orders) select * from erp_cte_o",
    "with secret as (select * from orders) select * from secret",
    "with json_each as (select note from main.orders) select * from json_each",
    "with recursive r as (select id from orders union select id + 1 from r where id < 3) select * from r",
    "select (select group_concat(note) from main.orders)",
    "select * from (select * from orders) o join line on 1",
    "select * from secret",
    "select * from sqlite_master",
    "select * from sqlite_temp_master",
    "select * from pragma_table_info('orders')",
    "select name from pragma_database_list",
]


@pytest.mark.anyio
@pytest.mark.parametrize("sql", UNWRITTEN_QUERIES)
async def test_the_authorizer_alone_refuses_what_was_not_rewritten(acme: Caller, sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        await acme.database._file.read(lambda connection: connection.execute(sql).fetchall())
    assert refused.value.code == "invalid_argument"
    assert await acme.rows("select count(*) from orders") == [[2]]


UNWRITTEN_CHANGES = [
    "update orders set total = 0",
    "update orders set total = 0 where org = 'globex'",
    "update orders set org = 'acme' where org = 'globex'",
    "update orders set org = 'globex' where org = 'acme'",
    "update or ignore orders set total = 0",
    "update or replace orders set id = 1",
    "delete from orders",
    "delete from main.orders where org = 'globex'",
    "insert into orders values ('globex', 70, 1, 'x')",
    "insert or ignore into orders values ('globex', 70, 1, 'x')",
    "insert or replace into orders values ('globex', 1, 0, 'x')",
    "replace into orders values ('globex', 1, 0, 'x')",
    "insert into orders values ('acme', 70, 1, 'x'), ('globex', 70, 1, 'x')",
    "insert into orders values ('globex', 1, 0, 'x') on conflict do update set total = 0",
    "insert into line select 'acme', abs(random()), null, note from orders",
    "insert into orders select 'acme', abs(random()), 1, sku from line",
    "insert into secret values (1)",
    "delete from secret",
    "drop table orders",
    "create table evil (a)",
]


@pytest.mark.anyio
@pytest.mark.parametrize("sql", UNWRITTEN_CHANGES)
async def test_the_triggers_and_the_authorizer_alone_refuse_a_change_that_was_not_rewritten(
    acme: Caller, open_context: OpenContext, sql: str
) -> None:
    before = everything(pool_path(open_context))
    target = "line" if "line select" in sql else "orders"
    rules: Any = acme.database._place.rules
    rules._target = target
    with pytest.raises(ProviderError) as refused:
        await acme.database._file.write(lambda connection: connection.execute(sql).fetchall())
    assert refused.value.code in {"invalid_argument", "failed_precondition"}
    assert everything(pool_path(open_context)) == before
    assert (await acme.execute("update orders set total = 1")).rows_affected == 2


@pytest.mark.anyio
async def test_a_plan_that_visits_other_tenants_rows_is_refused(acme: Caller) -> None:
    rules: Any = acme.database._place.rules
    view = f'temp."{rules._token}rows_all"'

    def work(connection: sqlite3.Connection) -> None:
        connection.set_authorizer(None)
        connection.execute(f'create temp view {view} as select * from main.orders as "{rules._token}rows"')
        rules.enter(connection, Confined(f"select * from {view}", 0), {}, writes=True)

    with pytest.raises(ProviderError, match="rows of other tenants") as refused:
        await acme.database._file.write(work)
    assert refused.value.code == "failed_precondition"
    assert rules._token not in repr(refused.value) + str(refused.value.detail)


@pytest.mark.anyio
async def test_a_tenant_with_an_odd_name_is_a_value_and_nothing_else(
    open_context: OpenContext, call_context: Any, acme: Caller
) -> None:
    odd = await open_for(open_context, call_context, "acme' or '1'='1")
    assert await odd.rows("select count(*) from orders") == [[0]]
    await odd.execute("insert into orders (id) values (1)")
    assert await odd.rows("select id from orders") == [[1]]
    await odd.database.close()
    assert await acme.rows("select count(*) from orders") == [[2]]


# -- statements made by chance ---------------------------------------------------------------------

MARK = "globex"
COLUMNS = {"orders": ["id", "total", "note"], "line": ["id", "order_id", "sku"]}
values = st.sampled_from(["1", "2", "9", "'globex one'", "null", "'globex'", "-1", "x'00'"])


@st.composite
def source(draw: Any, depth: int) -> tuple[str, list[str]]:
    """Return a FROM item named t and its columns."""
    name = draw(st.sampled_from(["orders", "line", "Orders", '"line"', "[orders]", "main.orders", "main.line"]))
    table = name.split(".")[-1].strip('"[]').lower()
    if depth and draw(st.booleans()):
        return f"({draw(query(depth - 1))}) as t", ["c"]
    return f"{name} as t", COLUMNS[table]


@st.composite
def condition(draw: Any, columns: list[str], depth: int) -> str:
    column, value = draw(st.sampled_from(columns)), draw(values)
    shapes = [
        f"t.{column} = {value} or 1",
        f"{column} is not {value}",
        f"not ({column} > {value})",
        "1 = 1 -- and\n",
        f"coalesce({column}, {value}) <> 7",
    ]
    if depth:
        shapes += [
            f"{column} in ({draw(query(depth - 1))})",
            f"exists ({draw(query(depth - 1))}) or not {column} like '%'",
        ]
    return str(draw(st.sampled_from(shapes)))


@st.composite
def query(draw: Any, depth: int = 2) -> str:
    """Return a query of one column named c."""
    item, columns = draw(source(depth))
    shape = draw(st.integers(0, 7))
    chosen = draw(st.sampled_from([f"t.{column}" for column in columns] + ["max(id)" if "id" in columns else "max(c)"]))
    text = f"select {chosen} as c from {item} where {draw(condition(columns, depth))}"
    if shape == 1 and depth:
        text += f" {draw(st.sampled_from(['union', 'union all', 'except', 'intersect']))} {draw(query(depth - 1))}"
    elif shape == 2 and depth:
        text = f"with w{depth} as ({text}) select w{depth}.c as c from w{depth}, orders as o left join line on 1"
    elif shape == 3:
        text = f"select group_concat(note || coalesce(l.sku, '')) as c from orders left join line l on l.order_id = orders.id or 1 where 1 in ({text})"
    elif shape == 4:
        text = f"select (select max(o.note) from orders o) as c where exists ({text})"
    elif shape == 5:
        text = f"select sum(1) over (order by note) || note as c from orders where id in ({text}) or total > 0"
    elif shape == 6 and depth:
        text = f"with recursive r{depth}(c) as (select 1 union select sku from line, r{depth} limit 20) select c from r{depth}"
    return text


@st.composite
def change(draw: Any) -> str:
    where = draw(condition(COLUMNS["orders"], 1)).replace("t.", "orders.").replace("-- and\n", "")
    inner = draw(query(1))
    return draw(
        st.sampled_from(
            [
                f"update orders set note = 'mine' where {where}",
                f"update orders set note = ({inner} limit 1)",
                f"update main.orders set note = l.sku from line as l where l.order_id = orders.id or {where}",
                f"delete from orders where {where}",
                f"delete from orders where id in ({inner})",
                f"insert into orders (id, note) select abs(random()) % 100000 + 100, c from ({inner}) limit 5",
                "insert into orders values (1, 1, 'mine') on conflict (id) do update set note = excluded.note",
                f"insert or replace into orders (id, note) values (9, ({inner} limit 1))",
                f"insert or ignore into line (id, order_id) select 400, id from orders where {where}",
            ]
        )
    )


@pytest.fixture
def pooled(open_context: OpenContext, call_context: Any) -> Iterator[tuple[Caller, Path, asyncio.AbstractEventLoop]]:
    """Tenant acme on a shared file, and a loop to call it from tests that are not coroutines."""
    path = make_pool(open_context)
    with asyncio.Runner() as runner:
        made = runner.run(open_for(open_context, call_context, "acme"))
        yield made, path, runner.get_loop()
        runner.run(made.database.close())


def outcome(loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, Any]) -> Any:
    """Return the answer, or None when the call is refused for what its statement says."""
    try:
        answer = loop.run_until_complete(call)
    except ProviderError as refused:
        if refused.code not in {"invalid_argument", "failed_precondition", "already_exists"}:
            raise
        event("refused")
        return None
    event("done")
    return answer


FUZZING = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZING
@given(sql=query())
def test_a_query_made_by_chance_never_shows_another_tenants_rows(
    pooled: tuple[Caller, Path, asyncio.AbstractEventLoop], sql: str
) -> None:
    caller, _, loop = pooled
    rows = outcome(loop, caller.rows(sql)) or []
    shown = [value for row in rows for value in row]
    literals = ("globex one", "globex")
    assert [v for v in shown if isinstance(v, str) and MARK in v and v not in literals] == []
    assert not {77, 88, 99}.intersection(v for v in shown if isinstance(v, int))


@FUZZING
@given(sql=change())
def test_a_change_made_by_chance_never_touches_or_copies_another_tenants_rows(
    pooled: tuple[Caller, Path, asyncio.AbstractEventLoop], sql: str
) -> None:
    caller, path, loop = pooled
    before = everything(path)
    outcome(loop, caller.execute(sql))
    after = everything(path)
    for table in ("orders", "line"):
        assert [r for r in after[table] if r[0] != "acme"] == [r for r in before[table] if r[0] != "acme"]
        mine = [value for row in after[table] if row[0] == "acme" for value in row]
        assert [v for v in mine if isinstance(v, str) and v.startswith(("globex nine", "globex two", "globex-"))] == []
    assert (after["secret"], after["sqlite_master"]) == (before["secret"], before["sqlite_master"])


def test_names_of_the_barriers_differ_with_every_opening(open_context: OpenContext) -> None:
    path = make_pool(open_context)
    names = set()
    for _ in range(3):
        connection = connect(path, "rw")
        SharedFile("acme").prepare(connection, writes=True)
        names |= {row[0] for row in connection.execute("select name from sqlite_temp_master")}
        assert set(load(connection)) == {"orders", "line"}
        connection.close()
    assert len(names) == 3 * (2 + 2 * 3)
