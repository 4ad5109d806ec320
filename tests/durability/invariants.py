"""What must hold of the files after any kill, said in SQL and hashes that share nothing with the layer's own code."""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.durability.effects import KINDS, LIMITED, TENANT, TOPIC, Evidence, Kind, caller_of, rotated_path
from tests.durability.furnishing import PERIOD, WARM
from tests.durability.ledger import Ledger, Sent

AT_ONCE = 500
ROTATED = "provider.events.secrets.local.rotated"
SUBMITTED = "service.events.order.submitted"


def effects(evidence: Evidence, sent: Sequence[Sent]) -> Iterator[str]:
    """Answered effects exist exactly once, the others at most once, and none of them by half."""
    for kind in KINDS.values():
        of_kind = [item for item in sent if item.kind is kind]
        for start in range(0, len(of_kind), AT_ONCE):
            yield from _effects_of(evidence, kind, of_kind[start : start + AT_ONCE])


def _effects_of(evidence: Evidence, kind: Kind, sent: Sequence[Sent]) -> Iterator[str]:
    if kind.find is None:
        return
    found = kind.find(evidence, [item.mark for item in sent])
    for mark in found.halves:
        yield f"{mark}: half a {kind.name}"
    for item in sent:
        count = found.whole[item.mark]
        if count > 1 or (item.state == "answered" and count != 1):
            yield f"{item.mark}: a {kind.name} that is {item.state} exists {count} times"


def rotations(evidence: Evidence, sent: Iterable[Sent]) -> Iterator[str]:
    """Each answered version exists, no two calls got the same one, and no more exist than calls were made."""
    by_caller = defaultdict(list)
    for item in sent:
        if item.kind.name == "rotation":
            by_caller[caller_of(item.mark)].append(item)
    for caller, items in by_caller.items():
        sql = "SELECT version FROM secrets WHERE tenant = ? AND path = ?"
        there = {row[0] for row in evidence.control(sql, TENANT, f"tenant/{rotated_path(caller)}")}
        answered = [item.data["version"] for item in items if item.state == "answered"]
        if answered != sorted(set(answered)) or not there.issuperset(answered):
            yield f"{caller} was told of the versions {answered[-5:]}, there are {sorted(there)[-5:]}"
        if not 1 + len(answered) <= len(there) <= 1 + len(items):
            yield f"{caller}: {len(there)} versions after {len(items)} rotations, {len(answered)} of them answered"


def strangers(evidence: Evidence, sent: Iterable[Sent]) -> Iterator[str]:
    """Nothing exists that nobody asked for."""
    known = {item.mark for item in sent} | {WARM}
    found = {row[0] for row in evidence.database("SELECT mark FROM marks UNION SELECT mark FROM pairs")}
    found |= {row[0] for row in evidence.database("SELECT customer_reference FROM orders")}
    found |= {row[0] for row in evidence.log("SELECT event_id FROM events WHERE topic = ?", TOPIC)}
    yield from (f"{mark}: nobody asked for it" for mark in found - known)


def publications_in_order(evidence: Evidence, sent: Iterable[Sent]) -> Iterator[str]:
    """What a caller published one after the other stands in the log in that order."""
    rows = evidence.log("SELECT event_id, position FROM events WHERE topic = ?", TOPIC)
    positions = dict(rows)
    published = [item for item in sent if item.kind.name == "publication" and item.mark in positions]
    for caller, items in itertools.groupby(published, lambda item: caller_of(item.mark)):
        stand = [positions[item.mark] for item in items]
        if stand != sorted(stand):
            yield f"the publications of {caller} are out of order"


@dataclass
class Chain:
    """The audit chain of the tenant, checked from where the last check ended."""

    seq: int = 0
    digest: bytes = bytes(32)

    def check(self, evidence: Evidence) -> Iterator[str]:
        """Yield what breaks the chain."""
        sql = "SELECT seq, record, prev_hash, hash FROM audit WHERE tenant = ? AND seq > ? ORDER BY seq"
        for seq, record, previous, digest in evidence.control(sql, TENANT, self.seq):
            is_next = (seq, previous) == (self.seq + 1, self.digest)
            if not is_next or digest != hashlib.sha256(previous + record).digest():
                yield f"the audit chain breaks at record {seq}"
                return
            self.seq, self.digest = seq, digest
        head = evidence.control("SELECT seq, hash FROM audit_heads WHERE tenant = ?", TENANT)
        if head and head[0][0] < self.seq:
            yield f"the audit chain has {self.seq} records, its head says {head[0][0]}"


