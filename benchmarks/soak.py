"""Ten minutes of mixed load: does memory stay where it is?

Usage: python benchmarks/soak.py [--minutes 10] [--concurrency 16] [--quick]

Reads, writes with and without keys, refusals, SQL, publications, pulls, objects, orders with all that follows, batches,
streams and operations, at full speed, from callers that keep their connections and callers that come anew. Everything that
is kept for good is bounded by the driver itself (keys repeat, objects are overwritten, events are acknowledged), so what is left to grow
is the layer. Prints resident memory once a tenth of the time and the requests per second; the budget: the last tenth's mean is at most
10 % and 12 MB above that of the third tenth, when every part has warmed up, and no answer was an unexpected one.
Exits with 1 when it is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from load import Server, start
from orders import layer, order

GROWTH_SHARE_BUDGET, GROWTH_MB_BUDGET = 0.10, 12.0
HERE = Path(__file__).parent
KEYS = 5000
CONTENT = base64.b64encode(b"x" * 20_000).decode()
TENTHS = 10

Asked = tuple[str, dict[str, Any], dict[str, str]]
"""Path, body, further headers."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of call."""

    weight: int
    make: Callable[[int, random.Random], Asked]
    expected: frozenset[int] = frozenset({200})
    """The statuses it may be answered with."""


def params(path: str, made: dict[str, Any], **headers: str) -> Asked:
    """Return a call with parameters."""
    return path, {"params": made}, headers


def kinds(run: str) -> dict[str, Kind]:
    """Return each kind of call; ``run`` makes its names differ from those of earlier runs."""
    return cached(run) | stored(run) | at_length()


def cached(run: str) -> dict[str, Kind]:
    """Return the calls of the cache, right and wrong."""
    get, set_ = "/providers/cache/memory/get", "/providers/cache/memory/set"

    def keyed(_: int, dice: random.Random) -> Asked:
        return params(set_, {"key": "same", "value": 1}, idempotency_key=f"{run}-{dice.randrange(KEYS)}")

    return {
        "get": Kind(20, lambda n, _: params(get, {"key": f"k{n % KEYS}"})),
        "set": Kind(10, lambda n, _: params(set_, {"key": f"k{n % KEYS}", "value": n})),
        "keyed": Kind(10, keyed, frozenset({200, 409})),
        "wrong": Kind(4, lambda _, __: params(get, {"kee": 1}), frozenset({400})),
        "unknown": Kind(2, lambda n, _: params(f"/providers/cache/none{n}/get", {"key": "k"}), frozenset({404})),
    }


def stored(run: str) -> dict[str, Kind]:
    """Return the calls that reach a disk."""
    query, execute = "/providers/db/sqlite/query", "/providers/db/sqlite/execute"
    count = "select count(*) as n from soak where k < ?"
    put = "insert into soak (k, v) values (?, ?) on conflict (k) do update set v = excluded.v"
    event = {"source": "/soak", "type": "soaked", "data": {"n": 1}}

    def publish(number: int, _: random.Random) -> Asked:
        return params("/providers/bus/log/publish", {"topic": "soak", "event": {"id": f"{run}-{number}", **event}})

    def write(number: int, _: random.Random) -> Asked:
        return params("/providers/storage/filesystem/put", {"key": f"soak/{number % 50}", "content": CONTENT})

    return {
        "query": Kind(8, lambda n, _: params(query, {"sql": count, "parameters": [n % KEYS]})),
        "statement": Kind(4, lambda n, _: params(query, {"sql": statement(n)})),
        "execute": Kind(4, lambda n, _: params(execute, {"sql": put, "parameters": [n % KEYS, "v"]})),
        "publish": Kind(4, publish),
        "put": Kind(2, write),
        "order": Kind(3, lambda n, _: params("/services/order/submit", order(f"{run}-{n}", n))),
        "list": Kind(2, lambda _, __: params("/services/order/list", {"limit": 20})),
    }


def at_length() -> dict[str, Kind]:
    """Return the calls that are many, long or later."""
    stream = {"sql": "select k, v from soak limit 300", "rows_per_item": 50}

    def batch(number: int, _: random.Random) -> Asked:
        items = [{"target": "cache/memory/get", "params": {"key": f"k{(number + i) % KEYS}"}} for i in range(10)]
        return "/providers/batch", {"items": items}, {}

    def operation(number: int, _: random.Random) -> Asked:
        return params("/providers/cache/memory/set", {"key": f"k{number % KEYS}", "value": 1}, prefer="respond-async")

    return {
        "batch": Kind(2, batch),
        "stream": Kind(2, lambda _, __: params("/providers/db/sqlite/stream", stream)),
        "operation": Kind(2, operation, frozenset({202})),
    }


def statement(number: int) -> str:
    """Return a statement that nobody sent before: what is remembered of statements has to be bounded."""
    return f"select {number} as n, v from soak where k = {number % KEYS}"  # noqa: S608  (numbers)


