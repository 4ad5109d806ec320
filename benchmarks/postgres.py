"""What ``db/postgres`` costs: a read by key through the whole layer against what one would write by hand.

Usage: python benchmarks/postgres.py [--rounds 9] [--seconds 1.5] [--calls 3000] [--concurrency 16] [--quick] [--pooled]

Needs a PostgreSQL in ERP_TEST_POSTGRES. Over HTTP: requests per CPU second of the server process with all steps on
(authentication, limits, validation, policy, metrics, trace), next to a bare FastAPI handler on asyncpg's pool reading
the same row (budget: at least 1.0). In one process: CPU time of a call as a service makes it, next to
asyncpg's pool alone (budget: at least 0.5 of it). Rounds are interleaved; median with least and most. With --pooled the
layer reads from a table that tenants share by row-level security, in a transaction of its own for each call, which has
no budget. Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
from load import Server, endless, median, request, spread, start
from pipeline import HERE, layer, per_cpu_second

from erp.contracts.models.db import QueryRequest
from erp.main import Settings, running
from erp.runtime.ports import Connection
from erp.runtime.service_calls import service_context
from erp.vendor_clients.row_security.names import TableName
from erp.vendor_clients.row_security.postgres import isolating

HTTP_BUDGET, CALL_BUDGET = 1.0, 0.5
ROWS = 10_000
SELECT = "select id, name, price from bench_item where id = ?"
QUERY = "/providers/db/postgres/query"
ROLE, PASSWORD = "erp_bench", "erp-bench-password"
ADDRESS = os.environ.get("ERP_TEST_POSTGRES", "")
ALLOWED = "127.0.0.0/8"
Read = Callable[[int], Awaitable[None]]


async def fill(*, pooled: bool) -> None:
    """Make the table that both sides read."""
    connection = await asyncpg.connect(ADDRESS)
    try:
        await connection.execute("drop table if exists bench_item")
        await connection.execute(
            "create table bench_item (id integer primary key, name text not null, price numeric not null)"
        )
        values = [(number, f"Item {number}", "19.90") for number in range(ROWS)]
        await connection.executemany("insert into bench_item values ($1, $2, $3::text::numeric)", values)
        if pooled:
            await share(connection)
        await connection.execute("analyze bench_item")
    finally:
        await connection.close()


async def share(connection: Any) -> None:
    """Let tenants share the table, as an operator would; all its rows are one tenant's."""
    if not await connection.fetchval("select 1 from pg_roles where rolname = $1", ROLE):
        await connection.execute(f"create role {ROLE} login password '{PASSWORD}'")
    await connection.execute("alter table bench_item add column tenant text not null default 'bench'")
    await connection.execute("alter table bench_item drop constraint bench_item_pkey, add primary key (tenant, id)")
    for statement in isolating(TableName("public", "bench_item"), "tenant", ROLE):
        await connection.execute(statement)


def config(*, pooled: bool) -> dict[str, Any]:
    """Return the layer's configuration of the server."""
    url = urlsplit(ADDRESS)
    user = {"user": unquote(url.username or ""), "password": unquote(url.password or "")}
    if pooled:
        user = {"user": ROLE, "password": PASSWORD, "mode": "pooled"}
    return {"host": url.hostname, "port": url.port, "database": url.path.lstrip("/"), "tls": "disable", **user}


# -- over HTTP ---------------------------------------------------------------------------------------


