"""Values, columns, answers and errors of ``db/postgres``."""

from __future__ import annotations

from typing import Any

import pytest
from tests.providers.db.postgres.conftest import Caller, Open, Server, calling

from erp.contracts.models import db as api
from erp.errors import ProviderError

pytestmark = [pytest.mark.live, pytest.mark.anyio]

UUID = "6f1f9b1e-52a8-4f0a-9a0b-1f2f3a4b5c6d"


async def refusal(work: Any) -> ProviderError:
    with pytest.raises(ProviderError) as refused:
        await work
    return refused.value


@pytest.mark.parametrize(
    ("kind", "given", "shown"),
    [
        ("numeric", {"$decimal": "19.90"}, "19.90"),
        ("numeric", 7, "7"),
        ("numeric", "123456789012345678901234567890.000000001", "123456789012345678901234567890.000000001"),
        ("numeric(10, 2)", 1.5, "1.50"),
        ("bigint", 2**63 - 1, 2**63 - 1),
        ("integer", -5, -5),
        ("double precision", 0.1, 0.1),
        ("boolean", False, False),
        ("text", "it's ünïcödé \U0001f418", "it's ünïcödé \U0001f418"),
        ("varchar(5)", "abc", "abc"),
        ("date", {"$date": "2026-11-22"}, "2026-11-22"),
        ("date", "2026-11-22", "2026-11-22"),
        ("time", "10:30", "10:30:00"),
        ("timestamp", {"$datetime": "2026-11-22T10:00:00"}, "2026-11-22T10:00:00"),
        ("timestamptz", {"$datetime": "2026-11-22T12:00:00.5+02:00"}, "2026-11-22T10:00:00.5Z"),
        ("timestamptz", "infinity", "infinity"),
        ("interval", "1 day 2 hours", "P1DT2H"),
        ("uuid", {"$uuid": UUID}, UUID),
        ("uuid", UUID, UUID),
        ("bytea", {"$bytes": "AP8="}, {"$bytes": "AP8="}),
        ("jsonb", '{"a": [1, null]}', '{"a": [1, null]}'),
        ("inet", "10.0.0.1/24", "10.0.0.1/24"),
        ("text", None, None),
    ],
)
async def test_a_value_goes_in_and_comes_out_as_the_contract_has_it(
    open_database: Open, call_context: Any, kind: str, given: Any, shown: Any
) -> None:
    caller = calling(await open_database(), call_context)
    await caller.execute(f"create table t (v {kind})")
    await caller.execute("insert into t values (?)", given)

    assert await caller.rows("select v from t where v is not distinct from ?", given) == [[shown]]


async def test_columns_are_named_and_typed_also_when_there_are_no_rows(caller: Caller) -> None:
    answer = await caller.query('select sku, quantity as "How many", array[1, 2] as list from stock where false')

    assert [(column.name, column.type) for column in answer.columns] == [
        ("sku", "text"), ("How many", "int4"), ("list", "int4[]"),
    ]  # fmt: skip
    assert await caller.rows("select array[1, null, 3], array['a'], row(1, 'x'), jsonb '[1]'") == [
        ["[1,null,3]", '["a"]', '[1,"x"]', "[1]"]
    ]


