"""Events move with their ids and keys, none twice; groups receive at the target what they had not confirmed."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import Any

import pytest
from tests.cli.migrate.conftest import MakePlace, Place

TOPIC = "orders.changed"
MANY = 4000


@pytest.fixture
def here(place: MakePlace) -> Place:
    return place("bus/log")


def publish(place: Place, first: int, last: int, side: str = "source") -> None:
    events = [
        {
            "event": {"id": f"e-{number}", "source": "/tests", "type": "changed", "data": {"n": number}},
            "key": f"k-{number % 997}",
        }
        for number in range(first, last)
    ]
    for at in range(0, len(events), 1000):
        place.call(side, "publish_batch", {"topic": TOPIC, "events": events[at : at + 1000]})


def received(place: Place, side: str, group: str, most: int | None = None) -> list[str]:
    """Receive and confirm until nothing is left."""
    found: list[str] = []
    while most is None or len(found) < most:
        limit = 1000 if most is None else most - len(found)
        pulled = place.call(side, "pull", {"topic": TOPIC, "group": group, "max_events": limit})["deliveries"]
        if not pulled:
            break
        place.call(side, "ack", {"ack_ids": [one["ack_id"] for one in pulled]})
        found += [one["event"]["id"] for one in pulled]
    return found


def ids(first: int, last: int) -> list[str]:
    return [f"e-{number}" for number in range(first, last)]


def test_every_event_arrives_once_with_its_id(here: Place) -> None:
    publish(here, 0, 50)

    report = here.migrate("--topic", TOPIC)

    assert (report["state"], report["units"][TOPIC]["copied"]) == ("equal", 50)
    assert sorted(received(here, "target", "anybody")) == sorted(ids(0, 50))
    publish(here, 50, 60)
    assert here.migrate("--topic", TOPIC)["units"][TOPIC]["copied"] == 10
    assert sorted(received(here, "target", "anybody")) == sorted(ids(50, 60))


def test_a_group_receives_at_the_target_all_that_it_had_not_confirmed(here: Place) -> None:
    publish(here, 0, 20)
    assert len(received(here, "source", "done")) == 20
    time.sleep(1.1)  # the age of the oldest event that a group lacks is known to about a second
    publish(here, 20, 30)
    kept: Any = here.call("source", "pull", {"topic": TOPIC, "group": "busy", "max_events": 1})
    received(here, "source", "behind", most=20)

    here.migrate("--topic", TOPIC, "--group", "behind", "--group", "busy", "--group", "new")
    received(here, "source", "done")
    here.migrate("--topic", TOPIC, "--group", "done")

    assert set(received(here, "target", "behind")) >= set(ids(20, 30))
    assert kept["deliveries"][0]["event"]["id"] in received(here, "target", "busy")
    assert received(here, "target", "done") == []
    assert sorted(received(here, "target", "new")) == sorted(ids(0, 30))


def test_killed_in_the_middle_it_goes_on_and_publishes_nothing_twice(here: Place) -> None:
    publish(here, 0, MANY)
    process = subprocess.Popen(here.command("--topic", TOPIC), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lag = {"topic": TOPIC, "group": "watcher"}
    ends = time.monotonic() + 60
    while not (arrived := here.call("target", "lag", lag)["waiting"]) and time.monotonic() < ends:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < arrived < MANY

    report = here.migrate("--topic", TOPIC)

    assert (report["state"], report["units"][TOPIC]["compared"]) == ("equal", MANY)
    assert sorted(received(here, "target", "anybody")) == sorted(ids(0, MANY))


def test_topics_have_to_be_named(here: Place) -> None:
    assert "name each with --topic" in here.migrate(status=2)
