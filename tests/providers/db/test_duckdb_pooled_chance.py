"""The rewriting of statements for a shared DuckDB file holds alone, and no statement made by chance shows or changes other rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.providers.db.conftest import Caller
from tests.providers.db.duckdb_pool import ROWS, SCHEMA, everything, make_pool, open_for

from erp.errors import ProviderError
from erp.providers.db.duckdb.statements import CHANGING, only
from erp.runtime.spi import OpenContext


@pytest.fixture
async def acme(open_context: OpenContext, call_context: Any) -> AsyncIterator[Caller]:
    make_pool(open_context)
    made = await open_for(open_context, call_context, "acme")
    yield made
    await made.database.close()


# -- the rewriting alone ---------------------------------------------------------------------------


def one_engine() -> Any:
    """Return an engine in which the rows of all tenants have the names under which a tenant's engine has its own."""
    engine = duckdb.connect(":memory:")
    engine.execute(SCHEMA + ROWS)
    for name in ("orders", "line"):
        engine.execute(f"create view erp_held_{name} as from {name}")
    return engine


@pytest.mark.anyio
async def test_the_rewriting_alone_keeps_changes_to_the_tenants_rows(acme: Caller) -> None:
    database: Any = acme.database
    for sql in (
        "update orders set total = 0 where true or id = 9",
        "update orders set note = l.sku from line l where true",
        "delete from orders where id in (select id from orders) or true",
        "delete from orders using line where true",
        "insert into orders (id, note) select id + 50, note from orders",
        "insert into orders values (1, 1, 'x') on conflict (id) do update set note = excluded.note",
    ):
        engine = one_engine()
        made = database._wording.change(sql, [])
        before = engine.execute("from orders where org <> 'acme' order by all").fetchall()
        statement = only(engine, made.placed.sql, CHANGING)
        used = {key: value for key, value in made.parameters.values.items() if key in statement.named_parameters}
        assert engine.execute(statement, used).fetchall()[0][0] > 0, sql
        assert engine.execute("from orders where org <> 'acme' order by all").fetchall() == before, sql


# -- statements made by chance ---------------------------------------------------------------------

COLUMNS = {"orders": ["id", "total", "note"], "line": ["id", "order_id", "sku"]}
values = st.sampled_from(["1", "2", "9", "'globex one'", "null", "'globex'", "-1", "'acme two'"])


@st.composite
def source(draw: Any, depth: int) -> tuple[str, list[str]]:
    """Return a FROM item named t and its columns."""
    name = draw(st.sampled_from(["orders", "line", "Orders", '"line"', "main.orders", "main.line"]))
    table = name.split(".")[-1].strip('"').lower()
    if depth and draw(st.booleans()):
        return f"({draw(query(depth - 1))}) as t", ["c"]
    return f"{name} as t", COLUMNS[table]


@st.composite
def condition(draw: Any, columns: list[str], depth: int) -> str:
    column, value = draw(st.sampled_from(columns)), draw(values)
    shapes = [
        f"cast(t.{column} as varchar) = cast({value} as varchar) or true",
        f"cast({column} as varchar) is distinct from cast({value} as varchar)",
        f"not (cast({column} as varchar) > 'b')",
        "1 = 1 -- and\n",
        f"coalesce(cast({column} as varchar), 'x') <> '7'",
    ]
    if depth:
        shapes += [
            f"cast({column} as varchar) in ({draw(query(depth - 1))})",
            f"exists ({draw(query(depth - 1))}) or not cast({column} as varchar) like '%'",
        ]
    return str(draw(st.sampled_from(shapes)))


@st.composite
def query(draw: Any, depth: int = 2) -> str:
    """Return a query of one column of texts named c."""
    item, columns = draw(source(depth))
    shape = draw(st.integers(0, 8))
    chosen = draw(st.sampled_from([f"cast(t.{column} as varchar)" for column in columns] + ["max(cast(t as varchar))"]))
    made = f"select {chosen} as c from {item} where {draw(condition(columns, depth))}"
    if shape == 1 and depth:
        made += f" {draw(st.sampled_from(['union', 'union all', 'except', 'intersect']))} {draw(query(depth - 1))}"
    elif shape == 2 and depth:
        made = f"with w{depth} as ({made}) select w{depth}.c as c from w{depth}, orders as o left join line on true"
    elif shape == 3:
        made = f"select string_agg(note || coalesce(l.sku, '')) as c from orders left join line l on true where '1' in ({made})"
    elif shape == 4:
        made = f"select (select max(o.note) from orders o) as c where exists ({made})"
    elif shape == 5:
        made = (
            f"select string_agg(note) over (order by id) || note as c from orders where note in ({made}) or total > 0"
        )
    elif shape == 6 and depth:
        made = f"with recursive r{depth}(c) as (select '1' union select sku from line, r{depth}) select c from r{depth}"
    elif shape == 7:
        made = f"from orders as o positional join line select cast(o as varchar) as c where exists ({made})"
    return made


