"""A process that is killed while tenants change a shared DuckDB file loses nothing confirmed and leaves nothing by half."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from tests.providers.db.duckdb_pool import make_pool, open_for, pool_path

from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio

WRITER = """
import asyncio, itertools, sys, time
from dataclasses import replace
from pathlib import Path

from erp.contracts.models import db as api
from erp.providers.db.duckdb.provider import DuckdbDatabase
from erp.runtime.context import Actor, CallContext
from erp.runtime.standalone import place

shared, data = map(Path, sys.argv[1:])


async def write(tenant):
    database = DuckdbDatabase({"mode": "pooled", "file": "main"}, place(data, shared_dir=shared, tenant=tenant))
    await database.open()
    actor = Actor(id="writer", tenant=tenant, roles=frozenset({"developer"}))
    for number in itertools.count(1000):
        context = CallContext(tenant=tenant, actor=actor, request_id="req_1", deadline=time.monotonic() + 30)
        both = [
            api.Statement(sql=sql, parameters=[number])
            for sql in ("insert into orders values (?, 1, 'x')", "insert into line (id, order_id) values (?, 1)")
        ]
        await database.execute_batch(api.ExecuteBatchRequest(statements=both), context)
        print(tenant, number, flush=True)


async def main():
    await asyncio.gather(write("acme"), write("globex"))


asyncio.run(main())
"""


@pytest.mark.slow
async def test_what_tenants_of_a_killed_process_had_confirmed_is_there_and_nothing_by_half(
    open_context: OpenContext, call_context: Any
) -> None:
    make_pool(open_context)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, str(open_context.shared_dir), str(open_context.data_dir)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(60)]
    process.kill()
    lines += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()

    confirmed = [line.split() for line in lines if line.endswith(b"\n")]
    assert pool_path(open_context).exists()
    for tenant in ("acme", "globex"):
        numbers = [int(number) for name, number in confirmed if name.decode() == tenant]
        caller = await open_for(open_context, call_context, tenant)
        orders = await caller.rows("select id from orders where id >= 1000 order by id")
        lines_ = await caller.rows("select id from line where id >= 1000 order by id")
        assert orders == lines_
        assert orders in ([[one] for one in numbers], [[one] for one in [*numbers, numbers[-1] + 1]])
        await caller.execute("insert into orders values (-1, 1, 'after')")
        await caller.database.close()
