"""A query cannot write, read files, run code, wait or learn of others: every known way is tried, as a superuser."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest
import yaml
from tests.providers.db.postgres.conftest import Caller, Open, Server, calling

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.postgres.provider import PostgresDatabase

pytestmark = [pytest.mark.live, pytest.mark.anyio, pytest.mark.timeout(180)]

CORPUS: dict[str, list[Any]] = yaml.safe_load(Path(__file__).with_name("bypass.yaml").read_text())
SERVER_ALONE = ("write rows", "write behind a with", "several statements", "change the schema", "explained writes")
"""What the server refuses on a reader without the parser's help."""
_STATE = """
select (select array_agg(s order by sku)::text from stock s), (select last_value from counter),
       (select count(*) from pg_class), (select count(*) from pg_proc), (select count(*) from pg_namespace),
       (select array_agg(rolname || coalesce(rolpassword, '') order by 1)::text from pg_authid
         where rolname !~ '^erp_' or rolname ~ 'evil'),
       (select count(*) from pg_largeobject_metadata), (select count(*) from pg_db_role_setting),
       (select count(*) from pg_extension), (select count(*) from pg_policy), (select count(*) from pg_description),
       (select array_agg(relacl::text) from pg_class where relname = 'stock'), (select count(*) from pg_replication_slots),
       (select count(*) from pg_locks where locktype = 'advisory'), (select count(*) from pg_prepared_xacts)
"""


def text(entry: Any) -> str:
    """Return an attempt as text; ``[text, times, ...]`` is written out."""
    if isinstance(entry, str):
        return entry
    return "".join(part * times for part, times in zip(entry[::2], entry[1::2], strict=True))


def _left_behind() -> list[Path]:
    return list(Path("/tmp").glob("erp_bypass_evil*"))


@pytest.fixture
async def superuser(open_database: Open, server: Server, call_context: Any) -> Caller:
    """A caller for whom nothing is forbidden but by the layer, with tables to lose."""
    await server.run(
        "create table stock (sku text primary key, quantity integer)",
        "insert into stock values ('S1', 1), ('S2', 2)",
        "create sequence counter",
    )
    admin = {key: server.admin[key] for key in ("user", "password")}
    return calling(await open_database(**admin, max_statement_seconds=5), call_context)


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    texts = [text(entry) for entries in CORPUS.values() for entry in entries]

    assert len(texts) >= 240
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("kind", CORPUS)
async def test_an_attempt_is_refused_and_changes_nothing(superuser: Caller, server: Server, kind: str) -> None:
    before = await server.rows(_STATE)
    for sql in map(text, CORPUS[kind]):
        with pytest.raises(ProviderError) as refused:
            await superuser.query(sql)
            pytest.fail(f"it ran: {sql[:200]}")
        assert refused.value.code == "invalid_argument", (sql[:200], refused.value)
        assert await server.rows(_STATE) == before, sql[:200]
    assert not _left_behind()
    assert await superuser.rows("select count(*), sum(quantity) from stock") == [[2, 3]]


@pytest.mark.parametrize("kind", CORPUS)
async def test_the_same_attempts_are_refused_inside_a_transaction_and_in_a_stream(
    superuser: Caller, server: Server, kind: str
) -> None:
    before = await server.rows(_STATE)
    handle = await superuser.begin()
    for sql in map(text, CORPUS[kind]):
        with pytest.raises(ProviderError):
            await superuser.query(sql, transaction=handle)
        with pytest.raises(ProviderError):
            async for _ in superuser.database.stream(api.StreamRequest(sql=sql), superuser.context):
                pass
    await superuser.commit(handle)

    assert await server.rows(_STATE) == before
    assert (await superuser.execute("update stock set quantity = 1")).rows_affected == 2


@pytest.mark.parametrize("kind", SERVER_ALONE)
async def test_the_server_refuses_on_its_own_what_the_parser_would_let_through(
    open_database: Open, server: Server, kind: str
) -> None:
    """For a role as it should be: a superuser may ALTER SYSTEM even where nothing can be written."""
    database = (await open_database())._opened().database
    await database.write("create table stock (sku text primary key, quantity integer)", (), needs_reset=False)
    await database.write("create sequence counter", (), needs_reset=False)
    before = await server.rows(_STATE)
    # Care for tables changes nothing in them, and PostgreSQL lets it run where nothing can be written.
    harmless = {"explain select 1", ";;", "explain (analyze) select pg_sleep(1)"}
    harmless |= {f"{care} stock" for care in ("analyze", "vacuum", "cluster", "reindex table")}
    temporary = ("create temp", "select 1 as a into temp")
    for sql in map(text, CORPUS[kind]):
        if sql not in harmless and not sql.startswith(temporary):
            with pytest.raises(ProviderError):
                await database.read(sql, (), 10)
                pytest.fail(f"it ran: {sql[:200]}")

    assert (await server.rows(_STATE))[0][:1] == before[0][:1]
    assert (await server.rows("select count(*) from pg_class where relname = 'evil'")) == [(0,)]


