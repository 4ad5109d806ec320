"""What ten thousand configured connections cost: a page of them, a start, and memory while nobody uses them.

Usage: python benchmarks/connections.py [--connections 10000] [--rounds 5] [--seconds 1.0] [--quick]

Two servers in one run, one with fifty connections and one with all, of one tenant. Prints, as median with the least and
the most: pages of ``GET /connections`` per CPU second of the server, of the few, and the first and the last page of the
many (budget: each at least 0.5 of the few; to scan all would be a hundredth); CPU time and wall time from start to ready
(budget: 3 s of CPU time, which is the wall time of a machine that does nothing else); resident memory when ready and
after the pages were read (budget: 5 MB more than the few); memory once one in a hundred was called, for the price of an open
one. Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import Server, closed_loop, median, spread, start
from pipeline import ERP

from erp.control_plane.moments import now
from erp.control_plane.tables import connections
from erp.main import Settings, open_control_plane

PAGE_BUDGET, START_BUDGET_SECONDS, MEMORY_BUDGET_MB = 0.5, 3.0, 5.0
FEW, PAGE = 50, 50
TURNS = 3
"""How often the sides take turns in a round."""
TENANT = "bench"


@dataclass(frozen=True, slots=True)
class Side:
    """A data directory with a number of connections."""

    name: str
    folder: Path
    key: str
    count: int

    def started(self) -> tuple[Server, float, float]:
        """Start a server on it; return it with the CPU seconds and the seconds until it was ready."""
        began = time.perf_counter()
        command = [*ERP, "serve", "--port", "0", "--data-dir", str(self.folder)]
        server = start(self.name, command, log=self.folder.with_suffix(".log"))
        return server, server.cpu_seconds(), time.perf_counter() - began


def made(name: str, folder: Path, count: int) -> Side:
    """Make a data directory whose tenant has ``count`` connections of ``cache/memory``."""
    data = ["--data-dir", str(folder)]
    subprocess.run([*ERP, "tenants", "create", TENANT, *data], check=True, capture_output=True)
    command = [*ERP, "keys", "create", "--tenant", TENANT, "--role", "admin", *data]
    key = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    asyncio.run(_fill(folder, count))
    return Side(name, folder, key, count)


async def _fill(folder: Path, count: int) -> None:
    """Write rows as ``configure`` does, without opening each."""
    control, _ = await open_control_plane(Settings(data_dir=folder, database_url=None))
    moment = now()
    texts = {"config": '{"max_bytes":1048576}', "secrets": "{}", "policy": "{}"}
    rows = [
        {"tenant": TENANT, "domain": "cache", "provider": "memory", "name": name_of(number), "revision": f"r{number}"}
        | texts
        | {"created_at": moment, "updated_at": moment}
        for number in range(count)
    ]
    await control.database.transact(lambda connection: connection.execute(connections.insert(), rows))
    await control.close()


def name_of(number: int) -> str:
    """Return the name of a connection; names sort by number."""
    return f"c{number:06d}"


def asked(server: Server, key: str, path: str) -> Any:
    """Return the answer to a GET."""
    request = urllib.request.Request(
        f"http://{server.host}:{server.port}{path}", headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def last_page(server: Server, side: Side) -> str:
    """Return the path of the last whole page, found by turning all pages, each of which is checked."""
    path = first = f"/connections?limit={PAGE}"
    names: list[str] = []
    while True:
        answer = asked(server, side.key, path)
        names += [item["connection"] for item in answer["items"]]
        if "next_cursor" not in answer:
            break
        path = f"{first}&cursor={urllib.parse.quote(answer['next_cursor'])}"
    if names != [name_of(number) for number in range(side.count)]:
        sys.exit(f"{side.name}: the pages do not hold every connection once")
    return path


def pages_per_cpu_second(server: Server, key: str, path: str, seconds: float) -> float:
    """Ask for a page again and again."""
    message = f"GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n\r\n".encode()
    before = server.cpu_seconds()
    outcome = asyncio.run(closed_loop(server, lambda: message, concurrency=4, seconds=seconds))
    if outcome.failures:
        sys.exit(f"{server.name}: {outcome.failures} of {outcome.requests} pages were refused")
    return outcome.requests / (server.cpu_seconds() - before)


def use(server: Server, side: Side, every: int) -> int:
    """Call one in ``every`` connections, which opens it; return how many that were."""
    used = range(0, side.count, every)
    for number in used:
        request = urllib.request.Request(
            f"http://{server.host}:{server.port}/providers/cache/memory/get",
            b'{"params": {"key": "k"}}',
            {
                "Authorization": f"Bearer {side.key}",
                "Content-Type": "application/json",
                "X-Connection": name_of(number),
            },
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
    return len(used)


def compared(few: Side, many: Side, rounds: int, seconds: float) -> bool:
    """Print everything; return whether the budgets are kept."""
    starts: dict[str, list[float]] = {few.name: [], many.name: []}
    walls: dict[str, list[float]] = {few.name: [], many.name: []}
    memory: dict[str, list[float]] = {few.name: [], many.name: []}
    rates: dict[str, list[float]] = {"few": [], "first page of the many": [], "last page of the many": []}
    opened: list[float] = []
    for _ in range(rounds):
        servers = []
        for side in (few, many):
            server, cpu, wall = side.started()
            servers.append(server)
            starts[side.name].append(cpu)
            walls[side.name].append(wall)
        last = last_page(servers[1], many)
        wanted: dict[str, tuple[Server, Side, str]] = {
            "few": (servers[0], few, last_page(servers[0], few)),
            "first page of the many": (servers[1], many, f"/connections?limit={PAGE}"),
            "last page of the many": (servers[1], many, last),
        }
        for server, side, path in wanted.values():
            pages_per_cpu_second(server, side.key, path, seconds / 2)  # warms up
        for _ in range(TURNS):
            for name, (server, side, path) in wanted.items():
                rates[name].append(pages_per_cpu_second(server, side.key, path, seconds / TURNS))
        for side, server in zip((few, many), servers, strict=True):
            memory[side.name].append(server.resident_bytes() / 1e6)
        used = use(servers[1], many, 100)
        opened.append((servers[1].resident_bytes() / 1e6 - memory[many.name][-1]) * 1000 / used)
        for server in servers:
            server.stop()
    return _reported(starts, walls, memory, rates, opened)


Figures = dict[str, list[float]]


def _reported(starts: Figures, walls: Figures, memory: Figures, rates: Figures, opened: list[float]) -> bool:
    few, many = starts
    print("pages of 50 per CPU second, median (min to max)")
    for name, found in rates.items():
        print(f"  {name:24} {spread(found)}")
    ratios = {name: median(_ratios(found, rates["few"])) for name, found in rates.items() if name != "few"}
    for name, ratio in ratios.items():
        print(f"  {name} / few {ratio:.2f}   budget >= {PAGE_BUDGET}")
    for side in starts:
        print(f"start to ready, {side}: {spread(starts[side])} s of CPU time, {spread(walls[side])} s")
    print(f"  budget for the many < {START_BUDGET_SECONDS} s of CPU time")
    more = median([a - b for a, b in zip(memory[many], memory[few], strict=True)])
    print(f"resident MB: {few} {spread(memory[few])}, {many} {spread(memory[many])}")
    print(f"  more with the many {more:.1f} MB   budget < {MEMORY_BUDGET_MB}")
    print(f"  each that was opened {spread(opened)} KB")
    kept = min(ratios.values()) >= PAGE_BUDGET
    return kept and median(starts[many]) < START_BUDGET_SECONDS and more < MEMORY_BUDGET_MB


def _ratios(found: list[float], base: list[float]) -> list[float]:
    divided: Callable[[float, float], float] = lambda a, b: a / b  # noqa: E731
    return list(map(divided, found, base))


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="two rounds of 0.3 s")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 0.3
    with tempfile.TemporaryDirectory() as name:
        few = made(f"{FEW} connections", Path(name) / "few", FEW)
        many = made(f"{options.connections} connections", Path(name) / "many", options.connections)
        kept = compared(few, many, options.rounds, options.seconds)
    print("all budgets kept" if kept else "a budget was missed")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
