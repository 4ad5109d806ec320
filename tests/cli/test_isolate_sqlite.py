"""``erp db isolate --dialect sqlite`` lists shared tables in a file, all or none, and looks at it as a tenant does."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from typer.testing import CliRunner, Result

from erp.cli import app
from erp.cli.db import sqlite_file
from erp.cli.db.servers import URL
from erp.cli.db.stranger import SQLITE, met
from erp.providers.db.sqlite.provider import SqliteDatabase
from erp.runtime.spi import OpenContext

SCHEMA = """
create table orders (org text not null, id integer not null, total integer, primary key (org, id));
create table line (org text not null, id integer not null, order_id integer, primary key (org, id),
                   foreign key (org, order_id) references orders (org, id) on delete cascade);
create table loose (org text, id integer primary key);
insert into orders values ('acme', 1, 10), ('acme', 2, 20), ('globex', 1, 77);
insert into line values ('acme', 1, 1), ('globex', 1, 1);
"""
UNFIT = "erp: The file cannot be shared between tenants: "
BEGINS = "does not begin with 'org'"
AGAIN = "ON CONFLICT (table_name) DO UPDATE SET tenant_column = excluded.tenant_column"
NOTHING = "erp: nothing was changed\n"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shop & co%20.sqlite3"
    run(path, SCHEMA)
    monkeypatch.setenv(URL, f"sqlite://{path}".replace("%", "%25"))
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.2)
    return path


def run(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def isolate(*words: str) -> Result:
    return CliRunner().invoke(app, ["db", "isolate", "--dialect", "sqlite", "--column", "org", *words])


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def listed(path: Path) -> list[tuple[str, str]]:
    return rows(path, "select * from erp_isolation order by 1")


def test_statements_are_printed_and_nothing_is_done(shop: Path) -> None:
    before = shop.read_bytes()
    printed = isolate("orders")
    assert printed.exit_code == 0
    assert printed.output.splitlines() == [
        "CREATE TABLE IF NOT EXISTS main.erp_isolation (table_name TEXT PRIMARY KEY NOT NULL, tenant_column TEXT NOT NULL);",
        f"INSERT INTO main.erp_isolation (table_name, tenant_column) VALUES ('orders', 'org') {AGAIN};",
    ]
    assert shop.read_bytes() == before


def test_what_is_printed_does_what_is_applied(shop: Path) -> None:
    run(shop, isolate("orders", "line").output)
    assert listed(shop) == [("line", "org"), ("orders", "org")]
    checked = isolate("--check")
    assert (checked.exit_code, checked.output) == (0, "the listed tables keep tenants apart\n")


def test_tables_that_keep_tenants_apart_are_listed_and_pass_as_often_as_it_is_asked(shop: Path) -> None:
    for _ in range(2):
        done = isolate("orders", "main.line", "--apply", "--check")
        assert (done.exit_code, done.output) == (0, "the listed tables keep tenants apart\n")
    assert listed(shop) == [("line", "org"), ("orders", "org")]
    assert rows(shop, "select * from orders") == [("acme", 1, 10), ("acme", 2, 20), ("globex", 1, 77)]
    assert rows(shop, "select * from line") == [("acme", 1, 1), ("globex", 1, 1)]
    assert sorted(path.name for path in shop.parent.iterdir()) == [shop.name]


def test_a_list_from_before_is_widened_and_a_wrong_column_is_mended(shop: Path) -> None:
    run(shop, "create table erp_isolation (table_name text primary key, tenant_column text not null)")
    run(shop, "insert into erp_isolation values ('orders', 'total')")
    done = isolate("line", "orders", "--apply")
    assert (done.exit_code, done.output) == (0, "applied\n")
    assert listed(shop) == [("line", "org"), ("orders", "org")]


def test_every_table_that_would_not_keep_tenants_apart_is_named_with_the_remedy_and_none_is_listed(shop: Path) -> None:
    before = rows(shop, "select * from sqlite_master")
    done = isolate("loose", "missing", "orders", "--apply", "--check")
    assert done.exit_code == 1
    assert done.output == (
        f"{UNFIT}'loose' has no primary key that begins with 'org';"
        ' make it anew with primary key ("org", ...), for SQLite cannot change one.\n'
        f"{UNFIT}'missing' is not an ordinary table of this file, written as there;"
        " make it, or leave it off the list in erp_isolation.\n" + NOTHING
    )
    assert rows(shop, "select * from sqlite_master") == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            "create index by_total on orders (total)",
            f"'orders' has the index 'by_total', which {BEGINS}; drop it and make it on (\"org\", ...).",
        ),
        (
            "drop table orders; create table orders (org text, id integer, no text unique, primary key (org, id))",
            f"'orders' has the index 'sqlite_autoindex_orders_1', which {BEGINS}; make the table anew with (\"org\", ...).",
        ),
        (
            "create trigger t after insert on orders begin delete from line; end",
            "'orders' has a trigger, which would act beyond the tenant; drop trigger \"t\".",
        ),
        (
            "alter table orders rename column org to tenant",
            "'orders' has no column 'org'; list it with the column that names the tenant, or add that.",
        ),
    ],
)
def test_what_makes_a_table_unfit_is_said_with_its_remedy(shop: Path, change: str, why: str) -> None:
    run(shop, change)
    done = isolate("orders", "--apply")
    assert (done.exit_code, done.output) == (1, f"{UNFIT}{why}\n{NOTHING}")
    assert rows(shop, "select count(*) from sqlite_master where name = 'erp_isolation'") == [(0,)]


def test_a_foreign_key_needs_the_other_table_on_the_list(shop: Path) -> None:
    done = isolate("line", "--apply")
    why = "'line' has a foreign key that does not join the tenants' columns of shared tables"
    remedy = "list 'orders' too, and make the key contain both tenants' columns"
    assert (done.exit_code, done.output) == (1, f"{UNFIT}{why}; {remedy}.\n{NOTHING}")


def test_a_file_without_a_list_does_not_pass(shop: Path) -> None:
    before = shop.read_bytes()
    checked = isolate("--check")
    assert checked.exit_code == 1
    assert checked.output == (
        f"{UNFIT}'erp_isolation' the file has no such table with table_name and tenant_column of each shared table;"
        " erp db isolate --dialect sqlite makes it.\n"
    )
    assert shop.read_bytes() == before


def test_a_list_of_another_shape_is_left_as_it_is(shop: Path) -> None:
    run(shop, "create table erp_isolation (table_name text, tenant_column text)")
    done = isolate("orders", "--apply")
    assert done.exit_code == 1
    assert "is refused by SQLite: ON CONFLICT clause does not match" in done.output
    assert done.output.endswith("; nothing was changed\n")
    assert listed(shop) == []


# -- the file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "postgresql://host/shop", "sqlite://host/x"])
def test_an_address_that_names_no_file_is_refused_with_one_that_does(
    shop: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv(URL, url)
    done = isolate("orders", "--apply")
    wanted = f"erp: set {URL} to the shared file, such as sqlite:///srv/erp/models/db-sqlite/main.sqlite3\n"
    assert (done.exit_code, done.output) == (1, wanted)
    assert shop.is_file()


def test_a_file_that_is_not_there_is_not_made(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = shop.with_name("missing.sqlite3")
    monkeypatch.setenv(URL, f"sqlite://{quote(str(missing))}")
    done = isolate("orders", "--apply")
    wanted = f"erp: {URL} names {missing}, and there is no such file; make it with its tables first\n"
    assert (done.exit_code, done.output) == (1, wanted)
    assert not missing.exists()


def test_an_address_as_sqlalchemy_writes_it_names_the_same_file(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, f"sqlite:///{quote(str(shop))}")
    done = isolate("orders", "--apply")
    assert done.exit_code == 0, done.output
    assert "orders" in [name for name, *_ in listed(shop)]


def test_an_empty_file_stays_empty(shop: Path) -> None:
    shop.write_bytes(b"")
    assert isolate("orders", "--apply", "--check").exit_code == 1
    assert shop.read_bytes() == b""


def not_sqlite(path: Path) -> None:
    path.write_bytes(b"a,b\n1,2\n" * 1000)


def read_only(path: Path) -> None:
    """Have SQLite take it for one of a later format, which it only reads (https://www.sqlite.org/fileformat2.html)."""
    content = bytearray(path.read_bytes())
    content[18] = 9
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (not_sqlite, "is no file of SQLite; name one that is"),
        (
            read_only,
            "cannot be written; tenants could not write it either: let its owner run this, on a disk that can be written",
        ),
    ],
)
@pytest.mark.parametrize("words", [["orders", "--apply"], ["--check"]])
def test_a_file_that_cannot_be_used_is_left_as_it_is(
    shop: Path, spoil: Callable[[Path], None], why: str, words: list[str]
) -> None:
    spoil(shop)
    before = shop.read_bytes()
    done = isolate(*words)
    assert (done.exit_code, done.output) == (1, f"erp: {shop} {why}; nothing was changed\n")
    assert shop.read_bytes() == before