async def test_in_a_changing_transaction_the_server_refuses_changes_by_a_query(
    superuser: Caller, server: Server
) -> None:
    assert isinstance(superuser.database, PostgresDatabase)
    session = await superuser.database._opened().database.session(read_only=False)
    for sql in map(text, CORPUS["write rows"] + CORPUS["write behind a with"] + ["select nextval('counter')"]):
        with pytest.raises(ProviderError):
            await session.read(sql, (), 10)
            pytest.fail(f"it ran: {sql[:200]}")
    assert (await session.alone("update stock set quantity = 5", ())).rows_affected == 2
    await session.commit()
    session.release()

    assert await server.rows("select sku, quantity from stock order by 1") == [("S1", 5), ("S2", 5)]


async def test_only_listed_tables_and_functions_can_be_named(
    open_database: Open, superuser: Caller, call_context: Any
) -> None:
    await superuser.execute("create table secret (body text)")
    await superuser.execute("create function own_tax(amount numeric) returns numeric language sql return amount * 2")
    caller = calling(await open_database(tables=["stock"], functions=["own_tax"]), call_context)
    await superuser.execute(f"grant all on stock to {caller.database._config['user']}")

    assert await caller.rows("select own_tax(sum(quantity)) from public.stock") == [["6"]]
    assert (await caller.execute("update stock set quantity = own_tax(quantity)")).rows_affected == 2
    for sql in ("select * from secret", "select 1 from stock where exists (select 1 from public.secret)"):
        for work in (caller.query(sql), caller.execute(sql)):
            with pytest.raises(ProviderError) as refused:
                await work
            assert refused.value.message == "There is no such table."
    for sql in ("drop table stock", "insert into secret values ('x')", "create table x (a int)"):
        with pytest.raises(ProviderError) as refused:
            await caller.execute(sql)
        assert refused.value.code == "invalid_argument"
    with pytest.raises(ProviderError):
        await superuser.rows("select own_tax(1)")


FRAGMENTS = (
    "'", "''", "E'", "e'", "n'", "b'", "x'", "\\", "\\'", "$$", "$a$", "$b", "$é$", "a$$", "1$a$", "--", "/*", "*/", "\n", "\r",
    "\t", "\x0b", "\u00a0", "\ufeff", '"', "U&", ";", "(", ")", "[", "]", "{", ",", "||", "-", "*", "/", "%", "@", "#", "`", ".",
    " 1 ", " 1e", " 0x", " as a", " from ", " union ", "select ", "stock", "::text", "'\n'", "E'\\\\'",
    "set_config('erp.x', '1', false)", "\"set_config\"('erp.x', '1', false)", "set_config/**/('erp.x', '1', false)",
)  # fmt: skip
CALL = "set_config('erp.x', '1', false)"


async def test_random_text_never_calls_what_is_forbidden(superuser: Caller, server: Server) -> None:
    """Whatever the two readers take a text for: when it is let through, the server finds no call in it either."""
    random = Random(20261129)
    judge = superuser.database._opened().statements
    passed: list[str] = []
    for _ in range(20_000):
        parts = [random.choice(FRAGMENTS) for _ in range(random.randint(3, 14))]
        text_ = "select " + "".join([*parts, random.choice((" , ", "||", " --\n,", "/**/,", "'")), CALL])
        with suppress(ProviderError):
            passed.append(judge.query(text_ + random.choice(("", "--", "'", "*/", "$$", ")"))).sql)

    assert len(passed) > 100
    async with server.connected() as connection:
        await connection.execute("set default_transaction_read_only = on")
        for sql in passed:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.fetch(sql)
            assert not await connection.fetchval("select current_setting('erp.x', true)"), sql


HARMLESS = (
    "select sku, quantity from stock where sku = 'S1'",
    "select count(*), sum(quantity), avg(quantity)::numeric(10, 2) from stock",
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3) select * from n",
    "select sku, rank() over (partition by quantity order by sku) from stock",
    "select jsonb_build_object('a', 1) @> '{\"a\": 1}', '{\"a\": 1}'::jsonb ?? 'a', '{\"a\": 1}'::jsonb ->> 'a'",
    "select date_trunc('month', timestamp '2026-11-22') + interval '1 day', extract(year from now())",
    "select * from generate_series(1, 3) as g(n) left join stock on quantity = n",
    "select s.*, t.total from stock s cross join lateral (select sum(quantity) as total from stock) t",
    "select array_agg(sku order by sku), string_agg(sku, ',') filter (where quantity > 1) from stock",
    "select case when exists (select 1 from stock) then 'yes' else 'no' end as \"answer\"",
    "select sku from stock union all select 'x' order by 1 limit 2 offset 1",
    "select coalesce(null, 1), nullif(1, 1), greatest(1, 2), 'a' || 'b', 'abc' like 'a%', 'abc' ~ '^a'",
    "select 'it''s', E'a\\nb', $$x$$, $t$it's$t$ -- a comment; with a semicolon",
    "select distinct on (quantity) quantity, sku from stock order by quantity, sku desc",
    "values (1, 'a'), (2, 'b')",
    "select * from unnest(array[1, 2], array['a', 'b']) with ordinality as u(a, b, n)",
    "select to_tsvector('simple', 'a b') @@ websearch_to_tsquery('simple', 'a'), ts_rank(to_tsvector('a'), to_tsquery('a'))",
    "select grouping(sku), sku, count(*) from stock group by rollup (sku)",
    "table stock",
)


async def test_what_only_reads_runs(superuser: Caller) -> None:
    for sql in HARMLESS:
        assert (await superuser.query(sql)).row_count >= 1, sql
