"""Events: read from the beginning of each topic, published with their own ids, read back; groups put where they were."""

from __future__ import annotations

import datetime
import hashlib
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from erp.cli.migrate.passes import Advance, MigrationError, Tally
from erp.cli.migrate.side import Side, persevere

if TYPE_CHECKING:
    from erp.cli.migrate.journal import Journal

MOVER, SCOUT, READER = "erp-migrate", "erp-migrate-scout", "erp-migrate-reader"
"""Groups of the migration: the first two at the source, the last one at the target."""
EVENTS = 500
VISIBILITY_SECONDS = 20.0
"""How long what a killed run has taken stays taken."""
WAIT_SECONDS = 1.0
READ_BACK_SECONDS = 2 * VISIBILITY_SECONDS
"""How long the target may bring nothing before what is missing is lost; a killed run may hold some of it."""
BEGINNING = "1970-01-01T00:00:00Z"


class BusCopier:
    """Copies topics between two connections of ``bus``."""

    def __init__(
        self, source: Side, target: Side, journal: Journal, topics: Sequence[str], groups: Sequence[str]
    ) -> None:
        self._source = source
        self._target = target
        self._journal = journal
        self._topics = topics
        self._groups = groups

    def check(self) -> list[str]:
        needed = [(self._source, "lag")]
        if self._groups:
            needed += [(self._source, "replay"), (self._target, "replay")]
        for side, capability in needed:
            if capability not in side.capabilities:
                message = f"{side.ref} has no {capability}, without which it cannot be told what was received."
                raise MigrationError(message)
        return ["dead letters: requeue or discard them at the source", "topics and groups that are not named"]

    def is_empty(self) -> bool:
        return not any(self._taken(self._target, topic, READER, wait_seconds=0.0) for topic in self._topics)

    def plan(self) -> dict[str, int]:
        return {topic: self._waiting(self._source, topic, MOVER) for topic in self._topics}

    def copy(self, number: int, advance: Advance) -> dict[str, Tally]:
        del number
        found = {topic: self._carried(topic, advance) for topic in self._topics}
        for topic in self._topics:
            self._read_back(topic)
            for group in self._groups:
                persevere(self._place, topic, group)
        return found

    def fingerprint(self) -> dict[str, int]:
        """What came after the last pass is carried over too: events can be, whoever publishes to the target by now."""
        before = {topic: self._journal.topic(topic)[1] for topic in self._topics}
        for topic in self._topics:
            self._carried(topic, lambda *_: None)
            self._read_back(topic)
        return before

    def _carried(self, topic: str, advance: Advance) -> Tally:
        """Publish what the source still has for us; a topic's events keep their order."""
        copied = 0
        while self._waiting(self._source, topic, MOVER):
            deliveries = persevere(self._taken, self._source, topic, MOVER)
            if not deliveries:
                continue  # a killed run had taken them, and they are not given back yet
            copied += persevere(self._published, topic, deliveries)
            persevere(self._source.call, "ack", {"ack_ids": [one["ack_id"] for one in deliveries]})
            advance(topic, self._journal.topic(topic)[0], None)
        compared, digest = self._journal.topic(topic)
        return Tally(compared=compared, copied=copied, digest=digest)

    def _published(self, topic: str, deliveries: Sequence[dict[str, Any]]) -> int:
        new = [one for one in deliveries if self._journal.position(topic, one["event"]["id"]) is None]
        if not new:
            return 0
        events = [{"event": one["event"], **({"key": one["key"]} if "key" in one else {})} for one in new]
        places = self._target.call("publish_batch", {"topic": topic, "events": events})["published"]
        with self._journal.step():
            for one, place in zip(new, places, strict=True):
                self._journal.publish(topic, one["event"]["id"], place["position"], _checksum(one))
        return len(new)

    def _read_back(self, topic: str) -> None:
        """Receive from the target what was published there, and compare."""
        ends = time.monotonic() + READ_BACK_SECONDS
        while self._journal.not_read_back(topic) and time.monotonic() < ends:
            deliveries = persevere(self._taken, self._target, topic, READER)
            for one in deliveries:
                stated = self._journal.checksum(topic, one["event"]["id"])
                if stated is not None and stated != _checksum(one):
                    message = f"The event {one['event']['id']!r} of {topic} came back from {self._target.name} changed."
                    raise MigrationError(message)
                self._journal.read_back(topic, one["event"]["id"])
            if deliveries:
                ends = time.monotonic() + READ_BACK_SECONDS
                persevere(self._target.call, "ack", {"ack_ids": [one["ack_id"] for one in deliveries]})
        if lost := self._journal.not_read_back(topic):
            message = f"{lost} events of {topic} that {self._target.name} took did not come back from it."
            raise MigrationError(message)

    def _place(self, topic: str, group: str) -> None:
        """Have a group receive at the target what it has not confirmed at the source: some of it again, none never."""
        lag = self._source.call("lag", {"topic": topic, "group": group})
        if lag["waiting"] + lag["unacknowledged"] == 0:
            before = self._journal.last_position(topic)
        else:
            before = self._journal.position_before(topic, self._oldest(topic, lag["oldest_seconds"]))
        where = {"from_time": BEGINNING} if before is None else {"from_position": before}
        self._target.call("replay", {"topic": topic, "group": group, **where})

    def _oldest(self, topic: str, age_seconds: float) -> str:
        """Return the id of the first event that is not older than the oldest one that a group lacks."""
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_seconds + 1)
        moved = {"topic": topic, "group": SCOUT, "from_time": since.isoformat()}
        self._source.call("replay", moved)
        taken = self._taken(self._source, topic, SCOUT, most=1, visibility_seconds=0.1)
        return str(taken[0]["event"]["id"]) if taken else ""

    def _taken(
        self,
        side: Side,
        topic: str,
        group: str,
        *,
        most: int = EVENTS,
        wait_seconds: float = WAIT_SECONDS,
        visibility_seconds: float = VISIBILITY_SECONDS,
    ) -> list[dict[str, Any]]:
        params = {"topic": topic, "group": group, "max_events": most, "start": "earliest"}
        timed = {"visibility_seconds": visibility_seconds, "wait_seconds": wait_seconds}
        found: list[dict[str, Any]] = side.call("pull", {**params, **timed})["deliveries"]
        return found

    def _waiting(self, side: Side, topic: str, group: str) -> int:
        lag = persevere(side.call, "lag", {"topic": topic, "group": group})
        return int(lag["waiting"] + lag["unacknowledged"])


def _checksum(delivery: dict[str, Any]) -> str:
    """Over the event and its key; a time is the same moment however it is written."""
    event = dict(delivery["event"])
    if "time" in event:
        event["time"] = datetime.datetime.fromisoformat(event["time"]).astimezone(datetime.UTC).isoformat()
    text = json.dumps([delivery.get("key"), {"specversion": "1.0", **event}], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
