"""Metadata tells about how many rows there are and how busy the connections are, and only what is true."""

from __future__ import annotations

import asyncio

import pytest
from tests.providers.db.conftest import Caller

from erp.contracts.models import db as api
from erp.providers.db.sqlite import catalogue
from erp.runtime.spi import UNSET

pytestmark = pytest.mark.anyio


async def described(caller: Caller) -> dict[str, api.Table]:
    return {
        table.name: table for table in (await caller.database.metadata(api.MetadataRequest(), caller.context)).tables
    }


async def test_small_tables_are_counted_and_views_have_no_count(caller: Caller) -> None:
    await caller.execute('create table "odd ""name" (a)')
    await caller.execute("create view low as select * from stock where quantity < 2")
    tables = await described(caller)
    assert {name: table.row_estimate for name, table in tables.items()} == {'odd "name': 0, "stock": 5, "low": UNSET}


async def test_a_large_table_has_the_figure_of_its_last_analysis(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "COUNTED", 3)
    assert (await described(caller))["stock"].row_estimate is UNSET
    await caller.execute("analyze")
    assert (await described(caller))["stock"].row_estimate == 5


@pytest.mark.parametrize("opened", [{"readers": 2}], indirect=True)
async def test_the_pool_tells_who_works_and_who_waits(caller: Caller) -> None:
    async def pool() -> tuple[int, int, int]:
        found = (await caller.database.metadata(api.MetadataRequest(), caller.context)).pool
        assert isinstance(found, api.MetadataResultPool)
        return found.size, found.in_use, found.waiting

    assert await pool() == (3, 0, 0)
    handle = await caller.begin()
    waiting = asyncio.create_task(caller.begin())
    await asyncio.sleep(0)
    assert await pool() == (3, 1, 1)
    await caller.commit(handle)
    await caller.commit(await waiting)
    assert await pool() == (3, 0, 0)
