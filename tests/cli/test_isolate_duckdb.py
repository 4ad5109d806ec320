"""``erp db isolate --dialect duckdb`` lists shared tables in a file, and tells what would not keep tenants apart."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner, Result

from erp.cli import app
from erp.cli.db.servers import URL
from erp.cli.db.stranger import DUCKDB, met
from erp.providers.db.duckdb.provider import DuckdbDatabase
from erp.runtime.spi import OpenContext

FIT = "create table orders (org varchar, id integer, primary key (org, id))"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"{FIT}; create table loose (org varchar, id integer)")
    monkeypatch.setenv(URL, f"duckdb://{path}")
    return path


def isolate(*words: str) -> Result:
    return CliRunner().invoke(app, ["db", "isolate", "--dialect", "duckdb", "--column", "org", *words])


def listed(path: Path) -> list[tuple[str, str]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute("from erp_isolation order by 1").fetchall()


def test_statements_are_printed_and_nothing_is_done(shop: Path) -> None:
    printed = isolate("orders")
    assert printed.exit_code == 0
    assert printed.output.splitlines() == [
        "CREATE TABLE IF NOT EXISTS main.erp_isolation (table_name VARCHAR PRIMARY KEY, tenant_column VARCHAR NOT NULL);",
        "INSERT OR REPLACE INTO main.erp_isolation VALUES ('orders', 'org');",
    ]
    with pytest.raises(duckdb.CatalogException):
        listed(shop)


def test_a_table_that_keeps_tenants_apart_is_listed_and_passes_as_often_as_it_is_asked(shop: Path) -> None:
    for _ in range(2):
        done = isolate("orders", "--apply", "--check")
        assert (done.exit_code, done.output) == (0, "the listed tables keep tenants apart\n")
    assert listed(shop) == [("orders", "org")]
    assert isolate("--check").exit_code == 0


def test_every_table_that_would_not_keep_tenants_apart_is_named(shop: Path) -> None:
    done = isolate("loose", "missing", "orders", "--apply", "--check")
    assert done.exit_code == 1
    assert "'loose' has no primary key" in done.output
    assert "'missing' is not an ordinary table" in done.output
    assert "orders" not in done.output
    assert done.output.endswith("erp: nothing was changed\n")
    with pytest.raises(duckdb.CatalogException):
        listed(shop)


def test_an_unfit_table_leaves_the_list_as_it_was(shop: Path) -> None:
    assert isolate("orders", "--apply").exit_code == 0
    assert isolate("loose", "--apply").exit_code == 1
    assert listed(shop) == [("orders", "org")]


def test_a_file_without_a_list_does_not_pass(shop: Path) -> None:
    checked = isolate("--check")
    assert checked.exit_code == 1
    assert "'erp_isolation' the file has no such table" in checked.output
    with duckdb.connect(str(shop)) as connection:
        assert connection.execute("select count(*) from duckdb_tables()").fetchone() == (2,)


@pytest.mark.parametrize("url", ["", "postgresql://host/shop", "duckdb:///missing.duckdb", "duckdb://host/x"])
def test_a_file_that_is_not_there_is_not_made(shop: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(URL, url)
    done = isolate("orders", "--apply")
    assert done.exit_code == 1
    assert URL in done.output
    assert not Path("/missing.duckdb").exists()
    assert shop.is_file()


def test_rows_that_a_stranger_meets_are_counted_and_stay(shop: Path) -> None:
    """A provider that takes every tenant for acme stands for barriers that do not hold."""
    with duckdb.connect(str(shop)) as connection:
        connection.execute("insert into orders values ('acme', 1), ('acme', 2), ('globex', 1)")
    assert isolate("orders", "--apply", "--check").exit_code == 0

    def leaking(config: Any, context: OpenContext) -> DuckdbDatabase:
        return DuckdbDatabase(config, replace(context, tenant="acme"))

    assert asyncio.run(met(shop, ["orders"], DUCKDB, lambda _: leaking)) == [
        "a tenant without rows sees 2 rows of 'orders'",
        "a tenant without rows can change 2 rows of 'orders'",
    ]
    with duckdb.connect(str(shop), read_only=True) as connection:
        assert connection.execute("select count(*) from orders").fetchone() == (3,)


HOLDER = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


@pytest.mark.parametrize("words", [["orders", "--apply"], ["--check"]])
def test_a_file_that_another_process_has_is_left_as_it_is_and_served_afterwards(shop: Path, words: list[str]) -> None:
    command = [sys.executable, "-c", HOLDER, str(shop)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = isolate(*words)
        holder.communicate()
    why = "is held by another process; end what that does, and try again"
    assert (done.exit_code, done.output) == (1, f"erp: {shop} {why}; nothing was changed\n")
    assert isolate("orders", "--apply", "--check").exit_code == 0


def test_a_file_of_something_else_is_left_as_it_is(shop: Path) -> None:
    shop.write_bytes(b"no database" * 2000)
    done = isolate("orders", "--apply")
    assert done.exit_code == 1
    assert done.output.startswith(f"erp: {shop} is refused by DuckDB: ")
    assert shop.read_bytes() == b"no database" * 2000


@pytest.mark.parametrize(
    "words", [["sales.orders"], ["orders", "--shared", "currency"], ["orders", "--collection", "n:3"], []]
)
def test_what_duckdb_has_not_is_refused(shop: Path, words: list[str]) -> None:
    assert isolate(*words).exit_code == 2
    assert shop.is_file()


def test_a_database_of_mariadb_has_to_be_named() -> None:
    refused = CliRunner().invoke(app, ["db", "isolate", "orders", "--dialect", "mysql", "--role", "erp_app"])
    assert refused.exit_code == 2
    assert "--schema; mysql has no usual one" in refused.output


def test_other_engines_need_a_role() -> None:
    refused = CliRunner().invoke(app, ["db", "isolate", "orders"])
    assert (refused.exit_code, "--role" in refused.output) == (2, True)