def configure(server: Server, folder: Path, settings: dict[str, Any]) -> None:
    """Give the layer's tenant its connection."""
    made = subprocess.run(
        [sys.executable, "-c", "from erp.cli import main; main()", "keys", "create", "--tenant", "bench", "--role", "admin",
         "--data-dir", str(folder / "data")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    post = urllib.request.Request(
        f"http://{server.host}:{server.port}/providers/db/postgres/configure",
        json.dumps({"config": settings}).encode(),
        {"Authorization": f"Bearer {made.stdout.strip()}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(post) as answer:
        assert answer.status == 200


def over_http(folder: Path, options: argparse.Namespace) -> float:
    """Print requests per CPU second of both servers; return the median ratio."""
    ours, key = layer(folder)
    bare = start("asyncpg", [sys.executable, str(HERE / "bare.py"), "asyncpg"], log=folder / "asyncpg.log")
    try:
        configure(ours, folder, config(pooled=options.pooled))
        headers = {"authorization": f"Bearer {key}"}
        bodies = [json.dumps({"params": {"sql": SELECT, "parameters": [number]}}).encode() for number in range(1000)]
        ready = [request(QUERY, body, headers) for body in bodies]
        plain = [request("/item", b'{"params": {"id": %d}}' % number, {}) for number in range(1000)]
        sides = {
            "layer": (ours, endless(lambda number: ready[number % 1000])),
            "fastapi": (bare, endless(lambda number: plain[number % 1000])),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for round_ in range(options.rounds + 1):
            for name, (server, messages) in sides.items():
                rate = per_cpu_second(server, messages, options.concurrency, options.seconds)
                if round_:
                    rates[name].append(rate)
    finally:
        for server in (ours, bare):
            server.stop()
    print("\nreads by key over HTTP: requests per CPU second of the server, median (min to max)")
    for name, values in rates.items():
        print(f"  {name:10} {median(values):9.0f} ({min(values):.0f} to {max(values):.0f})")
    ratios = [mine / theirs for mine, theirs in zip(rates["layer"], rates["fastapi"], strict=True)]
    print(f"  layer / fastapi    {spread(ratios)}   budget >= {HTTP_BUDGET}")
    return median(ratios)


# -- in one process ----------------------------------------------------------------------------------


async def one_round(read: Read, calls: int, concurrency: int) -> float:
    """Return microseconds of CPU time per call."""

    async def reader(first: int) -> None:
        for number in range(first, calls, concurrency):
            await read(number * 7919 % ROWS)

    started = time.process_time()
    await asyncio.gather(*(reader(first) for first in range(concurrency)))
    return (time.process_time() - started) / calls * 1e6


async def in_process(folder: Path, options: argparse.Namespace) -> float:
    """Print CPU time per call of both sides; return the median ratio."""
    settings = Settings(data_dir=folder / "own", log_level="warning")
    async with running(settings) as layer_, asyncpg.create_pool(ADDRESS, min_size=8, max_size=8) as pool:
        await layer_.control.tenants.create("bench")
        plain = config(pooled=options.pooled)
        password = plain.pop("password")
        version = await layer_.vault.put("bench", "bench/password", password)
        await layer_.control.connections.put(
            Connection(
                tenant="bench", domain="db", provider="postgres", name="default", revision="", policy={}, config=plain,
                secrets={"password": f"secret://bench/password#{version}"},
            )
        )  # fmt: skip
        context = service_context(layer_.calls, layer_.control.journal, service="order", tenant="bench", seconds=3600)

        async def through_layer(key: int) -> None:
            asked = QueryRequest(sql=SELECT, parameters=[key])
            found = await context.invoke("db", "query", asked, provider="postgres")
            assert found.rows[0][0] == key

        async def alone(key: int) -> None:
            rows = await pool.fetch("select id, name, price from bench_item where id = $1", key)
            assert rows[0]["id"] == key

        sides: dict[str, Read] = {"asyncpg": alone, "layer": through_layer}
        micros: dict[str, list[float]] = {name: [] for name in sides}
        for round_ in range(options.rounds + 1):
            for name, read in sides.items():
                spent = await one_round(read, options.calls, options.concurrency)
                if round_:
                    micros[name].append(spent)
    print("\nreads by key in one process: us CPU per call")
    for name, values in micros.items():
        print(f"  {name:10} {spread(values)}")
    ratios = [theirs / mine for theirs, mine in zip(micros["asyncpg"], micros["layer"], strict=True)]
    print(f"  asyncpg / layer    {spread(ratios)}   budget >= {CALL_BUDGET}")
    return median(ratios)


def main() -> int:
    """Run both parts; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--pooled", action="store_true", help="a table that tenants share")
    options = parser.parse_args()
    if not ADDRESS:
        sys.exit("set ERP_TEST_POSTGRES to the address of a PostgreSQL")
    if options.quick:
        options.rounds, options.seconds, options.calls = 3, 0.5, 1000
    os.environ.setdefault("ERP_EGRESS_ALLOW", ALLOWED)
    asyncio.run(fill(pooled=options.pooled))
    with tempfile.TemporaryDirectory() as name:
        import uvloop

        http = over_http(Path(name), options)
        called = uvloop.run(in_process(Path(name), options))
    kept = (http >= HTTP_BUDGET and called >= CALL_BUDGET) or options.pooled
    print("\nall budgets kept" if kept else "\na budget was missed")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