@pytest.mark.parametrize("words", [["orders", "--apply"], ["--check"]])
def test_a_file_that_another_has_locked_is_left_as_it_is_and_served_afterwards(shop: Path, words: list[str]) -> None:
    with closing(sqlite3.connect(shop, isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        done = isolate(*words)
        holder.execute("rollback")
    why = "is held by another process; end what that does, and try again"
    assert (done.exit_code, done.output) == (1, f"erp: {shop} {why}; nothing was changed\n")
    assert isolate("orders", "line", "--apply", "--check").exit_code == 0


def test_it_works_while_the_layer_has_the_file_open(shop: Path, open_context: OpenContext) -> None:
    assert isolate("orders", "--apply").exit_code == 0
    link = open_context.shared_dir / "db-sqlite" / "main.sqlite3"
    link.parent.mkdir()
    link.symlink_to(shop)

    async def while_open() -> Result:
        database = SqliteDatabase({"mode": "pooled", "file": "main"}, open_context)
        await database.open()
        try:
            return await asyncio.to_thread(isolate, "orders", "line", "--apply", "--check")
        finally:
            await database.close()

    done = asyncio.run(while_open())
    assert (done.exit_code, done.output) == (0, "the listed tables keep tenants apart\n")
    assert listed(shop) == [("line", "org"), ("orders", "org")]


# -- as a tenant sees it -----------------------------------------------------------------------------


def test_rows_that_a_stranger_meets_are_counted_and_stay(shop: Path) -> None:
    """A provider that takes every tenant for acme stands for barriers that do not hold."""
    assert isolate("orders", "line", "--apply").exit_code == 0

    def leaking(config: Any, context: OpenContext) -> SqliteDatabase:
        return SqliteDatabase(config, replace(context, tenant="acme"))

    assert asyncio.run(met(shop, ["line", "orders"], SQLITE, lambda _: leaking)) == [
        "a tenant without rows sees 1 rows of 'line'",
        "a tenant without rows can change 1 rows of 'line'",
        "a tenant without rows sees 2 rows of 'orders'",
        "a tenant without rows can change 2 rows of 'orders'",
    ]
    assert rows(shop, "select count(*) from orders") == [(3,)]
    assert rows(shop, "select count(*) from line") == [(2,)]
    assert asyncio.run(met(shop, ["line", "orders"], SQLITE)) == []


def test_names_are_names_whatever_is_in_them(shop: Path) -> None:
    run(shop, """create table "it's; a ""Table" (org text not null, id text, primary key (org, id))""")
    done = isolate("""it's; a "Table""", "--apply", "--check")
    assert (done.exit_code, done.output) == (0, "the listed tables keep tenants apart\n")
    assert listed(shop) == [("""it's; a "Table""", "org")]


def test_an_index_by_which_tenants_cannot_be_found_does_not_pass(shop: Path) -> None:
    run(shop, "create table tag (org text not null, id integer not null, primary key (org collate nocase, id))")
    assert isolate("tag", "--apply").exit_code == 0
    checked = isolate("--check")
    assert checked.exit_code == 1
    assert checked.output == (
        "erp: tenants cannot use 'tag': The statement would visit rows of other tenants to find its own."
        " Write it more plainly."
        " (has an index of it another collation for the tenant's column? then make it with the column's)\n"
    )


def test_a_table_to_which_one_that_is_not_listed_refers_does_not_pass(shop: Path) -> None:
    assert isolate("orders", "--apply").exit_code == 0
    checked = isolate("--check")
    assert checked.exit_code == 1
    assert checked.output == (
        "erp: tenants cannot use 'orders': The statement does what is not allowed here: query only reads,"
        " execute changes only its own database."
        " (has a table that is not listed a foreign key to it? then list that too)\n"
    )
    assert rows(shop, "select count(*) from orders") == [(3,)]


@pytest.mark.parametrize(
    "words", [["sales.orders"], ["orders", "--shared", "currency"], ["orders", "--collection", "n:3"], []]
)
def test_what_files_have_not_is_refused(shop: Path, words: list[str]) -> None:
    before = shop.read_bytes()
    assert isolate(*words).exit_code == 2
    assert shop.read_bytes() == before
