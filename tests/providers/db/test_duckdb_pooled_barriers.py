"""Each barrier of a shared DuckDB file holds alone, and no statement made by chance shows or changes another tenant's rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.providers.db.conftest import Caller
from tests.providers.db.corpus import Corpus, text
from tests.providers.db.duckdb_pool import ROWS, SCHEMA, everything, make_pool, open_for

from erp.errors import ProviderError
from erp.providers.db.duckdb.pooled import Own
from erp.providers.db.duckdb.statements import CHANGING, only
from erp.runtime.spi import OpenContext

CORPUS = Corpus("duckdb_pooled")
SILOED = Corpus("duckdb")
MARK = "globex"


@pytest.fixture
async def acme(open_context: OpenContext, call_context: Any) -> AsyncIterator[Caller]:
    make_pool(open_context)
    made = await open_for(open_context, call_context, "acme")
    yield made
    await made.database.close()


async def refusal(attempt: Coroutine[Any, Any, Any]) -> ProviderError | None:
    try:
        await attempt
    except ProviderError as error:
        return error
    return None


# -- all barriers together -------------------------------------------------------------------------


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    CORPUS.require(150)


@pytest.mark.anyio
@pytest.mark.parametrize("action", ["query", "execute"])
async def test_a_hostile_statement_is_refused_and_nothing_changes(acme: Caller, action: str) -> None:
    before = everything(acme.database)
    for kind, entries in CORPUS.kinds[action].items():
        for entry in entries:
            sql = text(entry)
            error = await refusal(acme.rows(sql) if action == "query" else acme.execute(sql))
            assert error is not None, (kind, sql[:100])
            assert error.code == "invalid_argument", (kind, sql[:100], error)
            shown = repr(error) + str(error.detail) + repr(error.errors)
            assert MARK not in shown.replace(sql, "") or MARK in sql, (kind, sql[:100])
    assert everything(acme.database) == before
    assert await acme.rows("select count(*) from orders") == [[2]]


@pytest.mark.anyio
async def test_what_is_refused_in_a_file_of_ones_own_is_refused_in_a_shared_one(acme: Caller) -> None:
    before = everything(acme.database)
    for kind, entries in SILOED.kinds["query"].items():
        if kind.startswith("too"):
            continue
        for entry in entries:
            sql = text(entry).replace("stock", "orders").replace("sku", "id").replace("quantity", "total")
            error = await refusal(acme.rows(sql))
            assert error is not None, (kind, sql[:100])
    assert everything(acme.database) == before


@pytest.mark.anyio
@pytest.mark.parametrize(
    "sql",
    [
        "select * from orders where cast(case when note like 'globex%' then 'x' else '1' end as integer) = 1",
        "select sum(cast(case when total > 50 then note else '1' end as integer)) from orders",
        "select * from orders order by cast(case when total > 50 then note else '1' end as integer)",
        "select * from orders o join line l on l.id = cast(case when o.total > 50 then o.note else '1' end as integer)",
    ],
)
async def test_no_expression_is_evaluated_on_another_tenants_row(acme: Caller, sql: str) -> None:
    await acme.rows(sql)


# -- the tenant's engine alone ---------------------------------------------------------------------


async def unwritten(caller: Caller, sql: str, target: str | None = None) -> list[Any]:
    """Run ``sql`` as it is in the tenant's engine, with every table of the tenant carried there."""
    database: Any = caller.database

    def work(handle: Any) -> list[Any]:
        with_names = f"{sql} /* erp_held_orders erp_held_line */"
        (statement,) = handle.extract_statements(with_names)
        handle.execute(statement, Own({}, target))
        return list(handle.fetchmany(1000))

    async with database._sessions.lent() as session:
        result: list[Any] = await session.run(session.changing(work), is_change=True)
    return result


UNWRITTEN_QUERIES = {
    "from erp_held_orders order by id": [("acme", 1, 10, "acme one"), ("acme", 2, 20, "acme two")],
    "select count(*) from erp_held_orders where org <> 'acme' or true": [(2,)],
    "select * from temp.main.erp_held_line": [("acme", 1, 1, "acme-a", 1)],
    "select table_name from duckdb_tables() order by 1": [("erp_held_line",), ("erp_held_orders",)],
    "select view_name from duckdb_views() where not internal": [],
    "select database_name, path from duckdb_databases() where not internal": [("memory", None)],
    "select * from query('select count(*) from erp_held_orders')": [(2,)],
    "select * from main.orders": None,
    "select * from main.main.orders": None,
    "select * from secret": None,
    "select * from leak": None,
    "select * from peek()": None,
    "select * from erp_arriving": None,
    "select * from erp_isolation": None,
    "from query('from secret')": None,
    "from read_text('/etc/passwd')": None,
    "copy erp_held_orders to '/tmp/evil'": None,
    "set enable_external_access = true": None,
    "install httpfs": None,
}


@pytest.mark.anyio
@pytest.mark.parametrize(("sql", "rows"), UNWRITTEN_QUERIES.items())
async def test_the_tenants_engine_alone_has_nothing_but_the_tenants_rows(
    acme: Caller, sql: str, rows: list[Any] | None
) -> None:
    if rows is None:
        assert await refusal(unwritten(acme, sql)) is not None
    else:
        assert await unwritten(acme, sql) == rows


@pytest.mark.anyio
async def test_the_tenants_engine_cannot_attach_the_shared_file(acme: Caller, open_context: OpenContext) -> None:
    path = next(open_context.shared_dir.rglob("main.duckdb"))
    assert await refusal(unwritten(acme, f"attach '{path}' as pool")) is not None
    assert await refusal(unwritten(acme, f"attach '{path}' as pool (read_only)")) is not None
    assert await refusal(unwritten(acme, f"from read_blob('{path}')")) is not None


