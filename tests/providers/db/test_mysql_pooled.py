"""Tenants that share tables of MariaDB never meet, whatever one of them tries: by statement, or with its own login."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from tests.conformance.live.db_mysql import VARIABLE, config
from tests.providers.db.conftest import Caller
from typer.testing import CliRunner

from erp.cli import app
from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.mysql.connecting import Endpoint
from erp.providers.db.mysql.pooled import PREFIX
from erp.providers.db.mysql.provider import MysqlDatabase
from erp.providers.db.mysql.tenant_database import logins_of
from erp.runtime.spi import OpenContext

pytestmark = [pytest.mark.live, pytest.mark.anyio]
PASSWORD = "of-the-layers-user"
TENANT = "varchar(63) collate utf8mb4_bin not null"
TABLES = (
    (
        f"create table stock (tenant {TENANT}, sku varchar(20) not null, quantity int not null default 0, note varchar(40),"
        " primary key (tenant, sku), key by_quantity (tenant, quantity))"
    ),
    (
        f"create table line (tenant {TENANT}, id int not null, sku varchar(20), primary key (tenant, id),"
        " constraint of_stock foreign key (tenant, sku) references stock (tenant, sku)) engine = InnoDB"
    ),
    "create table currency (code char(3) primary key)",
    "create table secret (body text)",
    "insert into currency values ('EUR'), ('USD')",
    "insert into stock values ('acme', 'A', 1, 'acme one'), ('acme', 'B', 2, null), ('rival', 'A', 100, 'rival one')",
    "insert into secret values ('of the operator')",
)
STOCK = "select tenant, sku, quantity, note from stock order by 1, 2"


@dataclasses.dataclass
class Shop:
    """A database whose tables tenants share, and the server's owner."""

    name: str
    owner: Any
    open_context: OpenContext
    call_context: Any
    callers: list[Caller] = dataclasses.field(default_factory=list)

    @property
    def role(self) -> str:
        return f"{self.name}_app"

    @property
    def settings(self) -> dict[str, Any]:
        own = {"mode": "pooled", "database": f"{self.name}_pooled", "user": self.role, "password": PASSWORD}
        return {**config(os.environ[VARIABLE]), **own}

    async def run(self, *statements: str) -> list[Any]:
        cursor = self.owner.cursor()
        for statement in statements:
            await cursor.execute(statement)
        return list(await cursor.fetchall())

    async def isolate(self, *words: str) -> Any:
        address = os.environ[VARIABLE].partition("?")[0] + "?tls=disable"
        command = ["db", "isolate", "--dialect", "mysql", "--schema", self.name, "--role", self.role, *words]
        return await asyncio.to_thread(CliRunner().invoke, app, command, env={"ERP_ISOLATE_URL": address})

    async def caller(self, tenant: str, **settings: Any) -> Caller:
        place = dataclasses.replace(self.open_context, tenant=tenant)
        database = MysqlDatabase({**self.settings, **settings}, place)
        made = Caller(database, self.call_context(tenant=tenant, seconds=60))
        self.callers.append(made)
        await database.open()
        return made

    def logins(self, tenant: str) -> list[Endpoint]:
        endpoint = Endpoint.of(self.settings)
        return [dataclasses.replace(login, database=endpoint.database) for login in logins_of(endpoint, tenant, PREFIX)]