@st.composite
def change(draw: Any) -> str:
    where = draw(condition(COLUMNS["orders"], 1)).replace("t.", "orders.").replace("-- and\n", "")
    inner = draw(query(1))
    return str(
        draw(
            st.sampled_from(
                [
                    f"update orders set note = 'mine' where {where}",
                    f"update orders set note = (select min(c) from ({inner}))",
                    f"update main.orders set note = l.sku from line as l where l.order_id = orders.id or {where}",
                    f"update orders set id = id + 100 where {where}",
                    f"delete from orders where {where}",
                    f"delete from orders where note in ({inner})",
                    f"insert into orders (id, note) select row_number() over () + 1000, c from ({inner}) as q limit 5",
                    "insert into orders values (1, 1, 'mine') on conflict (id) do update set note = excluded.note",
                    f"insert or replace into orders (id, note) select 9, min(c) from ({inner}) as q",
                    f"insert or ignore into line (id, order_id) select 400, max(id) from orders where {where}",
                ]
            )
        )
    )


@pytest.fixture
def pooled(open_context: OpenContext, call_context: Any) -> Iterator[tuple[Caller, asyncio.AbstractEventLoop]]:
    """Tenant acme on a shared file, and a loop to call it from tests that are not coroutines."""
    make_pool(open_context)
    with asyncio.Runner() as runner:
        made = runner.run(open_for(open_context, call_context, "acme"))
        yield made, runner.get_loop()
        runner.run(made.database.close())


def outcome(loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, Any]) -> Any:
    """Return the answer, or None when the call is refused for what its statement says."""
    try:
        answer = loop.run_until_complete(call)
    except ProviderError as refused:
        if refused.code not in {"invalid_argument", "failed_precondition", "already_exists"}:
            raise
        event(f"refused: {refused.message[:60]}")
        return None
    event("done")
    return answer


FUZZING = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FOREIGN = ("globex nine", "globex two", "globex-", "77", "88", "99")


def foreign(shown: list[Any]) -> list[Any]:
    """Return the values that are none of acme's; 'globex one' may be a literal of the statement itself."""
    return [value for value in shown if isinstance(value, str) and any(mark in value for mark in FOREIGN)]


@pytest.mark.slow
@FUZZING
@given(sql=query())
def test_a_query_made_by_chance_never_shows_another_tenants_rows(
    pooled: tuple[Caller, asyncio.AbstractEventLoop], sql: str
) -> None:
    caller, loop = pooled
    rows = outcome(loop, caller.rows(sql)) or []
    assert foreign([value for row in rows for value in row]) == []


@pytest.mark.slow
@FUZZING
@given(sql=query())
def test_the_rewriting_alone_shows_no_row_of_another_tenant(
    pooled: tuple[Caller, asyncio.AbstractEventLoop], sql: str
) -> None:
    database: Any = pooled[0].database
    try:
        made = database._wording.query(sql, [])
    except ProviderError:
        event("refused")
        return
    engine = one_engine()
    try:
        (statement,) = engine.extract_statements(made.sql)
        used = {key: value for key, value in made.parameters.values.items() if key in statement.named_parameters}
        rows = engine.execute(statement, used).fetchall()
    except duckdb.Error as error:
        event(f"failed: {type(error).__name__}")
        return
    event("done")
    assert foreign([value for row in rows for value in row]) == []


@pytest.mark.slow
@FUZZING
@given(sql=change())
def test_a_change_made_by_chance_never_touches_or_copies_another_tenants_rows(
    pooled: tuple[Caller, asyncio.AbstractEventLoop], sql: str
) -> None:
    caller, loop = pooled
    before = everything(caller.database)
    outcome(loop, caller.execute(sql))
    after = everything(caller.database)
    for table in ("orders", "line"):
        assert [r for r in after[table] if r[0] != "acme"] == [r for r in before[table] if r[0] != "acme"]
        assert foreign([value for row in after[table] if row[0] == "acme" for value in row]) == []
    assert (after["secret"], after["sql"]) == (before["secret"], before["sql"])
