"""What ``bus/log`` costs: events published and consumed one call at a time, against the raw SQLite statements.

Usage: python benchmarks/bus.py [--rounds 7] [--events 6400] [--concurrency 64]

The log: that many callers each await ``publish``; then each pulls, and acknowledges what it got. The raw side does the
same durable work in one thread: the same tables and indexes, ``synchronous = FULL``, one commit for as many events as
there are callers. Prints events per second and per CPU second, median over interleaved rounds with the least and the
most, and the ratios log/raw per second (budget: at least 0.5). Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import uvloop
from load import median, spread

from erp.contracts.models.bus import AckRequest, CloudEvent, PublishRequest, PullRequest
from erp.providers.bus.log import tables
from erp.providers.bus.log.provider import EventLog
from erp.runtime.context import Actor, CallContext
from erp.runtime.standalone import place

BUDGET = 0.5
DATA = {"order": "ord_1", "total": "19.90", "currency": "EUR", "lines": [{"sku": "SKU-1", "quantity": "2"}]}
Side = Callable[[], Awaitable[None]]

_numbers = itertools.count()


def event() -> CloudEvent:
    """Return a new small event."""
    return CloudEvent(id=f"e{next(_numbers)}", source="/bench", type="order.submitted", data=DATA)


class Log:
    """The provider, as the layer calls it."""

    def __init__(self, folder: Path, events: int, concurrency: int) -> None:
        self._events, self._concurrency = events, concurrency
        self.provider = EventLog({}, place(folder, tenant="bench"))
        actor = Actor(id="bench", tenant="bench")
        self._context = CallContext(tenant="bench", actor=actor, request_id="r", deadline=time.monotonic() + 36_000)

    async def publish(self) -> None:
        """Publish all events, ``concurrency`` at a time."""

        async def one(count: int) -> None:
            for _ in range(count):
                await self.provider.publish(PublishRequest(topic="t", event=event()), self._context)

        await asyncio.gather(*(one(self._events // self._concurrency) for _ in range(self._concurrency)))

    async def consume(self) -> None:
        """Pull and acknowledge all events, ten at a time."""

        async def one() -> None:
            while True:
                request = PullRequest(topic="t", group="g", max_events=10)
                found = await self.provider.pull(request, self._context)
                if not found.deliveries:
                    return
                await self.provider.ack(AckRequest(ack_ids=[each.ack_id for each in found.deliveries]), self._context)

        await asyncio.gather(*(one() for _ in range(self._concurrency)))


class Raw:
    """The statements alone."""

    def __init__(self, path: Path, events: int, concurrency: int) -> None:
        self._events, self._batch = events, concurrency
        self._connection = tables.connect(str(path))
        self._connection.execute("INSERT INTO groups VALUES ('t', 'g', 0)")

    async def publish(self) -> None:
        """Insert all events, one commit for each batch."""
        await asyncio.to_thread(self._publish)

    def _publish(self) -> None:
        connection = self._connection
        for _ in range(self._events // self._batch):
            made = [event() for _ in range(self._batch)]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO events (topic, event_id, key, body, published_at) VALUES ('t', ?, NULL, ?, ?)"
                " ON CONFLICT (topic, event_id) DO NOTHING",
                [(one.id, msgspec.json.encode(one), time.time()) for one in made],
            )
            connection.execute("COMMIT")

    async def consume(self) -> None:
        """Take ten events at a time for the group, commit, remove their deliveries, commit."""
        await asyncio.to_thread(self._consume)

    def _consume(self) -> None:
        connection = self._connection
        while True:
            connection.execute("BEGIN IMMEDIATE")
            taken = [self._take(connection) for _ in range(self._batch)]
            connection.execute("COMMIT")
            ids = [(one,) for group in taken for one in group]
            if not ids:
                return
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM deliveries WHERE id = ?", ids)
            connection.execute("COMMIT")

    def _take(self, connection: sqlite3.Connection) -> list[int]:
        (start,) = connection.execute("SELECT taken FROM groups WHERE topic = 't' AND name = 'g'").fetchone()
        connection.execute(
            "INSERT INTO deliveries (topic, name, position, key, visible_at, count)"
            " SELECT topic, 'g', position, key, ?, 1 FROM events WHERE topic = 't' AND position > ?"
            " ORDER BY position LIMIT 10",
            (time.time() + 30, start),
        )
        rows = connection.execute(
            "SELECT d.id, d.position, e.body FROM deliveries d JOIN events e ON e.position = d.position"
            " WHERE d.topic = 't' AND d.name = 'g' AND d.position > ? ORDER BY d.position",
            (start,),
        ).fetchall()
        if rows:
            connection.execute("UPDATE groups SET taken = ? WHERE topic = 't' AND name = 'g'", (rows[-1][1],))
        for _, _, body in rows:
            msgspec.json.decode(body, type=CloudEvent)
        return [row[0] for row in rows]


async def timed(side: Side, events: int) -> tuple[float, float]:
    """Return events per second and per CPU second."""
    started, cpu = time.perf_counter(), time.process_time()
    await side()
    return events / (time.perf_counter() - started), events / (time.process_time() - cpu)


async def measure(folder: Path, options: argparse.Namespace) -> bool:
    """Print both sides of both questions; return whether the budgets are kept."""
    log = Log(folder, options.events, options.concurrency)
    raw = Raw(folder / "raw.db", options.events, options.concurrency)
    await log.provider.open()
    rates: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for question in ("publish", "consume"):
            for name, side in (("raw", raw), ("log", log)):
                wall, cpu = await timed(getattr(side, question), options.events)
                rates.setdefault(f"{question} {name} per second", []).append(wall)
                rates.setdefault(f"{question} {name} per CPU second", []).append(cpu)
    await log.provider.close()
    for name, found in rates.items():
        print(f"{name:28} {spread(found)}")
    judged = [_judged(question, rates) for question in ("publish", "consume")]
    return all(judged)


def _judged(question: str, rates: dict[str, list[float]]) -> bool:
    pairs = zip(rates[f"{question} log per second"], rates[f"{question} raw per second"], strict=True)
    ratios = [log / raw for log, raw in pairs]
    print(f"{question}: log / raw {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})   budget >= {BUDGET}")
    return median(ratios) >= BUDGET


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=6400)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if uvloop.run(measure(Path(folder), options)) else 1


if __name__ == "__main__":
    sys.exit(main())
