"""A statement is confined whatever its dialect, and what cannot be confined is refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from erp.errors import ProviderError
from erp.vendor_clients.safe_sql import proof
from erp.vendor_clients.safe_sql.isolation import CTE, Isolation
from erp.vendor_clients.safe_sql.relations import Relation

ORDERS = Relation(name="Orders", columns=("id", "total"), tenant_column="org", schema="main")
RATES = Relation(name="rates", columns=(), schema="main")
RELATIONS = {"orders": ORDERS, "rates": RATES}
FUNCTIONS = {"count", "sum", "max", "json_each", "date", "strftime", "json_object"}
OWN = '(SELECT "id", "total" FROM "main"."Orders" WHERE "org" = :erp_tenant)'


@pytest.fixture
def isolation() -> Isolation:
    return Isolation("sqlite", RELATIONS, FUNCTIONS, {"json_each"})


@pytest.mark.parametrize(
    ("sql", "confined"),
    [
        ("select * from orders", f'SELECT * FROM {OWN} AS "orders"'),
        ("select o.id from main.ORDERS o where id = ?", f"SELECT o.id FROM {OWN} AS o WHERE id = :erp_p1"),
        ("select * from rates r", 'SELECT * FROM "main"."rates" AS r'),
        (
            "with c as (select ?) select * from c",
            'WITH "erp_cte_c" AS (SELECT :erp_p1) SELECT * FROM "erp_cte_c" AS "c"',
        ),
        ("select a from json_each(?) a", "SELECT a FROM JSON_EACH(:erp_p1) AS a"),
        ("select 1 from rates where '?' = \"?\" -- ?\n", 'SELECT 1 FROM "main"."rates" AS "rates" WHERE \'?\' = "?"'),
    ],
)
def test_a_query_reads_filtered_tables(isolation: Isolation, sql: str, confined: str) -> None:
    assert isolation.confined(sql, writes=False).sql == confined


def test_a_planner_is_told_how_few_rows_are_the_tenants_and_the_proof_knows_it() -> None:
    rare = Isolation("sqlite", {"orders": replace(ORDERS, likelihood="0.01")}, FUNCTIONS, ())
    own = 'LIKELIHOOD("org" = :erp_tenant, 0.01)'
    read = f'SELECT * FROM (SELECT "id", "total" FROM "main"."Orders" WHERE {own}) AS "orders"'
    assert rare.confined("select * from orders", writes=False).sql == read
    deleted = (
        'DELETE FROM "main"."Orders" AS "orders" WHERE LIKELIHOOD("orders"."org" = :erp_tenant, 0.01) AND (id = 1)'
    )
    assert rare.confined("delete from orders where id = 1", writes=True).sql == deleted
    with pytest.raises(ProviderError, match="confined"):
        proof.check(read.replace("0.01", "0.1"), "sqlite", rare.relations, CTE, ())


@pytest.mark.parametrize(
    ("sql", "confined"),
    [
        (
            "update orders set total = ? where id = 1 or 1",
            'UPDATE "main"."Orders" AS "orders" SET total = :erp_p1 WHERE "orders"."org" = :erp_tenant AND (id = 1 OR 1)',
        ),
        ("delete from orders as o", 'DELETE FROM "main"."Orders" AS o WHERE "o"."org" = :erp_tenant'),
        (
            "insert into orders values (?, 2)",
            'INSERT INTO "main"."Orders" AS "orders" ("id", "total", "org") SELECT "erp_rows".*, :erp_tenant FROM (VALUES (:erp_p1, 2)) AS "erp_rows" WHERE TRUE',
        ),
        ("delete from rates", 'DELETE FROM "main"."rates" AS "rates"'),
    ],
)
def test_a_change_is_limited_to_the_tenants_rows(isolation: Isolation, sql: str, confined: str) -> None:
    found = isolation.confined(sql, writes=True)
    assert found.sql == confined
    assert found.target == sql.split()[2 if sql.startswith(("insert", "delete")) else 1]


def test_a_placeholder_of_duckdb_is_read_as_a_value_wherever_it_stands() -> None:
    made = Isolation("duckdb", RELATIONS, FUNCTIONS).confined("select ?, ? as x from rates where id = ?", writes=False)
    assert made.sql == 'SELECT $erp_p1, $erp_p2 AS x FROM "main"."rates" AS "rates" WHERE id = $erp_p3'
    assert made.count == 3


@pytest.mark.parametrize("dialect", ["sqlite", "postgres", "mysql", "tsql", "duckdb", "snowflake"])
@pytest.mark.parametrize(
    "sql",
    [
        "select * from secret",
        "select * from other.orders",
        "select pg_sleep(1)",
        "select 1; select 2",
        "select 1 into evil from orders",
        "select * from orders for update",
        "with x as (delete from orders returning id) select * from x",
        "insert into orders values (1, 2)",
        "copy orders to '/tmp/evil'",
        "explain analyze delete from orders",
        "call evil()",
        "do 'evil'",
        "set role evil",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from information_schema.tables",
        "select * from pg_catalog.pg_class",
        "select lo_export(1, '/tmp/evil')",
        "grant all on orders to evil",
        "load data infile '/etc/passwd' into table orders",
        "exec xp_cmdshell 'id'",
        "use evil",
        "select load_file('/etc/passwd')",
        "",
    ],
)
def test_in_every_dialect_what_a_query_may_not_do_is_refused(dialect: str, sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        Isolation(dialect, RELATIONS, FUNCTIONS).confined(sql, writes=False)
    assert (refused.value.code, refused.value.errors[0].pointer) == ("invalid_argument", "/params/sql")


def nested(before: str, times: int, inside: str, after: str = "") -> str:
    return f"select {before * times}{inside}{after * times} from orders"


@pytest.mark.parametrize(
    "sql",
    [
        nested("(", 20_000, "1", ")"),
        nested("(", 49, "1", ")"),
        nested("(select ", 2000, "1", ")"),
        nested("not ", 4000, "1"),
        nested("- ", 4000, "1"),
        nested("case when 1 then ", 1000, "1", " end"),
        nested("a.", 4000, "a"),
        "select * from orders" + " join orders" * 40,
        "select * from orders" + " left join orders join orders on 1" * 12,
        "select * from (orders join orders join (orders join orders join orders)) join orders join orders join orders"
        + " join orders" * 3,
        "select " + "1," * 4000 + "1",
        "select '" + "x" * 20_000 + "'",
        "select 1" + "::int" * 100,
    ],
    ids=range(13),
)
def test_text_that_would_stall_or_break_the_parser_does_not_reach_it(
    isolation: Isolation, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*_: Any, **__: Any) -> None:
        pytest.fail("the parser was reached")

    monkeypatch.setattr("sqlglot.dialects.dialect.Dialect.parse", parse)
    with pytest.raises(ProviderError) as refused:
        isolation.confined(sql, writes=False)
    assert refused.value.code == "invalid_argument"


def test_joins_with_conditions_are_not_counted_as_bare(isolation: Isolation) -> None:
    sql = "select 1 from rates a" + " join rates b on a.x = b.x natural join rates cross join rates" * 20
    assert isolation.confined(sql, writes=False).sql.count("JOIN") == 60


@pytest.mark.parametrize(
    "text",
    [
        'SELECT * FROM "main"."Orders"',
        'SELECT * FROM "Orders" AS "erp_cte_x"',
        'SELECT * FROM (SELECT "id", "total" FROM "main"."Orders" WHERE "org" = :erp_tenant OR 1) AS o',
        'SELECT * FROM (SELECT "id", "total" FROM "main"."Orders") AS o',
        'SELECT * FROM (SELECT "id", "total" FROM "main"."Orders" WHERE "org" = :erp_p1) AS o',
        'SELECT * FROM (SELECT "id", "total" FROM "main"."Orders", secret WHERE "org" = :erp_tenant) AS o',
        'SELECT * FROM "main"."erp_cte_x"',
        "SELECT * FROM secret",
        "SELECT * FROM PRAGMA_TABLE_INFO('orders')",
        'UPDATE "main"."Orders" AS o SET total = 1',
        'UPDATE "main"."Orders" AS o SET total = 1 WHERE "o"."org" = :erp_tenant OR (1)',
        'UPDATE "main"."Orders" AS o SET total = 1 WHERE "x"."org" = :erp_tenant',
        'DELETE FROM "main"."Orders" AS o WHERE (1) AND "o"."org" = :erp_tenant',
        'DELETE FROM "temp"."Orders" AS o WHERE "o"."org" = :erp_tenant',
        "DELETE FROM secret",
        'INSERT INTO "main"."Orders" ("id", "org") SELECT 1, \'globex\'',
        'INSERT INTO "main"."Orders" ("id", "total") SELECT "erp_rows".*, :erp_tenant FROM (SELECT 1) AS "erp_rows"',
        'INSERT INTO "main"."Orders" SELECT "erp_rows".*, :erp_tenant FROM (SELECT 1) AS "erp_rows"',
        'INSERT INTO "main"."Orders" ("org", "id", "org") SELECT "erp_rows".*, :erp_tenant FROM (SELECT 1, 2) AS "erp_rows"',
        "SELECT 1; SELECT 2",
        "SELECT (",
    ],
)  # fmt: skip
def test_the_second_look_alone_refuses_what_is_not_confined(text: str) -> None:
    with pytest.raises(ProviderError, match="could not be confined"):
        proof.check(text, "sqlite", RELATIONS, CTE, {"json_each"})


def test_a_statement_is_read_once_and_the_oldest_is_forgotten(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erp.vendor_clients.safe_sql.isolation.CACHED", 2)
    first = isolation.confined("select 1", writes=False)
    isolation.confined("select 2", writes=False)
    assert isolation.confined("select 1", writes=False) is first
    isolation.confined("select 3", writes=False)
    assert isolation.confined("select 1", writes=False) is first
    assert len(isolation._cache) == 2


def test_a_statement_for_reading_is_not_taken_for_one_that_may_write(isolation: Isolation) -> None:
    isolation.confined("delete from orders", writes=True)
    with pytest.raises(ProviderError):
        isolation.confined("delete from orders", writes=False)


def test_values_in_a_statement_do_not_reach_the_log(isolation: Isolation, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(ProviderError):
        isolation.confined("replace into orders values ('a secret')", writes=True)
    assert "a secret" not in caplog.text


def test_parameters_are_bound_by_place_with_the_tenant_beside_them(isolation: Isolation) -> None:
    confined = isolation.confined("select ?, ? from orders", writes=False)
    assert confined.bind(["a", 2], "acme") == {"erp_tenant": "acme", "erp_p1": "a", "erp_p2": 2}
    with pytest.raises(ProviderError) as refused:
        confined.bind(["a"], "acme")
    assert [error.pointer for error in refused.value.errors] == ["/params/parameters"]
