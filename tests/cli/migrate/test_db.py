"""Tables move with their keys, types, indexes and foreign keys; rows are compared one by one."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import Any

import pytest
from tests.cli.migrate.conftest import MakePlace, Place

ROWS = 3000
SCHEMA = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, rating REAL, photo BLOB, joined DATE DEFAULT CURRENT_DATE);
CREATE UNIQUE INDEX customers_name ON customers (name);
CREATE TABLE lines (
    customer INTEGER NOT NULL REFERENCES customers (id), number INTEGER NOT NULL, amount DECIMAL(12, 2),
    paid BOOLEAN NOT NULL DEFAULT 0, PRIMARY KEY (customer, number)
);
CREATE TABLE notes (text TEXT);
CREATE VIEW paid_lines AS SELECT * FROM lines WHERE paid
"""


@pytest.fixture
def here(place: MakePlace) -> Place:
    made = place("db/sqlite")
    for statement in SCHEMA.split(";"):
        made.call("source", "execute", {"sql": statement})
    return made


def run(place: Place, side: str, sql: str, *parameters: Any) -> None:
    place.call(side, "execute", {"sql": sql, "parameters": list(parameters)})


def rows(place: Place, side: str, table: str) -> list[Any]:
    found: list[Any] = place.call(side, "query", {"sql": f"SELECT * FROM {table} ORDER BY 1, 2", "max_rows": 100_000})[
        "rows"
    ]
    return found


def fill(place: Place, number: int) -> None:
    row = "INSERT INTO customers (id, name, rating, photo, joined) VALUES (?, ?, ?, ?, '2026-01-31')"
    line = "INSERT INTO lines VALUES (?, ?, ?, ?)"
    statements = []
    for index in range(1, number + 1):
        photo = {"$bytes": "AAEC"} if index % 2 else None
        statements.append({"sql": row, "parameters": [index, f"Customer {index} ✓", index / 3, photo]})
        statements.append({"sql": line, "parameters": [index, 1, {"$decimal": f"{index}.25"}, index % 3 == 0]})
    for at in range(0, len(statements), 1000):
        place.call("source", "execute_batch", {"statements": statements[at : at + 1000]})


def test_every_row_arrives_and_the_source_is_as_it_was(here: Place) -> None:
    fill(here, 40)
    for text in ("twice", "twice", None):
        run(here, "source", "INSERT INTO notes VALUES (?)", text)
    before = [rows(here, "source", "customers"), rows(here, "source", "lines")]

    report = here.migrate()

    assert report["state"] == "equal"
    assert {name: one["copied"] for name, one in report["units"].items()} == {"customers": 40, "lines": 40, "notes": 3}
    assert [rows(here, "target", "customers"), rows(here, "target", "lines")] == before
    assert [rows(here, "source", "customers"), rows(here, "source", "lines")] == before
    texts = here.call("target", "query", {"sql": "SELECT text FROM notes"})["rows"]
    assert sorted(texts, key=str) == [["twice"], ["twice"], [None]]
    assert "view paid_lines" in report["not_carried_over"]


def test_keys_indexes_defaults_and_foreign_keys_are_made_at_the_target(here: Place) -> None:
    here.migrate()

    source = {one["name"]: one for one in here.call("source", "metadata", {})["tables"] if one["kind"] == "table"}
    target = {one["name"]: one for one in here.call("target", "metadata", {})["tables"]}
    assert target.keys() == source.keys()
    for name, one in source.items():
        assert target[name]["primary_key"] == one["primary_key"]
        assert target[name]["foreign_keys"] == one["foreign_keys"]
        assert [column["type"] for column in target[name]["columns"]] == [column["type"] for column in one["columns"]]
    run(here, "target", "INSERT INTO customers (name) VALUES ('first')")
    [[number, _, _, _, joined]] = rows(here, "target", "customers")
    assert (number, len(joined)) == (1, len("2026-11-28"))


def test_changed_missing_and_deleted_rows_are_mended_by_running_it_again(here: Place) -> None:
    fill(here, 20)
    here.migrate()
    run(here, "source", "UPDATE customers SET rating = 9.5 WHERE id = 3")
    run(here, "source", "DELETE FROM lines WHERE customer IN (4, 5)")
    run(here, "source", "DELETE FROM customers WHERE id IN (4, 5)")
    run(here, "target", "DELETE FROM lines WHERE customer = 7")
    run(here, "target", "UPDATE lines SET amount = 0 WHERE customer = 8")

    report = here.migrate()

    assert {name: one["copied"] for name, one in report["units"].items()} == {"customers": 1, "lines": 2, "notes": 0}
    for table in ("customers", "lines"):
        assert rows(here, "target", table) == rows(here, "source", table)


def test_killed_in_the_middle_it_goes_on_where_it_was(here: Place) -> None:
    fill(here, ROWS)
    process = subprocess.Popen(here.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    count = {"sql": "SELECT count(*) FROM sqlite_master WHERE name = 'customers'"}
    ends = time.monotonic() + 60
    while here.call("target", "query", count)["rows"] == [[0]] and time.monotonic() < ends:
        time.sleep(0.005)
    while not (arrived := here.call("target", "query", {"sql": "SELECT count(*) FROM customers"})["rows"][0][0]):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < arrived < ROWS

    report = here.migrate()

    assert report["state"] == "equal"
    assert {name: one["compared"] for name, one in report["units"].items()} == {
        "customers": ROWS,
        "lines": ROWS,
        "notes": 0,
    }
    for table in ("customers", "lines"):
        assert rows(here, "target", table) == rows(here, "source", table)


def test_a_table_at_the_target_without_a_column_is_refused_and_nothing_is_written(here: Place) -> None:
    fill(here, 1)
    run(here, "target", "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT)")

    said = here.migrate(status=2)

    assert "customers is at" in said
    assert "joined, photo, rating" in said
    assert here.call("target", "query", {"sql": "SELECT count(*) FROM customers"})["rows"] == [[0]]


def test_a_dry_run_counts_rows_and_makes_no_table(here: Place) -> None:
    fill(here, 7)

    report = here.migrate("--dry-run")

    assert report["units"] == {"customers": {"to_copy": 7}, "lines": {"to_copy": 7}, "notes": {"to_copy": 0}}
    assert here.call("target", "metadata", {})["tables"] == []
