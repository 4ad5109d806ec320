"""A text is one query of allowed tables and functions, or it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from erp.errors import ProviderError
from erp.vendor_clients.safe_sql.queries import Policy, Queries
from erp.vendor_clients.sql.lexis import DUCKDB, MYSQL, POSTGRES, SNOWFLAKE, TSQL
from erp.vendor_clients.sql.placeholders import dollar, percent, question

FUNCTIONS = frozenset({"count", "lower", "cast", "coalesce", "generate_series", "extract", "now", "sum", "row_number"})
LISTED = frozenset({("public", "stock"), ("public", "Stock"), ("sales", "orders")})


def queries(**more: Any) -> Queries:
    facts: dict[str, Any] = {
        "dialect": "postgres", "lexis": POSTGRES, "functions": FUNCTIONS, "default_schemas": ("public",),
    }  # fmt: skip
    return Queries(Policy(**{**facts, **more}), dollar)


@pytest.mark.parametrize(
    ("sql", "runs"),
    [
        ("select 1;", "select 1;"),
        ("select 1; -- one", "select 1; -- one"),
        ("select a ?? 'b', ?::int from t where x in (?, ?)", "select a ? 'b', $1::int from t where x in ($2, $3)"),
        ("with x(a, b) as (select 1, 2) select * from x as y(c, d)", None),
        ("with recursive r(n) as (select 1 union all select n + 1 from r where n < 5) select sum(n) from r", None),
        ("select count(*) filter (where a > 1) over (partition by b) from t", None),
        ("select cast(a as numeric(10, 2)), extract(year from b), now() from t", None),
        ("select array[1, 2], exists(select 1), a in (1), not (b), case when (c) then (d) else (e) end from t", None),
        ("select 'x' -- pg_sleep(1)", None),
        ("values (1), (2)", None),
        ("select * from generate_series(1, 3) as g(n)", None),
        ("with pg_class as (select 1) select * from pg_class", None),
        ("table stock", None),
    ],
)
def test_one_query_runs_as_it_is_written(sql: str, runs: str | None) -> None:
    assert queries().checked(sql).sql == (runs or sql)


@pytest.mark.parametrize(
    ("sql", "remedy"),
    [
        ("delete from stock", "must be one SELECT"),
        ("explain analyze select 1", "must be one SELECT"),
        ("copy stock to '/x'", "must be one SELECT"),
        ("select 1; select 2", "has 2 statements; send each in a call"),
        ("", "has 0 statements; send each in a call"),
        ("select * from stock for update", "has LOCK inside"),
        ("select 1 into x", "has INTO inside"),
        ("with d as (delete from t returning *) select * from d", "has DELETE inside"),
        ("select pg_sleep(1)", "calls pg_sleep"),
        ('select "pg_sleep"(1)', "calls pg_sleep"),
        ("select pg_sleep /* x */ (1)", "calls pg_sleep"),
        ("select pg_catalog.lower('x')", "calls pg_catalog.lower"),
        ("with pg_sleep(a) as (select 1) select pg_sleep(1)", "calls pg_sleep"),
        ("select * from dblink('x', 'y') as dblink(a)", "calls dblink"),
        ("select 1 operator(pg_catalog.+) 1", None),
        ("select * from pg_class", "names pg_class; use metadata"),
        ('select * from "pg_class"', 'names "pg_class"; use metadata'),
        ("select * from information_schema.tables", "names information_schema.tables; use metadata"),
        ('select * from only "pg_catalog".pg_authid', 'names ONLY "pg_catalog".pg_authid; use metadata'),
        ("select * from other.public.stock", "names another database: 'other'"),
        ("select * from (with pg_class as (select 1) select 1) as x, pg_class", "names pg_class; use metadata"),
        ("with a as (select * from pg_class), pg_class as (select 1) select 1", "names pg_class; use metadata"),
        ("select * from erp_secrets", "names erp_secrets; use metadata"),
        ("select $1", "has $1"),
        ("select '\\' , pg_sleep(1) --'", "calls pg_sleep"),
    ],
)
def test_anything_else_is_refused(sql: str, remedy: str | None) -> None:
    with pytest.raises(ProviderError) as refused:
        queries().checked(sql)

    assert refused.value.code == "invalid_argument"
    assert remedy in {None, refused.value.errors[0].message}


@pytest.mark.parametrize(
    "sql",
    ["select * from STOCK", 'select * from "Stock"', 'select * from PUBLIC."stock"', "select * from sales.orders"],
)
def test_a_listed_table_is_found_as_the_engine_finds_it(sql: str) -> None:
    assert queries(tables=LISTED).checked(sql).sql == sql


@pytest.mark.parametrize(
    "sql",
    ["select * from orders", 'select * from "STOCK"', "select * from other.stock", 'select * from "Public".stock',
     "select (select 1 from orders)", "select 1 from stock join orders on true"],
)  # fmt: skip
def test_a_table_that_is_not_listed_is_refused(sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        queries(tables=LISTED).checked(sql)

    assert refused.value.message == "There is no such table."


@pytest.mark.parametrize(
    ("policy", "sql"),
    [
        ({"dialect": "duckdb", "lexis": DUCKDB}, "select * from read_csv('/etc/passwd')"),
        ({"dialect": "duckdb", "lexis": DUCKDB, "has_file_tables": True}, "select * from '/etc/passwd'"),
        ({"dialect": "duckdb", "lexis": DUCKDB, "has_file_tables": True}, 'select * from "x.csv"'),
        ({"dialect": "snowflake", "lexis": SNOWFLAKE}, "select * from @stage"),
        ({"dialect": "mysql", "lexis": MYSQL}, "select load_file('/etc/passwd')"),
        ({"dialect": "mysql", "lexis": MYSQL}, "select 1 into outfile '/tmp/x'"),
        ({"dialect": "mysql", "lexis": MYSQL}, "select 1 /*!50000 into outfile '/tmp/x' */"),
        ({"dialect": "tsql", "lexis": TSQL}, "select * from openrowset('x', 'y', 'z')"),
        ({"dialect": "tsql", "lexis": TSQL}, "exec xp_cmdshell 'dir'"),
        ({"dialect": "snowflake", "lexis": SNOWFLAKE}, "select system$cancel_all_queries(1)"),
    ],
)
def test_other_engines_have_their_own_dangers(policy: dict[str, Any], sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        queries(**policy).checked(sql)

    assert refused.value.code == "invalid_argument"


def test_names_are_folded_as_the_engine_folds_them() -> None:
    policy = Policy(
        dialect="snowflake", lexis=SNOWFLAKE, functions=FUNCTIONS, default_schemas=("PUBLIC",),
        tables=frozenset({("PUBLIC", "STOCK")}), folds_upper=True,
    )  # fmt: skip
    found = Queries(policy, question)

    assert found.checked("select * from stock where a = ?").sql == "select * from stock where a = ?"
    with pytest.raises(ProviderError):
        found.checked('select * from "stock"')


def test_a_driver_that_writes_values_into_the_text_gets_its_percent_signs_doubled() -> None:
    found = Queries(Policy(dialect="mysql", lexis=MYSQL, functions=FUNCTIONS), percent)

    assert found.checked("select a % 2 from t where b like '5%' and c = ?").sql == (
        "select a %% 2 from t where b like '5%%' and c = %s"
    )


def test_a_text_is_judged_once() -> None:
    found = queries()

    assert found.checked("select 1") is found.checked("select 1")


@pytest.mark.parametrize(
    "sql",
    [
        "insert into stock (a, b) values (?, lower(?)) on conflict (a) do update set b = excluded.b returning a",
        "insert into public.stock (a) select a from sales.orders",
        "update stock set a = ?, b = (select count(*) from sales.orders) where (a) = 1 returning *",
        "delete from stock using sales.orders as o where o.a = stock.a",
        (
            "merge into stock as s using sales.orders as o on (o.a = s.a) when matched then update set a = 1"
            " when not matched then insert (a) values (o.a)"
        ),
        "select 1",
    ],
)
def test_one_change_of_rows_runs_where_writing_is_allowed(sql: str) -> None:
    found = queries(tables=LISTED)

    assert found.checked(sql, writes=True).count == sql.count("?")
    if not sql.startswith("select"):
        with pytest.raises(ProviderError):
            found.checked(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "insert into other (a) values (1)",
        "insert into stock (a) select pg_sleep(1)",
        "insert into stock (a) values (set_config('erp.tenant', 'x', false))",
        "with x as (delete from stock returning *) insert into stock (a) select a from x",
        "with x as (select 1 into y) delete from stock",
        "drop table stock",
        "truncate stock",
        "set erp.tenant = 'x'",
        "alter table stock disable row level security",
        "insert into stock (a) values (1); delete from stock",
        "call x()",
        "do $$ begin end $$",
        "merge into stock using other on (true) when matched then delete",
    ],
)
def test_no_other_change_runs(sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        queries(tables=LISTED).checked(sql, writes=True)

    assert refused.value.code == "invalid_argument"
