"""What a change may be, and what it may leave behind. No server is needed."""

from __future__ import annotations

import pytest

from erp.errors import ProviderError
from erp.providers.db.postgres.statements import Statements, place_of
from erp.providers.db.postgres.tenant_schema import ITERATIONS, verifier


@pytest.mark.parametrize(
    ("sql", "returns", "needs_reset"),
    [
        ("insert into stock (sku, quantity) values (?, lower(?))", False, False),
        ('INSERT INTO "public"."Stock" (sku) VALUES (?) ON CONFLICT (sku) DO UPDATE SET (a, b) = (1, 2)', False, False),
        ("update stock set quantity = quantity - ? where sku in (?, ?) returning quantity", True, False),
        ("delete from stock using other where (stock.a = other.a)", False, False),
        ("update stock set quantity = own_function(quantity)", False, True),
        ("select pg_advisory_lock(1)", True, True),
        ("with x as (delete from stock returning *) select * from x", True, True),
        ("create table stock (sku varchar(20))", False, True),
        ("insert into stock select set_config('a.b', 'c', false)", False, True),
    ],
)
def test_a_change_tells_what_it_may_leave_behind(sql: str, returns: bool, needs_reset: bool) -> None:
    change = Statements(["public"]).change(sql)

    assert (change.returns, change.needs_reset) == (returns, needs_reset)


@pytest.mark.parametrize(
    "sql",
    [
        "", "-- nothing", "(select 1)", "begin", "commit", "end", "set a = 1", "reset all", "copy t to stdout", "call f()",
        "do $$ $$", "listen a", "notify a", "vacuum", "lock t", "prepare p as select 1", "explain delete from t", "load 'x'",
        "create temp table t (a int)", "create local temporary table t (a int)", "create or replace temp view v as select 1",
        '"delete" from t', "select $1", "discard all", "checkpoint", "cluster t", "declare c cursor for select 1",
    ],
)  # fmt: skip
def test_what_would_outlive_the_call_is_no_change(sql: str) -> None:
    with pytest.raises(ProviderError) as refused:
        Statements(["public"]).change(sql)

    assert refused.value.code == "invalid_argument"
    assert refused.value.errors[0].pointer == "/params/sql"


def test_a_name_without_a_schema_is_in_the_first_one() -> None:
    assert place_of("stock", "sales") == ("sales", "stock")
    assert place_of("other.stock", "sales") == ("other", "stock")


def test_the_server_is_given_a_verifier_that_does_not_hold_the_password() -> None:
    first, second = verifier("secret"), verifier("secret")

    assert first.startswith(f"SCRAM-SHA-256${ITERATIONS}:")
    assert "secret" not in first
    assert first != second
