"""What a tenant at ten times its share does to another one's latency.

Usage: python benchmarks/fairness.py [--rounds 5] [--seconds 4] [--quick]

The layer holds 32 calls at a time, 16 of one tenant, and calls a cache that takes 50 ms to answer. A quiet tenant makes
20 calls a second: alone, then beside a tenant with 160 callers, who wait for a second when they are refused. Prints the
quiet one's p95 on both sides and their ratio, median and spread over interleaved rounds (budget: at most 1.2). Exits
with 1 when the budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load import Server, median, open_loop, percentile, request, spread, start

import erp.providers.cache.memory

ERP = [sys.executable, "-c", "from erp.cli import main; main()"]
GET = "/providers/cache/slow/get"
BODY = b'{"params": {"key": "k"}}'
BUDGET = 1.2
CALLERS = 160
MOST_REFUSED = 0.02
"""Of the quiet tenant's calls: when the machine stands still for a second, they all come at once."""
SLOW = """
import asyncio
from erp.providers.cache.memory import provider


class MemoryCache(provider.MemoryCache):
    async def get(self, request, context):
        await asyncio.sleep(0.05)
        return await super().get(request, context)
"""


def slow_provider(data: Path) -> None:
    """Drop in ``cache/slow``: the cache in memory, 50 ms late."""
    folder = data / "providers" / "cache" / "slow"
    folder.mkdir(parents=True)
    for part in Path(erp.providers.cache.memory.__path__[0]).iterdir():
        if part.name in {"provider.yaml", "README.md"}:
            (folder / part.name).write_text(
                part.read_text().replace("cache/memory", "cache/slow").replace("name: memory", "name: slow")
            )
    (folder / "provider.py").write_text(SLOW)


def layer(folder: Path) -> tuple[Server, dict[str, str]]:
    """Start the layer with two tenants; return it with their keys."""
    data = folder / "data"
    slow_provider(data)
    keys = {}
    for tenant in ("quiet", "loud"):
        where = ["--data-dir", str(data)]
        subprocess.run([*ERP, "tenants", "create", tenant, *where], check=True, capture_output=True)
        command = [*ERP, "keys", "create", "--tenant", tenant, "--role", "developer", *where]
        keys[tenant] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    limits = {"ERP_MAX_IN_FLIGHT": "32", "ERP_TENANT_IN_FLIGHT": "16", "ERP_LOG_LEVEL": "warning"}
    command = [*ERP, "serve", "--port", "0", "--data-dir", str(data)]
    return start("layer", command, log=folder / "layer.log", env={**os.environ, **limits}), keys


class Crowd:
    """Callers of the loud tenant, who wait when they are refused."""

    def __init__(self, server: Server, key: str) -> None:
        self._server = server
        self._message = request(GET, BODY, {"authorization": f"Bearer {key}"})
        self.answered = self.refused = 0

    async def run(self, until: float) -> None:
        """Call until then."""
        await asyncio.gather(*(self._one(until) for _ in range(CALLERS)))

    async def _one(self, until: float) -> None:
        reader, writer = await asyncio.open_connection(self._server.host, self._server.port)
        while time.monotonic() < until:
            writer.write(self._message)
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(size)
            if head[9:12] == b"200":
                self.answered += 1
            else:
                self.refused += 1
                await asyncio.sleep(1.0)
        writer.close()


async def p95(server: Server, key: str, seconds: float, crowd: Crowd | None) -> float:
    """Return the quiet tenant's p95 in milliseconds."""
    message = request(GET, BODY, {"authorization": f"Bearer {key}"})
    loud = None if crowd is None else asyncio.create_task(crowd.run(time.monotonic() + seconds + 1))
    await asyncio.sleep(0.5)
    outcome = await open_loop(server, lambda: message, rate=20, seconds=seconds)
    if loud is not None:
        await loud
    if outcome.failures > outcome.requests * MOST_REFUSED:
        sys.exit(f"{outcome.failures} of {outcome.requests} calls of the quiet tenant failed")
    return percentile(outcome.latencies, 0.95) * 1000


def measure(rounds: int, seconds: float) -> float:
    """Print both sides; return the median ratio."""
    alone, beside = [], []
    with tempfile.TemporaryDirectory() as folder:
        server, keys = layer(Path(folder))
        crowd = Crowd(server, keys["loud"])
        try:
            for _ in range(rounds):
                alone.append(asyncio.run(p95(server, keys["quiet"], seconds, None)))
                beside.append(asyncio.run(p95(server, keys["quiet"], seconds, crowd)))
        finally:
            server.stop()
    ratios = [there / here for here, there in zip(alone, beside, strict=True)]
    print("p95 of the quiet tenant in ms, median (min to max)")
    print(f"  alone               {spread(alone)}")
    print(f"  beside the loud one {spread(beside)}")
    print(f"  ratio               {spread(ratios)}   budget <= {BUDGET}")
    print(f"the loud tenant: {crowd.answered} calls answered, {crowd.refused} refused")
    return median(ratios)


def main() -> int:
    """Measure; return 1 when the budget is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--quick", action="store_true", help="find out whether it runs, not how fast it is")
    chosen = parser.parse_args()
    ratio = measure(1, 1.0) if chosen.quick else measure(chosen.rounds, chosen.seconds)
    return 0 if chosen.quick or ratio <= BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
