"""Nothing is opened where tenants could meet, and the command that makes it fit says what is wrong."""

from __future__ import annotations

import pytest
from tests.providers.db.mysql.conftest import Shop, refusal

from erp.providers.db.mysql.connecting import Endpoint

pytestmark = [pytest.mark.live, pytest.mark.anyio]


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
