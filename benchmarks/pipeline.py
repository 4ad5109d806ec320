"""What the whole pipeline costs: ``cache/memory get`` over HTTP against bare handlers doing the same look-up.

Usage: python benchmarks/pipeline.py [--rounds 9] [--seconds 1.5] [--quick]

Prints requests per CPU second of the server process (median and spread over interleaved rounds), the ratio
layer/FastAPI (budget: at least 1.25, aim 2), the added p95 latency over Starlette at 300 requests/s (budget: 3 ms), and
the rate of effectful calls with Idempotency-Key and audit relative to reads at concurrency 64 (budget: at least 0.5).
Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

from load import Outcome, Server, closed_loop, endless, median, open_loop, percentile, request, spread, start

HERE = Path(__file__).parent
ERP = [sys.executable, "-c", "from erp.cli import main; main()"]
RATIO_BUDGET, ADDED_P95_BUDGET_MS, WRITE_BUDGET = 1.25, 3.0, 0.5
GET = "/providers/cache/memory/get"
SET = "/providers/cache/memory/set"


def layer(folder: Path) -> tuple[Server, str]:
    """Start the layer with a tenant and return it with a developer's key."""
    data = ["--data-dir", str(folder / "data")]
    subprocess.run([*ERP, "tenants", "create", "bench", *data], check=True, capture_output=True)
    made = subprocess.run(
        [*ERP, "keys", "create", "--tenant", "bench", "--role", "developer", *data],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    server = start("layer", [*ERP, "serve", "--port", "0", *data], log=folder / "layer.log")
    return server, made.stdout.strip()


def fill(server: Server, key: str) -> None:
    """Put the same thousand values into the layer's cache that the bare handlers have."""
    for number in range(1000):
        body = {"params": {"key": f"k{number}", "value": {"amount": "19.90", "currency": "EUR"}}}
        post = urllib.request.Request(
            f"http://{server.host}:{server.port}{SET}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(post) as answer:
            assert answer.status == 200


def reads(key: str) -> Callable[[], bytes]:
    """Return a source of read requests."""
    headers = {"authorization": f"Bearer {key}"}
    prepared = [request(GET, b'{"params": {"key": "k%d"}}' % number, headers) for number in range(1000)]
    return endless(lambda number: prepared[number % 1000])


def writes(key: str) -> Callable[[], bytes]:
    """Return a source of write requests, each with an idempotency key of its own."""
    run = uuid.uuid4().hex

    def make(number: int) -> bytes:
        body = b'{"params": {"key": "w%d", "value": {"amount": "19.90", "currency": "EUR"}}}' % (number % 1000)
        return request(SET, body, {"authorization": f"Bearer {key}", "idempotency-key": f"{run}-{number}"})

    return endless(make)


def per_cpu_second(server: Server, messages: Callable[[], bytes], concurrency: int, seconds: float) -> float:
    """Run one round and return the requests the server answered per second of its own CPU time."""
    before = server.cpu_seconds()
    outcome = asyncio.run(closed_loop(server, messages, concurrency=concurrency, seconds=seconds))
    check(server, outcome)
    return outcome.requests / (server.cpu_seconds() - before)


def check(server: Server, outcome: Outcome) -> None:
    """Stop the benchmark when an answer was not 200: a fast refusal proves nothing."""
    if outcome.failures or not outcome.requests:
        sys.exit(f"{server.name}: {outcome.failures} of {outcome.requests} requests failed")


def throughput(
    servers: dict[str, Server], sources: dict[str, Callable[[], bytes]], rounds: int, seconds: float
) -> float:
    """Print requests per CPU second of every side; return the median ratio layer/FastAPI."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            rates[name].append(per_cpu_second(server, sources[name], 16, seconds))
    print("\nreads: requests per CPU second of the server, median (min to max)")
    for name, values in rates.items():
        print(f"  {name:10} {median(values):9.0f} ({min(values):.0f} to {max(values):.0f})")
    ratios = [ours / bare for ours, bare in zip(rates["layer"], rates["fastapi"], strict=True)]
    print(f"  layer / fastapi    {spread(ratios)}   budget >= {RATIO_BUDGET}")
    return median(ratios)


def latency(servers: dict[str, Server], sources: dict[str, Callable[[], bytes]], rounds: int, seconds: float) -> float:
    """Print latencies at 300 requests/s; return the median added p95 over Starlette in milliseconds."""
    tails: dict[str, list[float]] = {"layer": [], "starlette": []}
    for _ in range(rounds):
        for name, values in tails.items():
            outcome = asyncio.run(open_loop(servers[name], sources[name], rate=300, seconds=seconds))
            check(servers[name], outcome)
            values.append(percentile(outcome.latencies, 0.95) * 1000)
    print("\nlatency at 300 requests/s: p95 in ms, median (min to max)")
    for name, values in tails.items():
        print(f"  {name:10} {spread(values)}")
    added = [ours - bare for ours, bare in zip(tails["layer"], tails["starlette"], strict=True)]
    print(f"  added by the layer {spread(added)}   budget < {ADDED_P95_BUDGET_MS}")
    return median(added)


def effects(server: Server, key: str, rounds: int, seconds: float) -> float:
    """Print effectful against read calls at concurrency 64; return the median ratio of rates."""
    ratios, walls = [], []
    for _ in range(rounds):
        before, results = server.cpu_seconds(), []
        for source in (reads(key), writes(key)):
            outcome = asyncio.run(closed_loop(server, source, concurrency=64, seconds=seconds))
            check(server, outcome)
            used, before = server.cpu_seconds() - before, server.cpu_seconds()
            results.append((outcome.requests / used, outcome.requests / outcome.seconds))
        ratios.append(results[1][0] / results[0][0])
        walls.append(results[1][1] / results[0][1])
    print("\neffectful calls (Idempotency-Key, audit, durable) / reads at concurrency 64")
    print(f"  per CPU second     {spread(ratios)}   budget >= {WRITE_BUDGET}")
    print(f"  per wall second    {spread(walls)}")
    return median(ratios)


def main() -> int:
    """Run all parts; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--quick", action="store_true", help="three rounds of half a second")
    options = parser.parse_args()
    rounds, seconds = (3, 0.5) if options.quick else (options.rounds, options.seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, key = layer(folder)
        bare = {
            kind: start(kind, [sys.executable, str(HERE / "bare.py"), kind], log=folder / f"{kind}.log")
            for kind in ("fastapi", "starlette")
        }
        servers = {"layer": ours, **bare}
        try:
            fill(ours, key)
            sources = {side: reads(key) for side in servers}
            throughput(servers, sources, 1, seconds)
            ratio = throughput(servers, sources, rounds, seconds)
            added = latency(servers, sources, max(3, rounds // 2), max(seconds, 1.0))
            written = effects(ours, key, rounds, seconds)
        finally:
            for server in servers.values():
                server.stop()
    kept = ratio >= RATIO_BUDGET and added < ADDED_P95_BUDGET_MS and written >= WRITE_BUDGET
    print("\nall budgets kept" if kept else "\na budget was missed")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
