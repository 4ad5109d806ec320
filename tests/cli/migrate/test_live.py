"""From each embedded provider to every engine of its domain whose server is there."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest
from tests.cli.migrate import test_bus, test_db, test_storage
from tests.cli.migrate.conftest import MakePlace, Place
from tests.cli.migrate.test_cutover import through, until_shadowed
from tests.conformance.live import LIVE, PRESENT

from erp.runtime.catalog import ProviderCatalog

pytestmark = pytest.mark.live
EMBEDDED = {"bus": "bus/log", "cache": "cache/memory", "db": "db/sqlite", "storage": "storage/filesystem"}


OTHERS = [
    ref
    for ref, one in ProviderCatalog.load().providers.items()
    if one.embedded and not one.conformance.get("server") and ref not in EMBEDDED.values()
]
"""Further embedded providers; they need no server."""


def engines(domain: str) -> list[str]:
    return [ref for ref in [*PRESENT, *OTHERS] if ref.startswith(f"{domain}/")]


def moved(place: MakePlace, ref: str) -> Place:
    config = LIVE[ref].config(PRESENT[ref]) if ref in PRESENT else {}
    return place(EMBEDDED[ref.partition("/")[0]], ref, config)


@pytest.mark.parametrize("ref", [ref for ref in LIVE if ref.partition("/")[0] in EMBEDDED])
def test_the_server_is_there(ref: str) -> None:
    if ref not in PRESENT:
        pytest.skip(f"migration to {ref} needs {LIVE[ref].VARIABLE}")


@pytest.mark.parametrize("ref", engines("storage"))
def test_objects_move_to_an_engine_and_back_unchanged(place: MakePlace, ref: str) -> None:
    there = moved(place, ref)
    test_storage.fill(there, 20)
    large = bytes(range(256)) * 40_000
    test_storage.put(there, "large ✓/with spaces", large, metadata={"owner": "anna"})

    report = there.migrate()

    assert (report["state"], report["units"]["objects"]["copied"]) == ("equal", 21)
    head = there.call("target", "head", {"key": "large ✓/with spaces"})
    assert (head["size"], head["metadata"]) == (len(large), {"owner": "anna"})


def fresh(name: str) -> str:
    """A table name that no other run has left on the server."""
    return f"{name}_{time.time_ns()}"


@pytest.mark.parametrize("ref", engines("db"))
def test_tables_move_to_an_engine_with_types_keys_and_every_value(place: MakePlace, ref: str) -> None:
    there = moved(place, ref)
    parent, child = fresh("customers"), fresh("lines")
    for statement in test_db.SCHEMA.replace("customers", parent).replace("lines", child).split(";"):
        if "notes" not in statement and "VIEW" not in statement:
            there.call("source", "execute", {"sql": statement})
    row = f"INSERT INTO {parent} VALUES (?, ?, ?, ?, ?)"
    line = f"INSERT INTO {child} VALUES (?, ?, ?, ?)"
    values: list[list[Any]] = [
        [number, f"Customer {number} ✓ \"'\n", number / 3, {"$bytes": "AAEC/w=="} if number % 2 else None, "2026-01-31"]
        for number in range(1, 701)
    ]
    statements = [{"sql": row, "parameters": one} for one in values]
    statements += [{"sql": line, "parameters": [n, 1, {"$decimal": f"{n}.25"}, n % 3 == 0]} for n in range(1, 301)]
    there.call("source", "execute_batch", {"statements": statements})

    report = there.migrate()

    assert report["state"] == "equal", report
    assert [report["units"][name]["copied"] for name in (parent, child)] == [700, 300]
    described = {one["name"]: one for one in there.call("target", "metadata", {"limit": 1000})["tables"]}
    assert [name.lower() for name in described[child]["primary_key"]] == ["customer", "number"]
    there.call("target", "execute", {"sql": f"UPDATE {parent} SET rating = 0 WHERE id = 7"})
    there.call("source", "execute", {"sql": f"DELETE FROM {child} WHERE customer = 3"})
    mended = there.migrate()
    assert (mended["state"], mended["units"][parent]["copied"]) == ("equal", 1)
    gone = f"SELECT count(*) FROM {child} WHERE customer = 3"
    assert there.call("target", "query", {"sql": gone})["rows"] == [[0]]


@pytest.mark.parametrize("ref", engines("bus"))
def test_events_move_to_an_engine_and_groups_go_on_there(place: MakePlace, ref: str) -> None:
    there = moved(place, ref)
    test_bus.publish(there, 0, 30)
    assert len(test_bus.received(there, "source", "done")) == 30

    replays = "replay" in there.client.get(f"/providers/{ref}").json()["capabilities"]
    groups = ["--group", "done"] if replays else []

    report = there.migrate("--topic", test_bus.TOPIC, *groups)

    assert (report["state"], report["units"][test_bus.TOPIC]["copied"]) == ("equal", 30)
    assert sorted(test_bus.received(there, "target", "anybody")) == sorted(test_bus.ids(0, 30))
    again = test_bus.received(there, "target", "done") if replays else []
    # Kafka's positions are those of its partitions: of what a group has confirmed, some comes once more.
    assert again == [] or (ref == "bus/kafka" and set(again) < set(test_bus.ids(0, 30)))


@pytest.mark.parametrize("ref", engines("cache"))
def test_a_cache_is_warmed_on_an_engine(place: MakePlace, ref: str) -> None:
    there = moved(place, ref)
    route = f"warm-{ref.partition('/')[2]}"
    with subprocess.Popen(
        there.command("--route", route, "--shadow", "4"), stdout=subprocess.PIPE, text=True
    ) as process:
        until_shadowed(there, "cache", route)
        through(there, route, "set", {"key": "price", "value": {"amount": "7.50"}})
        said, _ = process.communicate(timeout=60)

    assert json.loads(said)["state"] == "switched"
    answer = through(there, route, "get", {"key": "price"})
    assert (answer["data"]["value"], answer["meta"]["provider"]) == ({"amount": "7.50"}, ref)