UNWRITTEN_CHANGES = [
    "update orders set total = 0",
    "update orders set total = 0 where org = 'globex' or true",
    "update orders set org = 'globex'",
    "update orders set org = 'globex', id = 9",
    "delete from orders",
    "delete from orders where org = 'globex'",
    "insert into orders values ('globex', 70, 1, 'x')",
    "insert into orders values ('acme', 70, 1, 'x'), ('globex', 70, 1, 'x')",
    "insert or replace into orders values ('globex', 1, 0, 'x')",
    "insert into orders values ('globex', 1, 0, 'x') on conflict do update set total = 0",
    "insert into erp_held_orders values ('globex', 9, 1, 'x')",
    "insert into erp_held_orders values ('acme', 9, 1, 'x')",
    "merge into orders using erp_held_line on true when matched then delete",
    "truncate orders",
    "drop table orders",
    "create table secret as select 1",
]


@pytest.mark.anyio
@pytest.mark.parametrize("sql", UNWRITTEN_CHANGES)
async def test_a_change_that_was_not_rewritten_never_reaches_another_tenants_row(acme: Caller, sql: str) -> None:
    before = everything(acme.database)
    await refusal(unwritten(acme, sql, "orders"))
    after = everything(acme.database)
    assert [row for row in after["orders"] if row[0] != "acme"] == [r for r in before["orders"] if r[0] != "acme"]
    assert {name: rows for name, rows in after.items() if name != "orders"} == {
        name: rows for name, rows in before.items() if name != "orders"
    }


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("insert into orders values ('globex', 70, 1, 'x')", "rows of another tenant"),
        ("update orders set org = 'globex'", "rows of another tenant"),
        ("insert into erp_held_orders values ('acme', 9, 1, 'x')", "changed meanwhile"),
    ],
)
async def test_what_comes_back_is_checked_before_it_is_kept(acme: Caller, sql: str, why: str) -> None:
    before = everything(acme.database)
    with pytest.raises(ProviderError, match=why):
        await unwritten(acme, sql, "orders")
    assert everything(acme.database) == before


# -- the engine that has the file ------------------------------------------------------------------


class Overheard:
    """The connection to the shared file, writing down whatever is asked of it."""

    def __init__(self, handle: Any, texts: set[str]) -> None:
        self._handle = handle
        self._texts = texts

    def execute(self, sql: Any, *values: Any) -> Any:
        self._texts.add(str(sql))
        return self._handle.execute(sql, *values)

    def sql(self, sql: str, **values: Any) -> Any:
        self._texts.add(sql)
        return self._handle.sql(sql, **values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


@pytest.mark.anyio
async def test_no_word_of_a_caller_reaches_the_engine_that_has_the_file(acme: Caller) -> None:
    database: Any = acme.database
    texts: set[str] = set()
    async with database._sessions.lent() as session:
        session._handle._file = Overheard(session._handle._file, texts)
    for sql in ("select * from orders o, line where o.note <> 'zebra'", "select 'zebra' from orders"):
        await acme.rows(sql)
    for sql in (
        "insert into orders (id, note) values (80, 'zebra')",
        "update orders set note = 'zebra' || id where note <> 'zebra' or true",
        "insert into orders (id) values (81) on conflict (id) do update set note = 'zebra'",
        "delete from orders where note like 'zebra%' and id > 2",
    ):
        assert (await acme.execute(sql)).rows_affected > 0
    tables = database._root.tables.values()
    fixed = {each() for table in tables for each in (table.own_rows, table.add, table.remove, table.alter)}
    assert texts == (texts & fixed) | {"BEGIN TRANSACTION READ ONLY", "ROLLBACK", "BEGIN TRANSACTION", "COMMIT"}
    assert len(texts & fixed) == 5


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


@FUZZING
@given(sql=query())
def test_a_query_made_by_chance_never_shows_another_tenants_rows(
    pooled: tuple[Caller, asyncio.AbstractEventLoop], sql: str
) -> None:
    caller, loop = pooled
    rows = outcome(loop, caller.rows(sql)) or []
    assert foreign([value for row in rows for value in row]) == []


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


# -- tenants beside each other ---------------------------------------------------------------------


@pytest.mark.anyio
async def test_tenants_change_the_same_table_at_the_same_time_without_hindering_each_other(
    acme: Caller, open_context: OpenContext, call_context: Any
) -> None:
    globex = await open_for(open_context, call_context, "globex")
    calls = [
        caller.execute(sql)
        for number in range(100, 120)
        for caller in (acme, globex)
        for sql in (
            f"insert into orders (id, total) values ({number}, 1)",
            "update orders set total = coalesce(total, 0) + 1",
        )
    ]
    await asyncio.gather(*calls)
    for caller, count in ((acme, 22), (globex, 23)):
        assert await caller.rows("select count(*) from orders") == [[count]]
    assert await acme.rows("select total from orders where id = 1") == [[10 + 20]]
    await globex.database.close()


@pytest.mark.anyio
async def test_a_tenant_with_an_odd_name_is_a_value_and_nothing_else(
    open_context: OpenContext, call_context: Any, acme: Caller
) -> None:
    for name in ("acme' or '1'='1", "ACME", "acme ", "\u0430cme", "acme\x00"):
        odd = await open_for(open_context, call_context, name)
        assert await odd.rows("select count(*) from orders") == [[0]]
        await odd.execute("insert into orders (id) values (1)")
        assert await odd.rows("select id from orders") == [[1]]
        await odd.database.close()
    assert await acme.rows("select count(*) from orders") == [[2]]