@pytest.fixture
async def bare(open_context: OpenContext, call_context: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """The tables as they were before anybody thought of tenants sharing them."""
    if not os.environ.get(VARIABLE):
        pytest.skip(f"db/mysql needs {VARIABLE}")
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
    owner = await Endpoint.of(config(os.environ[VARIABLE])).connect(read_only=False)
    shop = Shop(f"shop_{uuid.uuid4().hex[:8]}", owner, open_context, call_context)
    try:
        await shop.run(f"create database {shop.name} character set utf8mb4", f"use {shop.name}", *TABLES)
        await shop.run(f"create user '{shop.role}'@'%' identified by '{PASSWORD}'")
        yield shop
    finally:
        await removed(shop)


async def removed(shop: Shop) -> None:
    """Leave nothing behind on the server."""
    for caller in shop.callers:
        await caller.database.close()
    logins = [login.user for tenant in ("acme", "rival") for login in shop.logins(tenant)]
    await shop.run(*(f"drop user if exists '{login}'@'%'" for login in [*logins, shop.role]))
    await shop.run(f"drop database if exists {shop.name}_pooled", f"drop database if exists {shop.name}")
    shop.owner.close()


@pytest.fixture
async def shop(bare: Shop) -> Shop:
    """The same, isolated."""
    done = await bare.isolate("stock", "line", "--shared", "currency", "--apply", "--check")
    assert done.exit_code == 0, done.output
    return bare


async def refusal(work: Awaitable[Any]) -> ProviderError:
    with pytest.raises(ProviderError) as refused:
        await work
    return refused.value


async def test_each_tenant_sees_and_changes_its_own_rows(shop: Shop) -> None:
    acme, rival = await shop.caller("acme"), await shop.caller("rival")

    assert await acme.rows("select sku, quantity from stock order by sku") == [["A", 1], ["B", 2]]
    assert await rival.rows("select * from stock") == [["A", 100, "rival one"]]
    assert (await acme.execute("update stock set quantity = quantity + ? where 1 or 1", 1)).rows_affected == 2
    assert (await rival.execute("insert into stock (sku, quantity) values (?, ?)", "A2", 5)).rows_affected == 1
    assert (await acme.execute("delete from stock where sku = 'A2' or sku = 'A2'")).rows_affected == 0
    upsert = "insert into stock (sku, quantity) values ('A', 7), ('C', 7) on duplicate key update quantity = values(quantity)"
    await acme.execute(upsert)
    assert await acme.rows("select code from currency order by code") == [["EUR"], ["USD"]]
    assert await shop.run(STOCK) == [
        ("acme", "A", 7, "acme one"), ("acme", "B", 3, None), ("acme", "C", 7, None),
        ("rival", "A", 100, "rival one"), ("rival", "A2", 5, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "given", "rows"),
    [
        ("select s.sku from stock s join currency c on c.code = ? where s.sku = ?", ["EUR", "A"], [["A"]]),
        ("select sku from stock order by sku limit ?, ?", [1, 5], [["B"]]),
        ("select sku from stock where note like 'acme%' and sku <> '?:%s'", [], [["A"]]),
        ("select ':erp_tenant', '%s', ?", ["x"], [[":erp_tenant", "%s", "x"]]),
        ("with s as (select * from stock) select max(quantity) from s", [], [[2]]),
        ("select sku from stock union select code from currency order by 1", [], [["A"], ["B"], ["EUR"], ["USD"]]),
        ("select (select max(quantity) from stock), (select count(*) from line)", [], [[2, 0]]),
        ("select sku, sum(quantity) over (order by sku) from stock", [], [["A", "1"], ["B", "3"]]),
        ("select sku from stock where quantity in (100, 1) or 'rival one' = note", [], [["A"]]),
        (
            "select STOCK.sku from STOCK where not exists (select 1 from stock b where b.quantity > 2)",
            [],
            [["A"], ["B"]],
        ),
    ],
)
async def test_a_query_reads_the_tenants_rows_alone(shop: Shop, sql: str, given: list[Any], rows: Any) -> None:
    acme = await shop.caller("acme")
    assert await acme.rows(sql, *given) == rows


EXPRESSIONS = (
    "'a' 'b'", "'it''s'", "'a\\\\b'", "'a\\nb\\'c'", '"x"', "7 div 2", "7 % 4", "mod(-7, 4)", "1 <=> null", "not 1 = 2", "!1", "1 xor 1", "1 && 0",
    "'abc' rlike '^a.c$'", "'abc' regexp 'B'", "binary 'a' = 'A'", "-3 >> 1", "5 & 6 | 1 ^ 2", "cast('12' as unsigned) + 1", "cast(1.005 as decimal(10, 2))",
    "convert('a', char)", "cast('2026-02-03' as date)", "date_format('2026-02-03 04:05:06', '%Y-%m-%d %H:%i:%s')", "date_format('2026-02-03', '%d.%c.%y %W %b %j')",
    "str_to_date('03.02.2026', '%d.%m.%Y')", "date_add('2026-01-31', interval 1 month)", "'2026-01-31' + interval 2 day", "date_sub('2026-01-31', interval '1:30' minute_second)",
    "timestampdiff(hour, '2026-01-01', '2026-01-02')", "datediff('2026-02-03', '2026-01-01')", "dayofweek('2026-02-03')", "week('2026-02-03', 1)", "weekday('2026-02-03')", "last_day('2026-02-03')",
    "unix_timestamp('2026-02-03')", "from_unixtime(86400)", "extract(year_month from '2026-02-03')", "year('2026-02-03') * 100 + month('2026-02-03')", "date('2026-02-03 01:02:03')", "time_to_sec('01:00:00')",
    "length('\u00e4')", "char_length('\u00e4')", "ifnull(null, 2)", "nullif(1, 1)", "if(1 > 2, 'a', 'b')", "coalesce(null, 3)", "greatest(1, 3, 2)", "case 2 when 1 then 'a' else 'b' end",
    "substring('abcdef', 2, 3)", "substring('abcdef' from -2)", "left('abc', 2)", "right('abc', 2)", "mid('abc', 2, 1)", "substring_index('a.b.c', '.', -1)", "locate('b', 'abc')", "instr('abc', 'c')", "position('b' in 'abc')",
    "lpad('a', 3, '-')", "trim(leading 'x' from 'xxa')", "concat_ws('-', 'a', null, 'b')", "replace('aXa', 'X', 'y')", "reverse('abc')", "field('b', 'a', 'b')", "find_in_set('b', 'a,b')", "elt(2, 'a', 'b')",
    "hex('a')", "hex(255)", "unhex('61')", "md5('a')", "sha2('a', 256)", "crc32('a')", "to_base64('a')", "conv('ff', 16, 10)", "bin(5)", "ascii('a')", "ord('a')", "char(65, 66)",
    "round(2.5)", "round(-1.255, 2)", "truncate(1.999, 1)", "ceiling(1.2)", "floor(-1.2)", "power(2, 10)", "log(2, 8)", "log10(1000)", "sign(-2)", "format(1234.5, 2)", "1 / 3", "10 / 4", "1e3", "x'41' = 'A'", "1 = true",
    "json_extract('{\"a\": [1, 2]}', '$.a[1]')", "json_unquote(json_extract('{\"a\": \"x\"}', '$.a'))", "json_object('a', 1)", "json_array(1, 'a', null)", "json_contains('[1, 2]', '2')", "json_value('{\"a\": 5}', '$.a')", "json_length('[1, 2]')",
    "'a' in ('a', 'b')", "3 between 2 and 4", "'abc' like 'a\\_c'", "'a_c' like 'a|_c' escape '|'", "'%' like '\\%'", "null is not null", "1 is true", "(1, 2) = (1, 2)", "exists (select 1)", "not 'abc' rlike 'b' and 1", "null rlike 'a'", "'a' not regexp 'b'", "inet_aton('127.0.0.1')", "soundex('hello')", "strcmp('a', 'b')", "'a' collate utf8mb4_bin = 'A'",
)  # fmt: skip


async def test_an_expression_means_the_same_when_it_was_rewritten(shop: Shop) -> None:
    acme = await shop.caller("acme")
    others = []
    for expression in EXPRESSIONS:
        raw = await shop.run(f"select cast(({expression}) as char)")
        rewritten = await acme.rows(f"select cast(({expression}) as char)")
        if [list(row) for row in raw] != rewritten:
            others.append((expression, raw, rewritten))
    assert others == []


AGGREGATES = (
    "select count(distinct sku, quantity), group_concat(sku order by sku desc separator '+'), sum(quantity), avg(quantity) from stock",
    "select quantity > 1, count(*) from stock group by quantity > 1 with rollup",
    "select sku, row_number() over (order by sku desc), lag(quantity) over (order by sku) from stock order by sku",
    "select s.sku from stock s straight_join stock t using (sku) order by 1",
    "select distinct quantity from stock where quantity > 0 order by quantity desc limit 1 offset 1",
    "with recursive n (i) as (select 1 union all select i + 1 from n where i < 4) select group_concat(i order by i) from n",
    "select sku from stock except select 'A' union all select 'Z' order by 1",
    "select sku from stock where (sku, quantity) in (select sku, quantity from stock where quantity = 2)",
    "select sku from stock where quantity >= all (select quantity from stock)",
    "select a.sku, b.sku from stock a left join stock b on b.sku > a.sku order by 1",
    "select a.sku from stock a natural join stock b order by 1",
)


async def test_a_query_means_the_same_when_it_was_rewritten(shop: Shop) -> None:
    acme = await shop.caller("acme")
    await shop.run("delete from stock where tenant = 'rival'")
    for sql in AGGREGATES:
        raw = await shop.run(sql)
        assert [[str(value) for value in row] for row in raw] == [
            [str(value) for value in row] for row in await acme.rows(sql)
        ], sql


async def test_changes_return_rows_and_take_what_a_query_finds(shop: Shop) -> None:
    acme = await shop.caller("acme")
    added = await acme.execute("insert into stock (sku, quantity) values (?, ?) returning sku, quantity", "C", 3)
    copied = await acme.execute("insert into stock (sku, quantity) select concat(sku, ?), quantity from stock", "-copy")
    gone = await acme.execute("delete from stock where sku like ? returning *", "%copy")
    line = await acme.execute("insert into line (id, sku) values (1, 'A')")

    assert (added.rows, copied.rows_affected) == ([["C", 3]], 3)
    assert sorted(row[0] for row in gone.rows or []) == ["A-copy", "B-copy", "C-copy"]
    assert line.rows_affected == 1
    assert await acme.rows("select sku from line") == [["A"]]


HOSTILE = (
    "select * from secret",
    "select * from {name}.secret",
    "select * from {name}.stock",
    "select * from {name}_pooled.erp_tenants",
    "select * from erp_tenants",
    "select tenant from stock",
    "select stock.tenant from stock",
    "select * from mysql.user",
    "select * from information_schema.views",
    "select * from performance_schema.threads",
    "select user()",
    "select @erp_tenant",
    "select @@hostname",
    "select :erp_tenant",
    "select * from stock where sku = :erp_p1",
    "select * from stock; select * from secret",
    "select /*! tenant */ from stock",
    "select /*M! tenant */ from stock",
    "select * from stock where sku = 'a\\\\' or tenant = 'rival'",
    "select * from stock where sku = 'a\\' or tenant = 'rival'",
    "with stock as (select * from secret) select * from stock",
    "with erp_cte_stock as (select 1) select * from erp_cte_stock",
    "select * from stock partition (p0)",
    "select * from stock for system_time all",
    "select * from stock for update",
    "select * from stock into outfile '/tmp/evil'",
    "select load_file('/etc/passwd')",
    "select get_lock('x', 1)",
    "select sleep(100)",
    "select * from stock procedure analyse()",
    "select * from json_table('[1]', '$[*]' columns (a int path '$')) t, secret",
    "set @erp_tenant = 'rival'",
    "set session sql_mode = ''",
    "set role admin",
    "set password = password('x')",
    "use {name}",
    "handler stock open",
    "lock tables stock read",
    "load data infile '/etc/passwd' into table stock",
    "call x()",
    "do sleep(1)",
    "prepare p from 'select 1'",
    "execute immediate 'select * from secret'",
    "begin not atomic select 1; end",
    "commit",
    "rollback",
    "start transaction",
    "show grants",
    "show create view stock",
    "explain select * from stock",
    "kill 1",
    "flush tables",
    "grant select on stock to public",
    "create user evil",
    "alter user current_user() identified by 'x'",
    "create table mine (a int)",
    "create temporary table stock (a int)",
    "create or replace view stock as select * from {name}.stock",
    "alter view stock as select 1",
    "create trigger t before insert on stock for each row set new.tenant = 'rival'",
    "drop view stock",
    "truncate table stock",
    "rename table stock to mine",
    "optimize table stock",
    "insert into stock (tenant, sku) values ('rival', 'stolen')",
    "insert into stock (TENANT, sku) values ('rival', 'stolen')",
    "insert into stock (`tenant`, sku) values ('rival', 'stolen')",
    "insert into stock values ('A9', 1, 'x', 'rival')",
    "insert into stock (sku) values ('A9', 'rival')",
    "insert into stock set sku = 'A9', tenant = 'rival'",
    "insert into stock (sku) values ('A') on duplicate key update tenant = 'rival'",
    "insert into stock (sku) values ('A9') on duplicate key update sku = (select body from secret)",
    "insert into stock (sku) select body from secret",
    "replace into stock (sku) values ('A')",
    "update stock set tenant = 'rival'",
    "update stock set `Tenant` = 'rival'",
    "update stock s set s.tenant = 'rival'",
    "update stock, secret set quantity = 0",
    "update stock set quantity = 0 where tenant = 'rival'",
    "delete from stock where tenant = 'rival'",
    "delete stock, secret from stock, secret",
    "delete from secret",
    "delete from erp_tenants",
    "insert into currency values ('XXX')",
    "update currency set code = 'XXX'",
    "delete from currency",
    "insert into line (id, sku) values (1, 'not-mine')",
)  # fmt: skip


async def test_a_hostile_tenant_is_refused_and_nothing_changes(shop: Shop) -> None:
    codes = {
        "invalid_argument",
        "permission_denied",
        "failed_precondition",
        "not_found",
        "already_exists",
        "unsupported",
    }
    acme, rival = await shop.caller("acme"), await shop.caller("rival")
    before = await shop.run(STOCK)
    for template in HOSTILE:
        sql = template.replace("{name}", shop.name)
        for work in (acme.execute(sql), acme.query(sql), acme.batch("update stock set quantity = 9", sql)):
            error = await refusal(work)
            assert error.code in codes, (sql, error)
            assert "rival one" not in repr(error), sql
        assert await shop.run(STOCK) == before, sql
    assert await rival.rows("select * from stock") == [["A", 100, "rival one"]]
    assert await acme.rows("select sku from stock order by sku") == [["A"], ["B"]]
    assert await shop.run("select * from secret") == [("of the operator",)]


ASKED_DIRECTLY = (
    "select * from {name}.stock",
    "select * from {name}.secret",
    "select * from {name}_pooled.erp_tenants",
    "insert into stock (tenant, sku) values ('rival', 'stolen')",
    "insert into stock (tenant, sku) values ('acme', 'mine'), ('rival', 'stolen')",
    "insert into stock (sku, tenant) select 'stolen', 'rival'",
    "update stock set tenant = 'rival'",
    "update stock set tenant = 'rival' where sku = 'A'",
    "insert into {name}_pooled.erp_tenants values ('x', 'rival')",
    "update {name}_pooled.erp_tenants set tenant = 'rival'",
    "create or replace view stock as select * from {name}.stock",
    "create table mine (a int)",
    "create temporary table mine (a int)",
    "drop view stock",
    "alter table stock add column x int",
    "truncate table stock",
    "show create view stock",
    "lock tables stock write",
    "insert into currency values ('XXX')",
    "delete from currency",
    "load data infile '/etc/passwd' into table stock (note)",
    "select * from stock into outfile '/tmp/evil'",
    "grant select on stock to current_user()",
    "create function f() returns int return 1",
    "set global general_log = 1",
    "select * from mysql.user",
    "explain select * from stock",
    "set role erp",
)


async def test_the_server_keeps_tenants_apart_whatever_statement_comes(shop: Shop) -> None:
    """The second barrier alone: statements of the tenant's login that nothing has rewritten or judged."""
    await shop.caller("acme")
    before = await shop.run(STOCK)
    reading, writing = shop.logins("acme")
    for login in (reading, writing):
        connection = await login.connect(read_only=False)
        cursor = connection.cursor()
        for template in ASKED_DIRECTLY:
            with pytest.raises(
                Exception, match=r"(?i)denied|CHECK OPTION|doesn't exist|Invalid role|lacking privileges"
            ):
                await cursor.execute(template.replace("{name}", shop.name))
        for quiet in (
            "update stock set quantity = 0 where tenant = 'rival'",
            "delete from stock where tenant <> 'acme'",
        ):
            if login is writing:
                assert await cursor.execute(quiet) == 0
            else:
                with pytest.raises(Exception, match="denied"):
                    await cursor.execute(quiet)
        await cursor.execute("set @erp_tenant = 'rival', @tenant = 'rival'")
        await cursor.execute("select tenant, sku from stock union select tenant, sku from stock order by 2")
        assert list(await cursor.fetchall()) == [("acme", "A"), ("acme", "B")]
        connection.close()
    assert await shop.run(STOCK) == before


async def test_the_rewriting_keeps_tenants_apart_where_the_views_do_not(shop: Shop) -> None:
    """The first barrier alone: the views show and take every tenant's rows."""
    acme, rival = await shop.caller("acme"), await shop.caller("rival")
    for table in ("stock", "line"):
        await shop.run(f"create or replace view {shop.name}_pooled.{table} as select * from {shop.name}.{table}")
    assert await acme.rows("select sku, quantity from stock where 1 or 1 order by sku") == [["A", 1], ["B", 2]]
    assert await acme.rows("select count(*) from stock a, (select * from stock union all select * from stock) b") == [
        [8]
    ]
    assert (await acme.execute("update stock set quantity = 0 where 1 or 1")).rows_affected == 2
    assert (
        await acme.execute("insert into stock (sku, quantity) values ('A', 5) on duplicate key update quantity = 5")
    ).rows_affected
    assert (await acme.execute("insert into stock (sku) select concat(sku, '2') from stock")).rows_affected == 2
    assert (await acme.execute("delete from stock where sku like 'A%' or 1")).rows_affected == 4
    assert await rival.rows("select * from stock") == [["A", 100, "rival one"]]
    assert await shop.run(STOCK) == [("rival", "A", 100, "rival one")]


async def test_the_login_for_queries_cannot_write(shop: Shop) -> None:
    await shop.caller("acme")
    connection = await shop.logins("acme")[0].connect(read_only=False)
    with pytest.raises(Exception, match="denied"):
        await connection.cursor().execute("update stock set quantity = 0")
    connection.close()


@pytest.mark.parametrize(
    "condition", ["exp(quantity * 10) > 0", "exp(quantity * 10) > 0 or note = 'x'", "json_extract(note, '$') is null"]
)
async def test_no_expression_is_evaluated_on_another_tenants_row(shop: Shop, condition: str) -> None:
    """``exp(1000)`` is an error, as would be JSON that is none; one tenant has nearly all rows, so that a scan is tempting."""
    acme = await shop.caller("acme")
    await shop.run(
        "insert into stock select 'acme', concat('n', seq), 1, null from seq_1_to_2000", "delete from stock where note like 'acme%'",
        "analyze table stock",
    )  # fmt: skip
    assert (await acme.rows(f"select count(*) from stock where {condition}"))[0][0] > 1000
    ordered = f"select sku from stock where {condition} order by quantity desc, sku limit 1"
    assert len(await acme.rows(ordered)) == 1
    assert (await acme.execute(f"update stock set note = null where {condition}")).rows_affected > 1000
    assert (await acme.execute(f"delete from stock where {condition}")).rows_affected > 1000


async def test_tenants_use_the_same_keys_without_meeting(shop: Shop) -> None:
    acme, rival = await shop.caller("acme"), await shop.caller("rival")
    for caller, quantity in ((acme, 1), (rival, 2)):
        await caller.execute("insert into stock (sku, quantity) values ('same', ?)", quantity)
    assert await acme.rows("select quantity from stock where sku = 'same'") == [[1]]
    assert (await refusal(acme.execute("insert into stock (sku) values ('same')"))).code == "already_exists"


async def test_transactions_streams_and_batches_are_the_tenants_too(shop: Shop) -> None:
    acme = await shop.caller("acme")
    transaction = await acme.begin()
    await acme.execute("insert into stock (sku) values ('C')", transaction=transaction)
    await acme.savepoint(transaction, "s")
    assert (await acme.execute("delete from stock", transaction=transaction)).rows_affected == 3
    await acme.rollback(transaction, savepoint="s")
    assert await acme.rows("select count(*) from stock", transaction=transaction) == [[3]]
    await acme.commit(transaction)
    stream = acme.database.stream(api.StreamRequest(sql="select sku from stock order by sku"), acme.context)
    assert [row for item in [item async for item in stream] if item.rows for row in item.rows] == [["A"], ["B"], ["C"]]
    assert await acme.batch("update stock set quantity = 0", "delete from stock where sku = 'C'") == [3, 1]
    assert (await shop.run(STOCK))[-1] == ("rival", "A", 100, "rival one")


async def test_metadata_shows_the_tenants_shape_and_counts_nobodys_rows(shop: Shop) -> None:
    acme = await shop.caller("acme")
    result = await acme.database.metadata(api.MetadataRequest(), acme.context)
    tables = {table.name: table for table in result.tables}

    assert list(tables) == ["currency", "line", "stock"]
    assert [column.name for column in tables["stock"].columns] == ["sku", "quantity", "note"]
    assert (tables["stock"].primary_key, tables["stock"].indexes[0].columns) == (["sku"], ["quantity"])
    assert [(key.columns, key.references) for key in tables["line"].foreign_keys] == [(["sku"], ["sku"])]
    assert all(not isinstance(table.row_estimate, int) for table in result.tables)
    missing = acme.database.metadata(api.MetadataRequest(table="secret"), acme.context)
    assert (await refusal(missing)).code == "not_found"


async def test_a_pool_may_be_narrowed_to_some_tables_and_never_widened(shop: Shop) -> None:
    acme = await shop.caller("acme", tables=["stock", "secret"])
    assert await acme.rows("select count(*) from stock") == [[2]]
    for table in ("currency", "secret"):
        assert (await refusal(acme.rows(f"select * from {table}"))).code == "invalid_argument"
    assert [table.name for table in (await acme.database.metadata(api.MetadataRequest(), acme.context)).tables] == [
        "stock"
    ]


DAMAGES = [
    ("create or replace view {pool}.stock as select * from {name}.stock where 1 = 1", "shows other rows"),
    ("alter sql security invoker view {pool}.stock as select * from {name}.stock", "is no view of"),
    ("create view {pool}.secret as select body, 1 as more from {name}.secret", "is no view of"),
    ("create table {pool}.mine (a int)", "is no view of"),
    ("drop table {pool}.erp_tenants", "there is no table"),
    ("create index bad on stock (quantity)", "the index bad does not begin with tenant"),
    ("create unique index bad on stock (sku, tenant)", "the index bad does not begin with tenant"),
    (
        "alter table stock modify tenant varchar(63) collate utf8mb4_general_ci not null",
        "names of tenants could be equal",
    ),
]


@pytest.mark.parametrize(("damage", "problem"), DAMAGES, ids=range(len(DAMAGES)))
async def test_nothing_is_opened_where_tenants_could_meet(shop: Shop, damage: str, problem: str) -> None:
    await shop.run("alter table line drop foreign key of_stock")  # it would forbid some of the damages
    await shop.run(damage.replace("{pool}", f"{shop.name}_pooled").replace("{name}", shop.name))
    error = await refusal(shop.caller("acme"))
    assert error.code == "failed_precondition"
    assert problem in error.message
    checked = await shop.isolate("--check")
    assert (checked.exit_code, problem in checked.output) == (1, True)


async def test_a_foreign_key_across_tenants_is_found(shop: Shop) -> None:
    await shop.run(
        "create table part (tenant varchar(63) collate utf8mb4_bin not null, id int not null, sku varchar(20), stock_tenant"
        " varchar(63) collate utf8mb4_bin, primary key (tenant, id), key k (tenant, stock_tenant, sku),"
        " foreign key x (stock_tenant, sku) references stock (tenant, sku))"
    )  # fmt: skip
    done = await shop.isolate("part", "--apply", "--check")
    assert done.exit_code == 1
    assert "has no tenant: it reaches other tenants' rows" in done.output


async def test_a_login_that_may_more_is_not_used(shop: Shop) -> None:
    await shop.caller("acme")
    login = shop.logins("acme")[0]
    await shop.run(f"grant select on {shop.name}.secret to '{login.user}'@'%'")
    error = await refusal(shop.caller("acme"))
    assert (error.code, "has other rights than on its views" in error.message) == ("failed_precondition", True)


async def test_a_login_of_another_tenant_is_not_used(shop: Shop) -> None:
    await shop.caller("acme")
    await shop.run(f"update {shop.name}_pooled.erp_tenants set tenant = 'rival' where login like '%_r'")
    error = await refusal(shop.caller("acme"))
    assert (error.code, "under another name" in error.message) == ("failed_precondition", True)


async def test_rights_follow_the_views(shop: Shop) -> None:
    await shop.caller("acme")
    await shop.run(f"drop view {shop.name}_pooled.currency")
    assert (await shop.isolate("currency", "--column", "code", "--check")).exit_code == 0
    acme = await shop.caller("acme")
    assert (await refusal(acme.rows("select * from currency"))).code == "invalid_argument"
    assert (await shop.isolate("--shared", "currency", "--apply", "--check")).exit_code == 0
    acme = await shop.caller("acme")
    assert await acme.rows("select count(*) from currency") == [[2]]


async def test_a_user_that_may_not_make_logins_is_told_so(shop: Shop) -> None:
    await shop.run(f"revoke create user on *.* from '{shop.role}'@'%'")
    error = await refusal(shop.caller("acme"))
    assert (error.code, "may not make logins" in error.message) == ("failed_precondition", True)


async def test_the_layers_own_user_reads_no_rows_of_the_tables(shop: Shop) -> None:
    connection = await Endpoint.of(shop.settings).connect(read_only=True)
    with pytest.raises(Exception, match="denied"):
        await connection.cursor().execute(f"select * from {shop.name}.stock")
    connection.close()


async def test_twenty_first_calls_of_a_tenant_at_once_make_its_logins_once(shop: Shop) -> None:
    callers = await asyncio.gather(*(shop.caller("acme", readers=1, writers=1) for _ in range(20)))
    answers = await asyncio.gather(*(caller.rows("select count(*) from stock") for caller in callers))
    assert answers == [[[2]]] * 20
    assert await shop.run(f"select count(*) from {shop.name}_pooled.erp_tenants") == [(2,)]


async def test_statements_are_printed_for_the_operator_to_read(bare: Shop) -> None:
    printed = (await bare.isolate("stock", "--shared", "currency")).output
    assert printed.splitlines()[4] == (
        f"CREATE OR REPLACE SQL SECURITY DEFINER VIEW `{bare.name}_pooled`.`stock` AS SELECT * FROM `{bare.name}`.`stock`"
        f" WHERE `tenant` = (SELECT tenant FROM `{bare.name}_pooled`.erp_tenants WHERE login = substring_index(user(), '@', 1))"
        " WITH CASCADED CHECK OPTION;"
    )
    assert await bare.run(f"show databases like '{bare.name}_pooled'") == []
    assert (await bare.isolate("elsewhere.stock")).exit_code == 2
    assert (await bare.isolate("nothing", "--apply")).exit_code == 1
