"""Tenants that share tables never meet, whatever one of them tries: by statement, or with its own login."""

from __future__ import annotations

import pytest
from tests.providers.db.mysql.conftest import STOCK, Shop, refusal

pytestmark = [pytest.mark.live, pytest.mark.anyio]


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