class Load:
    """Callers that call until the time is over."""

    def __init__(self, server: Server, headers: dict[str, str], ends_at: float) -> None:
        self._address = f"http://{server.host}:{server.port}"
        self._headers = headers
        self._ends_at = ends_at
        self._numbers = itertools.count()
        self._kinds = kinds(uuid.uuid4().hex[:8])
        self._weights = [kind.weight for kind in self._kinds.values()]
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.unexpected: list[str] = []

    async def call_on(self, seed: int) -> None:
        """Call on one connection; now and then on a new one."""
        dice = random.Random(seed)  # noqa: S311  (which call comes next)
        while time.monotonic() < self._ends_at:
            async with httpx2.AsyncClient(base_url=self._address, headers=self._headers, timeout=60) as client:
                for _ in range(dice.randrange(1, 500)):
                    if time.monotonic() >= self._ends_at:
                        return
                    [name] = dice.choices(list(self._kinds), self._weights)
                    await self._call(client, name, dice)

    async def _call(self, client: httpx2.AsyncClient, name: str, dice: random.Random) -> None:
        kind = self._kinds[name]
        path, body, more = kind.make(next(self._numbers), dice)
        headers = {key.replace("_", "-"): value for key, value in more.items()}
        answer = await client.post(path, json=body, headers=headers)
        self.statuses[name, answer.status_code] += 1
        if answer.status_code not in kind.expected:
            self.unexpected.append(f"{name}: {answer.status_code} {answer.text[:300]}")

    async def consume(self) -> None:
        """Receive and acknowledge what is published."""
        pull = {"params": {"topic": "soak", "group": "soak", "max_events": 500, "wait_seconds": 1}}
        async with httpx2.AsyncClient(base_url=self._address, headers=self._headers, timeout=60) as client:
            while time.monotonic() < self._ends_at:
                answer = await client.post("/providers/bus/log/pull", json=pull)
                if acks := [item["ack_id"] for item in answer.json()["data"]["deliveries"]]:
                    await client.post("/providers/bus/log/ack", json={"params": {"ack_ids": acks}})


async def soaked(server: Server, headers: dict[str, str], minutes: float, concurrency: int) -> tuple[list[float], Load]:
    """Return the mean resident memory of each tenth of the time, in MB."""
    async with httpx2.AsyncClient(base_url=f"http://{server.host}:{server.port}", headers=headers) as client:
        sql = "create table if not exists soak (k integer primary key, v text)"
        assert (await client.post("/providers/db/sqlite/execute", json={"params": {"sql": sql}})).status_code == 200
    seconds = minutes * 60
    began = time.monotonic()
    load = Load(server, headers, began + seconds)
    tasks = [asyncio.create_task(load.call_on(seed)) for seed in range(concurrency)]
    tasks.append(asyncio.create_task(load.consume()))
    tenths: list[list[float]] = [[] for _ in range(TENTHS)]
    shown = 0
    while (passed := time.monotonic() - began) < seconds:
        tenth = int(passed / seconds * TENTHS)
        tenths[tenth].append(server.resident_bytes() / 1e6)
        if tenth > shown:
            print(
                f"  {shown + 1:2}/10  {_mean(tenths[shown]):6.1f} MB  {sum(load.statuses.values()):8} requests",
                flush=True,
            )
            shown = tenth
        await asyncio.sleep(seconds / 1000)
    await asyncio.gather(*tasks)
    return [_mean(found) for found in tenths], load


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="one minute")
    options = parser.parse_args()
    minutes = 1.0 if options.quick else options.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer = start("peer", [sys.executable, str(HERE / "peer.py")], log=folder / "peer.log")
        side = layer(folder, f"http://{peer.host}:{peer.port}/orders")
        try:
            began = time.monotonic()
            tenths, load = asyncio.run(soaked(side.server, side.headers, minutes, options.concurrency))
            lasted = time.monotonic() - began
        finally:
            side.server.stop()
            peer.stop()
    return _judged(tenths, load, lasted)


def _judged(tenths: list[float], load: Load, lasted: float) -> int:
    total = sum(load.statuses.values())
    print(f"{total} requests in {lasted:.0f} s, {total / lasted:.0f} per second")
    print(json.dumps({f"{name} {status}": count for (name, status), count in sorted(load.statuses.items())}))
    warm, last = tenths[2], tenths[-1]
    allowed = min(warm * GROWTH_SHARE_BUDGET, GROWTH_MB_BUDGET)
    print(
        f"resident {warm:.1f} MB when warm, {last:.1f} MB at the end: {last - warm:+.1f} MB   budget <= {allowed:.1f}"
    )
    for text in load.unexpected[:5]:
        print(f"unexpected: {text}")
    kept = last - warm <= allowed and not load.unexpected
    print("the budget is kept" if kept else "the budget was missed")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
