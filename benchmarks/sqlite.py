"""What ``db/sqlite`` costs: a read by key through the in-process call path against the plain module in an executor.

Usage: python benchmarks/sqlite.py [--rounds 9] [--calls 4000] [--concurrency 16] [--pooled]

Prints the process's CPU time per call of both sides, as median over interleaved rounds with the least and the most,
and the ratio plain/layer (budget: at least 0.5). With --pooled the layer reads from a file that tenants share, its
statements rewritten and proven; that has no budget. Exits with 1 when the budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from load import median, spread

from erp.contracts.models.db import ExecuteBatchRequest, ExecuteRequest, QueryRequest, Statement
from erp.main import Layer, Settings, running
from erp.runtime.ports import Connection
from erp.runtime.service_calls import service_context

RATIO_BUDGET = 0.5
ROWS = 10_000
THREADS = 3
INSERT = "insert into item (id, name, price) values (?, ?, ?)"
SELECT = "select id, name, price from item where id = ?"
SILOED, POOLED = (
    Connection(
        tenant="bench",
        domain="db",
        provider="sqlite",
        name="default",
        revision="",
        secrets={},
        config=config,
        policy={"rate": {"requests": 1_000_000}},  # the usual 10,000 a second are fewer than are made here
    )
    for config in ({}, {"mode": "pooled", "file": "bench"})
)
Read = Callable[[int], Awaitable[None]]


def rows() -> list[tuple[int, str, str]]:
    """Return what both sides hold."""
    return [(number, f"Item {number}", "19.90") for number in range(ROWS)]


class Plain:
    """The sqlite3 module on a connection for each thread of an executor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(THREADS)
        with sqlite3.connect(path) as connection:
            connection.execute("pragma journal_mode = wal")
            connection.execute("create table item (id integer primary key, name text not null, price text not null)")
            connection.executemany(INSERT, rows())
        connection.close()

    def _select(self, key: int) -> list[tuple[int, str, str]]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        found: list[tuple[int, str, str]] = connection.execute(SELECT, (key,)).fetchall()
        return found

    async def read(self, key: int) -> None:
        """Read one row."""
        found = await asyncio.get_running_loop().run_in_executor(self._threads, self._select, key)
        assert found[0][0] == key


class Layered:
    """``db/sqlite`` called as a service calls it: policy, plan, limits, breaker, deadline, metrics, log."""

    def __init__(self, layer: Layer) -> None:
        self._context = service_context(
            layer.calls, layer.control.journal, service="order", tenant="bench", seconds=3600
        )

    async def fill(self) -> None:
        """Put the rows into the tenant's own file."""
        context = self._context
        table = "create table item (id integer primary key, name text not null, price text not null)"
        await context.invoke("db", "execute", ExecuteRequest(sql=table), provider="sqlite")
        statements = [Statement(sql=INSERT, parameters=list(row)) for row in rows()]
        for start in range(0, ROWS, 1000):
            part = ExecuteBatchRequest(statements=statements[start : start + 1000])
            await context.invoke("db", "execute_batch", part, provider="sqlite")

    async def read(self, key: int) -> None:
        """Read one row."""
        request = QueryRequest(sql=SELECT, parameters=[key])
        found = await self._context.invoke("db", "query", request, provider="sqlite")
        assert found.rows[0][0] == key


def share(settings: Settings) -> None:
    """Make a file that tenants share, as an operator would."""
    folder = settings.models_dir / "db-sqlite"
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "bench.sqlite3") as connection:
        connection.executescript(
            "create table item (org text not null, id integer not null, name text not null, price text not null,"
            " primary key (org, id)); create table erp_isolation (table_name text, tenant_column text);"
            "insert into erp_isolation values ('item', 'org')"
        )
        for org in ("bench", "other"):
            connection.executemany("insert into item values (?, ?, ?, ?)", [(org, *row) for row in rows()])
    connection.close()


async def one_round(read: Read, calls: int, concurrency: int) -> float:
    """Return microseconds of CPU time per call."""

    async def reader(first: int) -> None:
        for number in range(first, calls, concurrency):
            await read(number * 7919 % ROWS)

    started = time.process_time()
    await asyncio.gather(*(reader(first) for first in range(concurrency)))
    return (time.process_time() - started) / calls * 1e6


async def measure(folder: Path, options: argparse.Namespace) -> float:
    """Print both sides and return the median ratio."""
    settings = Settings(data_dir=folder / "data", log_level="warning")
    if options.pooled:
        share(settings)
    async with running(settings) as layer:
        await layer.control.tenants.create("bench")
        await layer.control.connections.put(POOLED if options.pooled else SILOED)
        layered = Layered(layer)
        if not options.pooled:
            await layered.fill()
        sides = {"plain": Plain(folder / "plain.sqlite3").read, "layer": layered.read}
        micros: dict[str, list[float]] = {name: [] for name in sides}
        for name, read in sides.items():
            await one_round(read, options.concurrency * 10, options.concurrency)
            micros[name].clear()
        for _ in range(options.rounds):
            for name, read in sides.items():
                micros[name].append(await one_round(read, options.calls, options.concurrency))
    for name, values in micros.items():
        print(f"{name:6} {spread(values)} us CPU per call")
    ratios = [plain / ours for plain, ours in zip(micros["plain"], micros["layer"], strict=True)]
    print(f"plain / layer {spread(ratios)}   budget >= {RATIO_BUDGET}")
    return median(ratios)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--pooled", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratio = asyncio.run(measure(Path(folder), options))
    sys.exit(0 if ratio >= RATIO_BUDGET or options.pooled else 1)


if __name__ == "__main__":
    main()