def audited(evidence: Evidence, sent: Iterable[Sent]) -> Iterator[str]:
    """However often a call was sent, it has one audit record of its success when it was answered, else none.

    One that two servers may have run has two at most, and may have one although its caller was told to look.
    """
    rows = evidence.control("SELECT target, record FROM audit WHERE tenant = ? AND outcome = 'ok'", TENANT)
    records = Counter((target, json.loads(record).get("request_id")) for target, record in rows)
    for item in sent:
        count = sum(records[item.kind.target, id_] for id_ in item.request_ids())
        least = most = int(item.state == "answered")
        if item.is_overtaken and item.kind.second_run != "none":
            most = least + 1
        if not least <= count <= most:
            yield f"{item.mark}: a {item.kind.name} that is {item.state} has {count} audit records"


def quota(evidence: Evidence, ledger: Ledger, limit: int) -> Iterator[str]:
    """Not one call more than the quota; what counts as used are the calls that were made, and no others."""
    sql = "SELECT used FROM quota_usage WHERE tenant = ? AND scope = 'tenant' AND unit = 'requests' AND period = ?"
    usage = [row[0] for row in evidence.control(sql, LIMITED, PERIOD)]
    told = ledger.allowance
    if told.admitted > limit * max(len(usage), 1):
        yield f"{told.admitted} calls were admitted, the quota is {limit}"
    if any(used > limit for used in usage):
        yield f"{usage} units count as used, the quota is {limit}"
    most = told.admitted + told.unanswered
    if not told.admitted <= sum(usage) <= most:
        yield f"{usage} units count as used, {told.admitted} calls were admitted, at most {most} can have been made"


def events(evidence: Evidence, sent: Iterable[Sent]) -> Iterator[str]:
    """Every event of the outbox was delivered, once per id, in order per key; every announced one was in the outbox."""
    kept = evidence.control("SELECT id, key, state, event FROM outbox WHERE tenant = ? ORDER BY position", TENANT)
    yield from (f"event {id_} is {state}" for id_, _, state, _ in kept if state != "delivered")
    log = evidence.log("SELECT topic, event_id, position FROM events")
    positions = {(topic, id_): position for topic, id_, position in log}
    last: dict[tuple[str, str], int] = {}
    for id_, key, _, event in kept:
        topic = json.loads(event)["topic"]
        position = positions.get((topic, id_), 0)
        if not position:
            yield f"event {id_} of {topic} was never delivered"
        if key is not None and position < last.get((topic, key), 0):
            yield f"event {id_} of {topic} was delivered before an earlier one of its key {key}"
        last[topic, key or id_] = position
    for item in sent:
        if item.state == "answered":
            wanted = _announced(item)
            count = sum(event in positions for event in wanted)
            if wanted and count != 1:
                yield f"{item.mark}: answered, with {count} of its event delivered"


def _announced(item: Sent) -> list[tuple[str, str]]:
    """Return the names that the event of a call can have: one for each try, of which one succeeded."""
    if item.kind.name == "rotation":
        return [(ROTATED, f"{request_id}-0") for request_id in item.request_ids()]
    if item.kind.name == "order":
        return [(SUBMITTED, f"order.submitted:{item.data['order_id']}")]
    return []


def followed_up(evidence: Evidence) -> Iterator[str]:
    """Every step of every order has come to its end."""
    rows = evidence.database(
        "SELECT order_id, name, status, detail FROM order_steps WHERE status NOT IN ('done', 'skipped')"
    )
    yield from (f"step {name} of order {id_} is {status}: {detail}" for id_, name, status, detail in rows)


def intact(data_dir: Path) -> Iterator[str]:
    """SQLite finds nothing wrong with any file."""
    for file in [*data_dir.rglob("*.db"), *data_dir.rglob("*.sqlite3")]:
        found = _integrity(file)
        if found != "ok":
            yield f"{file.relative_to(data_dir)}: {found}"


def _integrity(file: Path) -> str:
    with closing(sqlite3.connect(file, timeout=10)) as connection:
        try:
            return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
        except sqlite3.DatabaseError as error:
            return str(error)
