"""The route leads to the source, to both, then to the target: never anywhere else, and never too early."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from typing import Any

import pytest
from tests.cli.migrate.conftest import MakePlace, Place


@pytest.fixture
def cache(place: MakePlace) -> Place:
    return place("cache/memory")


@pytest.fixture
def storage(place: MakePlace) -> Place:
    return place("storage/filesystem")


def through(place: Place, route: str, action: str, params: dict[str, Any]) -> Any:
    domain = place.refs["source"].partition("/")[0]
    answer = place.client.post(f"/providers/{domain}/{route}/{action}", json={"params": params})
    assert answer.status_code == 200, answer.text
    return answer.json()


def led_to(place: Place, domain: str, route: str) -> list[str]:
    found = place.route(domain, route).json()
    return [one["connection"] for one in found["targets"]]


def test_a_cache_is_warmed_by_what_is_written_meanwhile_and_then_switched(cache: Place) -> None:
    options = ("--route", "warm-cache", "--shadow", "4")
    with subprocess.Popen(cache.command(*options), stdout=subprocess.PIPE, text=True) as process:
        until_shadowed(cache, "cache", "warm-cache")
        through(cache, "warm-cache", "set", {"key": "price", "value": 7, "ttl_seconds": 600})
        through(cache, "warm-cache", "get", {"key": "price"})
        said, _ = process.communicate(timeout=60)

    assert (process.returncode, json.loads(said)["state"]) == (0, "switched")
    assert json.loads(said)["shadow"]["compared"] == 2
    assert led_to(cache, "cache", "warm-cache") == [cache.names["target"]]
    answer = through(cache, "warm-cache", "get", {"key": "price"})
    assert (answer["data"]["value"], answer["meta"]["connection"]) == (7, cache.names["target"])


def test_a_cache_without_a_shadow_is_refused_with_the_reason(cache: Place) -> None:
    assert "does not list its keys" in cache.migrate(status=2)


def test_storage_is_switched_while_it_is_written_to_and_no_object_is_lost(storage: Place) -> None:
    body = {"kind": "single", "targets": [{"provider": "filesystem", "connection": storage.names["source"]}]}
    assert storage.client.put("/routes/storage/files-main", json=body).status_code == 200
    written: list[str] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            key = f"key-{len(written)}"
            through(storage, "files-main", "put", {"key": key, "content": "SGVsbG8="})
            written.append(key)
            time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        ended = subprocess.run(
            storage.command("--route", "files-main", "--shadow", "2", "--passes", "20"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        stop.set()
        writer.join()

    state = json.loads(ended.stdout)["state"]
    there = {one["key"] for one in storage.call("target", "list", {"limit": 1000})["objects"]}
    assert (ended.returncode, state) in {(0, "switched"), (1, "different"), (1, "late_writes")}, ended.stderr
    assert led_to(storage, "storage", "files-main") == [storage.names["source" if state == "different" else "target"]]
    assert state != "switched" or there == set(written)


def test_a_route_that_leads_elsewhere_is_refused_and_left_alone(storage: Place, place: MakePlace) -> None:
    other = place("storage/filesystem")
    body = {"kind": "single", "targets": [{"provider": "filesystem", "connection": other.names["source"]}]}
    assert storage.client.put("/routes/storage/files-other", json=body).status_code == 200

    said = storage.migrate("--route", "files-other", status=2)

    assert "does not lead to" in said
    assert led_to(storage, "storage", "files-other") == [other.names["source"]]


def until_shadowed(place: Place, domain: str, route: str) -> None:
    ends = time.monotonic() + 30
    while place.route(domain, route).json().get("kind") != "shadow":
        assert time.monotonic() < ends, "the route never became a shadow"
        time.sleep(0.05)


def test_differing_answers_put_the_route_back_to_where_it_was(storage: Place) -> None:
    storage.call("source", "put", {"key": "same", "content": "SGVsbG8="})
    command = storage.command("--route", "files-kept", "--shadow", "4")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        until_shadowed(storage, "storage", "files-kept")
        storage.call("target", "put", {"key": "same", "content": "b3RoZXI="})
        through(storage, "files-kept", "get", {"key": "same"})
        said, _ = process.communicate(timeout=60)

    assert (process.returncode, json.loads(said)["state"]) == (1, "different")
    assert json.loads(said)["shadow"]["different"] == 1
    assert storage.route("storage", "files-kept").json()["kind"] == "single"
    assert led_to(storage, "storage", "files-kept") == [storage.names["source"]]


def test_a_run_that_was_switched_already_says_so(storage: Place) -> None:
    storage.call("source", "put", {"key": "one", "content": ""})
    assert storage.migrate("--route", "files-again")["state"] == "switched"

    assert storage.migrate("--route", "files-again")["state"] == "switched"
    assert led_to(storage, "storage", "files-again") == [storage.names["target"]]
