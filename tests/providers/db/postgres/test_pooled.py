"""Tenants that share tables over the same connections never meet, whatever one of them tries."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from tests.providers.db.postgres.conftest import PASSWORD, Caller, Open, Server, calling
from typer.testing import CliRunner

from erp.cli import app
from erp.contracts.models import db as api
from erp.errors import ProviderError

pytestmark = [pytest.mark.live, pytest.mark.anyio]

TABLES = (
    "create table stock (tenant text, sku text, quantity integer not null default 0, primary key (tenant, sku))",
    (
        "create table line (tenant text, id integer, sku text, primary key (tenant, id),"
        " foreign key (tenant, sku) references stock (tenant, sku))"
    ),
    "create table currency (code text primary key)",
    "insert into currency values ('EUR'), ('USD')",
    "insert into stock values ('acme', 'A', 1), ('acme', 'B', 2), ('rival', 'A', 100), ('', 'EMPTY', 7)",
    "create table secret (body text)",
    "insert into secret values ('of the operator')",
)


@dataclass
class Shared:
    """A database that tenants share."""

    server: Server
    role: str
    open_database: Open
    call_context: Any

    @property
    def settings(self) -> dict[str, Any]:
        return {"mode": "pooled", "user": self.role, "password": PASSWORD, "schema": "public"}

    async def caller(self, tenant: str, **settings: Any) -> Caller:
        return calling(
            await self.open_database(tenant=tenant, **{**self.settings, **settings}), self.call_context, tenant=tenant
        )

    async def stock(self) -> list[tuple[Any, ...]]:
        return await self.server.rows("select tenant, sku, quantity from stock order by 1, 2")

    async def isolate(self, *words: str, url: str | None = None) -> Any:
        environment = {"ERP_ISOLATE_URL": url or self.server.url}
        command = ["db", "isolate", "--role", self.role, *words]
        return await asyncio.to_thread(CliRunner().invoke, app, command, env=environment)


@pytest.fixture
async def bare(server: Server, open_database: Open, call_context: Any) -> Shared:
    """The tables as they were before anybody thought of tenants sharing them."""
    role = f"{server.owner}_app"
    await server.run(f"create role {role} login password '{PASSWORD}'", *TABLES)
    return Shared(server, role, open_database, call_context)


@pytest.fixture
async def shared(bare: Shared) -> Shared:
    """The same, isolated."""
    done = await bare.isolate("stock", "line", "--shared", "currency", "--apply", "--check")
    assert done.exit_code == 0, done.output
    return bare


async def refusal(work: Any) -> ProviderError:
    with pytest.raises(ProviderError) as refused:
        await work
    return refused.value


async def test_each_tenant_sees_and_changes_its_own_rows(shared: Shared) -> None:
    acme, rival = await shared.caller("acme"), await shared.caller("rival")

    assert await acme.rows("select sku, quantity from stock order by sku") == [["A", 1], ["B", 2]]
    assert await rival.rows("select * from stock") == [["rival", "A", 100]]
    assert (await acme.execute("update stock set quantity = quantity + 1")).rows_affected == 2
    assert (await rival.execute("insert into stock (sku, quantity) values (?, ?)", "A2", 5)).rows_affected == 1
    assert (await acme.execute("delete from stock where sku = 'A2'")).rows_affected == 0
    assert await acme.rows("select code from currency order by code") == [["EUR"], ["USD"]]
    assert await shared.stock() == [
        ("", "EMPTY", 7), ("acme", "A", 2), ("acme", "B", 3), ("rival", "A", 100), ("rival", "A2", 5),
    ]  # fmt: skip


async def test_tenants_share_the_connections_of_the_process(shared: Shared) -> None:
    callers = [await shared.caller(f"tenant-{number}", readers=2, writers=2) for number in range(8)]
    answers = await asyncio.gather(*(caller.rows("select count(*) from stock") for caller in callers * 5))

    assert answers == [[[0]]] * 40
    assert len(await shared.server.backends(shared.role)) <= 4
    await callers[0].database.close()
    assert await callers[1].rows("select count(*) from stock") == [[0]]


HOSTILE = (
    "select set_config('erp.tenant', 'rival', true)",
    "select set_config('erp.tenant', 'rival', false) from stock",
    "select \"set_config\"('erp.tenant', 'rival', false)",
    "select pg_catalog.set_config('erp.tenant', 'rival', false)",
    "set erp.tenant = 'rival'",
    "set local erp.tenant to 'rival'",
    "reset erp.tenant",
    "reset all",
    "discard all",
    "commit",
    "rollback",
    "end",
    "begin",
    "commit; select * from stock",
    "select 1; set erp.tenant = 'rival'",
    "set role postgres",
    "reset role",
    "set session authorization default",
    "set row_security = off",
    "alter table stock disable row level security",
    "alter table stock no force row level security",
    "drop policy erp_isolation on stock",
    "create policy open on stock using (true)",
    "alter role current_user bypassrls",
    "create table mine (a int)",
    "create view v as select * from stock",
    "create function f() returns int language sql as 'select 1'",
    "do $$ begin perform set_config('erp.tenant', 'rival', false); end $$",
    "truncate stock",
    "copy stock to stdout",
    "copy stock from stdin",
    "lock table stock",
    "select * from secret",
    "select * from public.secret",
    "select * from pg_stats",
    "select * from pg_class",
    "select * from pg_catalog.pg_policy",
    "select * from information_schema.tables",
    "insert into stock (tenant, sku) values ('rival', 'stolen')",
    "insert into stock (tenant, sku) values ('', 'stolen')",
    "insert into stock (tenant, sku) values (null, 'stolen')",
    "update stock set tenant = 'rival'",
    "insert into stock (tenant, sku) values ('rival', 'A') on conflict (tenant, sku) do update set quantity = 0",
    "insert into line (tenant, id, sku) values ('rival', 1, 'A')",
    "insert into line (id, sku) values (1, 'not-mine')",
    "insert into currency values ('XXX')",
    "delete from currency",
    "with x as (update stock set tenant = 'rival' returning *) select * from x",
    "merge into stock using secret on true when matched then delete",
    "select query_to_xml('select * from secret', true, true, '')",
    "select * from dblink('dbname=erp', 'select 1') as t(a int)",
    "select pg_read_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "listen changes",
    "notify changes",
    "prepare p as select 1",
    "declare c cursor with hold for select 1",
    "explain select * from stock",
)


async def test_a_hostile_tenant_is_refused_and_nothing_changes(shared: Shared) -> None:
    codes = {"invalid_argument", "permission_denied", "failed_precondition", "not_found", "already_exists"}
    acme = await shared.caller("acme", readers=1, writers=1)
    rival = await shared.caller("rival", readers=1, writers=1)
    before = await shared.stock()
    for sql in HOSTILE:
        for work in (acme.execute(sql), acme.query(sql), acme.batch("update stock set quantity = 9", sql)):
            error = await refusal(work)
            assert error.code in codes, (sql, error)
        assert await shared.stock() == before, sql
        assert await rival.rows("select * from stock") == [["rival", "A", 100]], sql
        assert await acme.rows("select sku from stock order by sku") == [["A"], ["B"]], sql


async def test_a_tenant_learns_nothing_from_errors_about_others(shared: Shared) -> None:
    acme = await shared.caller("acme")

    assert (await acme.execute("insert into stock (sku, quantity) values ('EMPTY', 1)")).rows_affected == 1
    assert await acme.rows("select sku from stock where 1 / (quantity - 100) is not null order by sku") == [
        ["A"],
        ["B"],
        ["EMPTY"],
    ]
    assert await acme.rows("select count(*) from stock where tenant = 'rival' or tenant = ''") == [[0]]


async def test_without_a_tenant_there_are_no_rows(shared: Shared) -> None:
    import asyncpg

    config = {**shared.server.config, **shared.settings}
    connection = await asyncpg.connect(
        host=config["host"], port=config["port"], database=config["database"], user=shared.role, password=PASSWORD
    )
    try:
        assert await connection.fetchval("select count(*) from stock") == 0
        await connection.execute("begin; set local erp.tenant = 'acme'; commit")
        assert await connection.fetchval("select count(*) from stock") == 0
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute("insert into stock (sku) values ('x')")
    finally:
        await connection.close()


async def test_transactions_streams_and_batches_are_the_tenants_too(shared: Shared) -> None:
    acme = await shared.caller("acme")
    transaction = await acme.begin()
    await acme.execute("insert into stock (sku) values ('C')", transaction=transaction)
    await acme.savepoint(transaction, "s")
    await acme.execute("delete from stock", transaction=transaction)
    await acme.rollback(transaction, savepoint="s")
    page = await acme.query("select sku from stock order by sku", transaction=transaction, max_rows=2)
    rest = await acme.query(
        "select sku from stock order by sku", transaction=transaction, max_rows=2, cursor=page.next_cursor
    )
    await acme.commit(transaction)

    assert (page.rows, rest.rows) == ([["A"], ["B"]], [["C"]])
    stream = acme.database.stream(api.StreamRequest(sql="select sku from stock order by sku"), acme.context)
    assert [row for item in [item async for item in stream] if item.rows for row in item.rows] == [["A"], ["B"], ["C"]]
    assert await acme.batch("update stock set quantity = 0", "delete from stock where sku = 'C'") == [3, 1]


async def test_metadata_shows_what_can_be_used_and_counts_nobodys_rows(shared: Shared) -> None:
    acme = await shared.caller("acme")
    result = await acme.database.metadata(api.MetadataRequest(), acme.context)

    assert [table.name for table in result.tables] == ["currency", "line", "stock"]
    assert all(not isinstance(table.row_estimate, int) for table in result.tables)


async def test_a_role_may_be_narrowed_to_some_tables_and_never_widened(shared: Shared) -> None:
    acme = await shared.caller("acme", tables=["stock", "secret"])

    assert await acme.rows("select count(*) from stock") == [[2]]
    for table in ("currency", "secret"):
        assert (await refusal(acme.rows(f"select * from {table}"))).code == "invalid_argument"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("alter table stock disable row level security", "public.stock does not keep tenants apart"),
        ("alter table stock no force row level security", "the policies of public.stock do not hold for its owner"),
        ("drop policy erp_isolation_bound on stock", "public.stock does not keep tenants apart"),
        ("alter policy erp_isolation on stock using (true)", "public.stock does not keep tenants apart"),
        ("alter policy erp_isolation on stock with check (true)", "public.stock does not keep tenants apart"),
        ("alter table stock alter column tenant drop default", "public.stock.tenant is not set by itself"),
        (
            "create unique index on stock (sku, quantity)",
            "public.stock: the unique stock_sku_quantity_idx has no tenant",
        ),
        ("grant select on secret to {role}", "public.secret does not keep tenants apart"),
        ("grant truncate on stock to {role}", "the role may TRUNCATE public.stock"),
        ("grant insert on currency to {role}", "public.currency does not keep tenants apart"),
        ("alter role {role} bypassrls", "has BYPASSRLS"),
        ("alter role {role} superuser", "is a superuser"),
        ("grant {owner} to {role}", "can become"),
        ("create view v as select * from secret; grant select on v to {role}", "public.v is a view"),
        (
            "alter table line add column other text, add foreign key (other) references keys (a)",
            None,
        ),
    ],
)
async def test_nothing_is_opened_where_tenants_would_meet(shared: Shared, damage: str, problem: str | None) -> None:
    await shared.server.run("create table keys (a text primary key)")
    await shared.server.run(damage.format(role=shared.role, owner=shared.server.owner))
    checked = await shared.isolate("--check")
    if problem is None:
        assert checked.exit_code == 0, checked.output
        return

    error = await refusal(shared.caller("acme"))
    assert error.code == "failed_precondition"
    assert problem in error.message
    assert checked.exit_code == 1
    assert problem in checked.output


async def test_what_is_printed_is_what_is_applied(bare: Shared) -> None:
    printed = await bare.isolate("stock", "line", "--shared", "currency")
    assert printed.exit_code == 0
    assert (await bare.isolate("--check")).exit_code == 0  # the role reaches nothing yet
    await bare.server.run(printed.stdout)

    assert (await bare.isolate("--check")).exit_code == 0
    assert await (await bare.caller("acme")).rows("select count(*) from stock") == [[2]]
    again = await bare.isolate("stock", "line", "--shared", "currency", "--apply", "--check")
    assert again.exit_code == 0, again.output


async def test_a_failed_application_changes_nothing(bare: Shared) -> None:
    done = await bare.isolate("stock", "no_such_table", "--apply")

    assert (done.exit_code, "nothing was changed" in done.output) == (1, True)
    assert await bare.server.rows("select count(*) from pg_policy") == [(0,)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a.b.c"], "is not a table"),
        ([], "name a table, or --check"),
        (["stock", "--dialect", "mssql", "--shared", "currency"], "--shared and --collection are not for mssql"),
        (["--collection", "notes"], "is not NAME:DIMENSIONS"),
    ],
)
async def test_a_wrong_command_says_what_to_do(bare: Shared, words: list[str], says: str) -> None:
    done = await bare.isolate(*words)

    assert (done.exit_code, says in done.output) == (2, True)


async def test_vectors_can_be_shared_too(shared: Shared) -> None:
    if not await shared.server.rows("select 1 from pg_available_extensions where name = 'vector'"):
        pytest.skip("needs pgvector: set ERP_TEST_PGVECTOR")
    callers = {tenant: await shared.caller(tenant) for tenant in ("acme", "rival")}
    item = api.UpsertVectorsRequestItemsItem(id="x", vector=[1.0, 0.0], payload={"of": "acme"})
    request = api.UpsertVectorsRequest(collection="notes", items=[item])
    acme = callers["acme"]
    missing = await refusal(acme.database.upsert_vectors(request, acme.context))
    assert (missing.code, "--collection" in missing.message) == ("failed_precondition", True)

    made = await shared.isolate("--collection", "notes:2", "--apply", "--check")
    assert made.exit_code == 0, made.output
    for tenant, caller in callers.items():
        item.payload = {"of": tenant}
        await caller.database.upsert_vectors(request, caller.context)
    search = api.SearchVectorsRequest(collection="notes", vector=[1.0, 0.0])
    for tenant, caller in callers.items():
        found = await caller.database.search_vectors(search, caller.context)
        assert [(one.id, one.payload) for one in found.items] == [("x", {"of": tenant})]
