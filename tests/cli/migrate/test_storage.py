"""Objects move with their metadata, survive a kill, and none is taken for equal that is not."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cli.migrate.conftest import MakePlace, Place

MANY = 250


@pytest.fixture
def here(place: MakePlace) -> Place:
    return place("storage/filesystem")


def put(place: Place, key: str, content: bytes, side: str = "source", **facts: Any) -> None:
    place.call(side, "put", {"key": key, "content": base64.b64encode(content).decode(), **facts})


def listed(place: Place, side: str) -> list[Any]:
    found: list[Any] = []
    cursor: dict[str, Any] = {}
    while True:
        page = place.call(side, "list", {"limit": 1000, **cursor})
        found += page["objects"]
        if "next_cursor" not in page:
            return found
        cursor = {"cursor": page["next_cursor"]}


def contents(place: Place, side: str) -> dict[str, tuple[str, str, Any]]:
    heads = {one["key"]: place.call(side, "head", {"key": one["key"]}) for one in listed(place, side)}
    return {key: (head["sha256"], head["content_type"], head["metadata"]) for key, head in heads.items()}


def fill(place: Place, number: int) -> None:
    for index in range(number):
        put(
            place,
            f"folder/{index:05}.txt",
            f"content {index}".encode(),
            content_type="text/plain",
            metadata={"n": str(index)},
        )


def test_every_object_arrives_with_type_and_metadata_and_the_source_is_as_it_was(here: Place) -> None:
    fill(here, 30)
    put(here, "empty", b"")
    large = os.urandom(9 * 1024 * 1024)
    put(here, "large", large)
    before = listed(here, "source")

    report = here.migrate()

    assert (report["state"], report["passes"]) == ("equal", 2)
    assert (report["units"]["objects"]["compared"], report["units"]["objects"]["copied"]) == (32, 32)
    assert contents(here, "target") == contents(here, "source")
    assert contents(here, "target")["large"][0] == hashlib.sha256(large).hexdigest()
    assert listed(here, "source") == before


def test_a_dry_run_writes_nothing_and_says_how_much_there_is(here: Place) -> None:
    fill(here, 3)

    report = here.migrate("--dry-run")

    assert (report["state"], report["units"]) == ("dry_run", {"objects": {"to_copy": 3}})
    assert listed(here, "target") == []
    assert not (here.folder / "journal").exists()


def test_what_changed_and_what_was_deleted_meanwhile_is_mended_by_running_it_again(here: Place) -> None:
    fill(here, 10)
    here.migrate()
    put(here, "folder/00001.txt", b"other")
    here.call("source", "delete", {"key": "folder/00002.txt"})
    put(here, "new", b"new")

    report = here.migrate()

    assert report["units"]["objects"]["copied"] == 2
    assert contents(here, "target") == contents(here, "source")


def test_a_target_that_holds_something_is_refused_unless_it_may_be_overwritten(here: Place) -> None:
    fill(here, 2)
    put(here, "precious", b"mine", side="target")

    said = here.migrate(status=2)

    assert "holds something already" in said
    assert [one["key"] for one in listed(here, "target")] == ["precious"]
    assert here.migrate("--overwrite")["state"] == "equal"
    assert contents(here, "target") == contents(here, "source")


def progress(place: Place) -> int:
    journal = place.folder / "journal"
    if not journal.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=0) as file:
            found: int = file.execute("SELECT count(*) FROM seen").fetchone()[0]
            return found
    except sqlite3.OperationalError:
        return 0


def test_killed_in_the_middle_it_goes_on_where_it_was(here: Place) -> None:
    fill(here, MANY)
    process = subprocess.Popen(here.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 60
    while not (there := len(listed(here, "target"))) and time.monotonic() < ends:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    arrived = len(listed(here, "target"))
    assert 0 < there <= arrived < MANY

    report = here.migrate()

    assert report["state"] == "equal"
    assert report["units"]["objects"]["compared"] == MANY
    assert contents(here, "target") == contents(here, "source")


def test_a_second_run_at_the_same_time_is_refused(here: Place) -> None:
    fill(here, MANY // 2)
    with subprocess.Popen(here.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        ends = time.monotonic() + 60
        while not listed(here, "target") and time.monotonic() < ends:
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)  # it goes on holding its journal
        try:
            said = here.migrate(status=2)
        finally:
            process.send_signal(signal.SIGCONT)
        status = process.wait(60)

    assert "Another run may hold it" in said
    assert status == 0


def stored(place: Place, side: str) -> list[Path]:
    root = place.server.data_dir
    return [path for path in root.rglob("*") if path.is_file() and place.names[side] in str(path)]


def spoil(place: Place, side: str, content: bytes) -> None:
    """Change the bytes of an object behind the provider's back, as a failing disk does."""
    found = [path for path in stored(place, side) if content in path.read_bytes()]
    assert len(found) == 1, found
    found[0].write_bytes(found[0].read_bytes().replace(content, bytes(reversed(content))))


def test_a_damaged_object_of_the_source_is_found_and_not_copied(here: Place) -> None:
    put(here, "damaged", b"these bytes will rot")
    spoil(here, "source", b"these bytes will rot")

    said = here.migrate(status=2)

    assert "'damaged' is damaged at the source" in said
    assert listed(here, "target") == []


def test_an_object_that_differs_at_the_target_is_found_and_written_anew(here: Place) -> None:
    fill(here, 5)
    here.migrate()
    put(here, "folder/00003.txt", b"tampered", side="target")

    report = here.migrate()

    assert report["units"]["objects"]["copied"] == 1
    assert contents(here, "target") == contents(here, "source")


def test_the_same_journal_for_another_migration_is_refused(here: Place, place: MakePlace) -> None:
    fill(here, 1)
    here.migrate()
    other = place("storage/filesystem")

    said = other.migrate(status=2)

    assert "is about another migration" in said