@pytest.mark.parametrize(
    ("sql", "parameters", "pointer"),
    [
        ("select * from stock where quantity = ?", ["many"], "/params/parameters/0"),
        ("select * from stock where sku = ? and quantity = ?", ["S1", 1.5], "/params/parameters/1"),
        ("select ?::int", [{"$bytes": "AA=="}], "/params/parameters/0"),
        ("select ?::text", [{"$money": "1"}], "/params/parameters/0"),
        ("select ?::text, ?::text", ["a"], "/params/parameters"),
        ("select ?::bytea", ["text"], "/params/parameters/0"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_named(
    caller: Caller, sql: str, parameters: list[Any], pointer: str
) -> None:
    error = await refusal(caller.rows(sql, *parameters))

    assert (error.code, [one.pointer for one in error.errors]) == ("invalid_argument", [pointer])


async def test_a_failed_batch_keeps_its_connection(open_database: Open, server: Server, call_context: Any) -> None:
    caller = calling(await open_database(writers=1, readers=1), call_context)
    await caller.execute("create table t (a int primary key)")
    before = set(await server.backends(server.owner))
    for _ in range(5):
        assert (
            await refusal(caller.batch("insert into t values (1)", "insert into t values (1)"))
        ).code == "already_exists"
    assert (await caller.execute("insert into t values (1)")).rows_affected == 1

    assert set(await server.backends(server.owner)) == before


async def test_in_a_batch_the_statement_is_named_too(caller: Caller) -> None:
    statements = [
        api.Statement(sql="delete from stock"),
        api.Statement(sql="delete from stock where quantity = ?", parameters=["x"]),
    ]
    error = await refusal(caller.database.execute_batch(api.ExecuteBatchRequest(statements=statements), caller.context))

    assert [one.pointer for one in error.errors] == ["/params/statements/1/parameters/0"]
    assert await caller.rows("select count(*) from stock") == [[5]]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("insert into stock values ('S1', 1)", "already_exists"),
        ("insert into stock values ('x', -1)", "failed_precondition"),
        ("insert into stock values (null, 1)", "failed_precondition"),
        ("insert into stock values ('x', 99999999999)", "invalid_argument"),
        ("update stock set quantity = 1 / (quantity - quantity)", "invalid_argument"),
        ("update nowhere set a = 1", "not_found"),
        ("update stock set nothing = 1", "invalid_argument"),
        ("create table stock (a int)", "already_exists"),
        ("drop table stock; drop table stock", "invalid_argument"),
        ("create role evil", "permission_denied"),
        ("vacuum stock", "invalid_argument"),
        ("begin", "invalid_argument"),
        ("create temp table x (a int)", "invalid_argument"),
        ("copy stock to stdout", "invalid_argument"),
        (
            "insert into stock select 'x' || n, 1 from generate_series(1, 3) n union all select 'S1', 1",
            "already_exists",
        ),
    ],
)
async def test_a_refused_change_changes_nothing(caller: Caller, sql: str, code: str) -> None:
    before = await caller.rows("select * from stock order by sku")
    assert (await refusal(caller.execute(sql))).code == code
    transaction = await caller.begin()
    assert (await refusal(caller.execute(sql, transaction=transaction))).code == code
    await caller.commit(transaction)

    assert await caller.rows("select * from stock order by sku") == before


async def test_returned_rows_are_in_the_answer_and_bounded(open_database: Open, call_context: Any) -> None:
    caller = calling(await open_database(max_result_bytes=2048), call_context)
    await caller.execute("create table t (a int, b text)")
    done = await caller.execute("insert into t values (1, 'x'), (2, 'y') returning a, b")
    too_much = await refusal(
        caller.execute("insert into t select n, repeat('x', 100) from generate_series(1, 100) n returning b")
    )

    assert (done.rows_affected, done.rows) == (2, [[1, "x"], [2, "y"]])
    assert too_much.code == "failed_precondition"
    assert await caller.rows("select count(*) from t") == [[2]]


async def test_an_answer_is_bounded_by_rows_and_bytes(open_database: Open, call_context: Any) -> None:
    caller = calling(await open_database(max_result_bytes=2048), call_context)
    wide = "select repeat('x', 1000) from generate_series(1, 5)"
    cut = await caller.query(wide)

    assert (cut.row_count, cut.truncated, len(cut.rows)) == (2, True, 2)
    assert (await refusal(caller.query("select repeat('x', 3000)"))).code == "failed_precondition"
    many = await caller.query("select * from generate_series(1, 1000000)", max_rows=10)
    assert (many.row_count, many.truncated) == (10, True)


async def test_metadata_has_comments_partial_indexes_views_and_partitions(caller: Caller) -> None:
    for sql in (
        "comment on table stock is 'What is there'",
        "comment on column stock.sku is 'Its number'",
        "create index few on stock (quantity, lower(sku)) where quantity < 3",
        "create view low as select sku from stock where quantity < 3",
        "create table log (at date not null, note text default 'none') partition by range (at)",
        "create table log_2026 partition of log for values from ('2026-01-01') to ('2027-01-01')",
    ):
        await caller.execute(sql)
    result = await caller.database.metadata(api.MetadataRequest(), caller.context)
    tables = {table.name: table for table in result.tables}

    assert list(tables) == ["log", "low", "stock"]
    assert (tables["stock"].comment, tables["stock"].columns[0].comment) == ("What is there", "Its number")
    assert [(index.name, index.columns, index.unique) for index in tables["stock"].indexes] == [
        ("few", ["quantity"], False), ("stock_pkey", ["sku"], True),
    ]  # fmt: skip
    assert (tables["low"].kind, tables["log"].columns[1].default) == ("view", "'none'::text")
    assert tables["stock"].schema == "public"
    named = await caller.database.metadata(api.MetadataRequest(table="public.stock"), caller.context)
    assert [table.name for table in named.tables] == ["stock"]


async def test_pages_of_a_transaction_continue_the_very_same_answer(caller: Caller) -> None:
    transaction = await caller.begin()
    sql = "select sku from stock order by sku"
    first = await caller.query(sql, transaction=transaction, max_rows=2)
    await caller.execute("insert into stock values ('S00', 1)")
    second = await caller.query(sql, transaction=transaction, max_rows=2, cursor=first.next_cursor)
    third = await caller.query(sql, transaction=transaction, max_rows=2, cursor=second.next_cursor)

    assert (first.rows, second.rows, third.rows) == ([["S0"], ["S1"]], [["S2"], ["S3"]], [["S4"]])
    assert third.truncated is False
    for wrong in ({"cursor": second.next_cursor}, {"cursor": "made-up"}):
        assert (
            await refusal(caller.query(sql, transaction=transaction, max_rows=2, **wrong))
        ).code == "failed_precondition"
    again = await caller.query(sql, transaction=transaction, max_rows=2)
    await caller.execute("delete from stock where sku = 'S4'", transaction=transaction)
    gone = await refusal(caller.query(sql, transaction=transaction, max_rows=2, cursor=again.next_cursor))
    assert gone.code == "failed_precondition"
    await caller.rollback(transaction)


async def test_a_cursor_outside_a_transaction_is_refused(caller: Caller) -> None:
    error = await refusal(caller.query("select 1", cursor="x"))

    assert [one.pointer for one in error.errors] == ["/params/cursor"]


async def test_transactions_that_collide_are_told_to_run_again(caller: Caller) -> None:
    first = await caller.begin(isolation="serializable")
    second = await caller.begin(isolation="serializable")
    for transaction, sku in ((first, "S1"), (second, "S2")):
        await caller.rows("select sum(quantity) from stock", transaction=transaction)
        await caller.execute("update stock set quantity = 50 where sku = ?", sku, transaction=transaction)
    await caller.commit(first)
    error = await refusal(caller.commit(second))

    assert (error.code, error.retryable) == ("conflict", True)
    assert await caller.rows("select sku from stock where quantity = 50") == [["S1"]]


async def test_a_foreign_key_left_open_refuses_the_commit(caller: Caller) -> None:
    await caller.execute("create table line (sku text references stock deferrable initially deferred)")
    transaction = await caller.begin()
    await caller.execute("insert into line values ('unknown')", transaction=transaction)

    assert (await refusal(caller.commit(transaction))).code == "failed_precondition"
    assert await caller.rows("select count(*) from line") == [[0]]
    assert (await refusal(caller.commit(transaction))).code == "not_found"


async def test_a_table_whose_shape_changes_is_read_as_it_is_now(caller: Caller) -> None:
    for _ in range(3):
        assert len((await caller.query("select * from stock")).columns) == 2
    await caller.execute("alter table stock add column place text")

    assert [column.name for column in (await caller.query("select * from stock")).columns] == [
        "sku",
        "quantity",
        "place",
    ]


async def test_each_tenant_of_one_server_has_a_schema_and_a_login(
    open_database: Open, server: Server, call_context: Any
) -> None:
    admin = {"mode": "schema", "user": server.admin["user"], "password": server.admin["password"]}
    acme, rival = [
        calling(await open_database(tenant=tenant, **admin), call_context, tenant=tenant)
        for tenant in ("acme", "rival")
    ]
    await acme.execute("create table stock (sku text)")
    await rival.execute("create table stock (sku text, of text)")
    await acme.execute("insert into stock values ('of acme')")
    ((theirs,),) = await acme.returned("select current_schema()::text")

    for sql in (f"select * from {theirs}.stock", f'select * from "{theirs}"."stock"'):
        assert (await refusal(rival.query(sql))).code == "invalid_argument"
        assert (await refusal(rival.execute(sql))).code == "permission_denied"
    await rival.execute("create function f() returns bigint language plpgsql as 'begin reset role; reset session authorization;"
                        f" return (select count(*) from {theirs}.stock); end'")  # fmt: skip
    assert (await refusal(rival.execute("select f()"))).code == "permission_denied"
    assert await acme.rows("select * from stock") == [["of acme"]]
    again = calling(await open_database(tenant="acme", **admin), call_context)
    assert await again.rows("select * from stock") == [["of acme"]]
    names = [table.name for table in (await rival.database.metadata(api.MetadataRequest(), rival.context)).tables]
    assert names == ["stock"]
    for name, in await server.rows("select rolname from pg_roles where rolname like 'erp_t_%' and rolname = any"
                                   "(select nspname from pg_namespace)"):  # fmt: skip
        await server.run(f"drop owned by {name} cascade", f"drop role {name}")


async def test_no_schema_is_made_where_tenants_would_meet(open_database: Open, server: Server) -> None:
    await server.run("grant create on schema public to public")
    before = await server.rows("select count(*) from pg_namespace")
    admin = {"mode": "schema", "user": server.admin["user"], "password": server.admin["password"]}
    error = await refusal(open_database(**admin))

    assert (error.code, "REVOKE CREATE ON SCHEMA public" in error.message) == ("failed_precondition", True)
    assert await server.rows("select count(*) from pg_namespace") == before


async def test_a_user_who_may_make_no_schemas_is_told_so(open_database: Open) -> None:
    error = await refusal(open_database(mode="schema"))

    assert (error.code, "CREATEROLE" in error.message) == ("failed_precondition", True)


async def test_a_server_without_pgvector_says_what_to_do(
    open_database: Open, server: Server, call_context: Any
) -> None:
    caller = calling(await open_database(), call_context)
    if await server.rows("select 1 from pg_available_extensions where name = 'vector'"):
        await server.run("create schema away", "create extension vector schema away")
    item = api.UpsertVectorsRequestItemsItem(id="x", vector=[1.0])
    error = await refusal(
        caller.database.upsert_vectors(api.UpsertVectorsRequest(collection="c", items=[item]), caller.context)
    )

    assert error.code == "failed_precondition"
    assert await server.rows("select count(*) from pg_class where relname like 'erp_vectors%'") == [(0,)]
