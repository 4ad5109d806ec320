"""Servers whose disk is full: writes are refused as such, nothing is half written, and room is all it takes to go on."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.conformance.live import LIVE
from tests.durability.faults import Disk, small_disk
from tests.faults.conftest import FAULTED, Line
from tests.faults.effects import Counted, Inserted, Published, counts
from tests.support.faulty_proxy import faulty_proxy
from tests.support.server_process import ServerProcess

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.conformance.host import ALPHA, Host

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.live,
    pytest.mark.skipif(sys.platform != "linux", reason="a disk is mounted, and servers are found by way of /proc"),
]
MOST_WRITES = 200
REFUSALS = 3
MEGABYTE = 1024 * 1024
RANDOM = base64.b64encode(os.urandom(300_000)).decode()  # nothing that a server could compress


class Small(NamedTuple):
    """How small a server's disk is, and what the server is like when that is full."""

    megabytes: int
    leave: int = 0
    """Bytes that are left on a full disk."""
    characters: int = len(RANDOM)
    """What a write brings."""
    is_silent: bool = False
    """It answers no write any more, until it is started again with room."""
    blocks: bool = False
    """It hears publishers no more, takes what they have sent by then when there is room, and goes on to deliver."""


SMALL = {
    "bus/nats": Small(32, is_silent=True),
    "bus/rabbitmq": Small(
        160, leave=45 * MEGABYTE, characters=50_000, blocks=True
    ),  # less than the limit below which it takes nothing
    "bus/redis": Small(16),
    "cache/redis": Small(16),
    "db/mysql": Small(160, characters=6000),  # MariaDB ends itself when it has no room to undo a row of many pages
    "db/postgres": Small(160),
}
"""Providers whose server keeps something on a disk."""


def body(line: Line) -> str:
    """What a write of a line brings."""
    return RANDOM[: SMALL[line.ref].characters]


class LargeRow(Inserted):
    """A row that does not fit into what a server has set aside."""

    async def prepare(self) -> None:
        kind = {"mysql": "LONGTEXT"}.get(self.line.provider, "TEXT")
        await self.line.call("execute", {"sql": f"CREATE TABLE {self.table} (name VARCHAR(100), body {kind})"})

    async def write(self, name: str, *, seconds: float | None = None) -> Any:
        params = {"sql": f"INSERT INTO {self.table} (name, body) VALUES (?, ?)", "parameters": [name, body(self.line)]}
        return await self.line.call("execute", params, key=f"{self.line.name}-{name}", seconds=seconds)

    async def count(self, name: str) -> int:
        params = {"sql": f"SELECT body FROM {self.table} WHERE name = ?", "parameters": [name]}
        rows = (await self.line.call("query", params))["rows"]
        assert all(row == [body(self.line)] for row in rows), "half a row was kept"
        return len(rows)


class LargeEntry(Counted):
    """An entry with a large value."""

    async def write(self, name: str, *, seconds: float | None = None) -> Any:
        params = {"key": name, "value": body(self.line)}
        return await self.line.call("set", params, key=f"{self.line.name}-{name}", seconds=seconds)

    async def count(self, name: str) -> int:
        found = await self.line.call("get", {"key": name})
        assert not found["found"] or found["value"] == body(self.line), "half a value was kept"
        return int(found["found"])


class LargeEvent(Published):
    """An event with large data."""

    def data(self, name: str) -> str:
        return name + body(self.line)


LARGE: dict[str, type[Any]] = {"bus": LargeEvent, "cache": LargeEntry, "db": LargeRow}


@pytest.fixture
def disk(ref: str) -> Iterator[Disk]:
    """A disk that servers of other users reach."""
    folder = Path(tempfile.mkdtemp(prefix="erp-disk-"))
    folder.chmod(0o711)
    try:
        with small_disk(folder, SMALL[ref].megabytes) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(disk: Disk, ref: str) -> Iterator[ServerProcess]:
    """A server with everything it keeps on the small disk."""
    made = ServerProcess(LIVE[ref].VARIABLE.removeprefix("ERP_TEST_").lower(), disk.path)
    if ref.endswith("/redis"):
        _append_only(made)
    yield made
    made.close()


def _append_only(server: ServerProcess) -> None:
    """Have Redis write down what it is told; the tests start it without."""
    from redis import Redis

    with Redis.from_url(server.address) as client:
        client.config_set("appendonly", "yes")
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.01)


@pytest.fixture
async def full(host: Host, ref: str, server: ServerProcess) -> AsyncIterator[Line]:
    """A connection to the server."""
    async with faulty_proxy("127.0.0.1", server.port) as proxy:
        made = Line(host, ref, ALPHA, dict(LIVE[ref].config(server.address)), proxy)
        made.effect = LARGE[made.domain](made)
        await made.connect()
        yield made
        await made.close()


async def written_until_refused(line: Line, *, seconds: float) -> tuple[list[str], dict[str, ProviderError]]:
    """Write until the disk was full some times over; return what was confirmed and what was not."""
    confirmed: list[str] = []
    refused: dict[str, ProviderError] = {}
    for number in range(MOST_WRITES):
        try:
            await line.effect.write(f"full-{number:03}", seconds=seconds)
            confirmed.append(f"full-{number:03}")
        except ProviderError as error:
            refused[f"full-{number:03}"] = error
        if len(refused) == REFUSALS:
            return confirmed, refused
    pytest.fail("the disk is not full")


@pytest.mark.parametrize("ref", [one for one in FAULTED if one in SMALL])
async def test_a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room(
    full: Line, disk: Disk, server: ServerProcess
) -> None:
    small = SMALL[full.ref]
    await full.effect.write("before")
    assert await full.effect.count("before") == 1
    await full.effect.write("waiting")
    disk.fill(leave=small.leave)

    confirmed, refused = await written_until_refused(full, seconds=1.0 if small.is_silent else 5.0)
    told = {error.code for error in refused.values()}
    doubtful = {ErrorCode.OUTCOME_UNKNOWN, *([ErrorCode.TIMEOUT] if small.is_silent or small.blocks else [])}
    assert told <= {*doubtful, ErrorCode.UNAVAILABLE}, refused
    assert small.is_silent or ErrorCode.UNAVAILABLE in told, refused
    await full.effect.read()
    if small.blocks:
        assert await full.effect.count("waiting") == 1

    disk.empty()
    if small.is_silent:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    await full.recovered()

    names = ["before", "waiting", *confirmed]
    assert await counts(full.effect, names) == dict.fromkeys(names, 1)
    for name, error in refused.items():
        assert await full.effect.count(name) <= (error.code in doubtful)
        if error.code is not ErrorCode.OUTCOME_UNKNOWN:
            await full.effect.write(name)
            count = await full.effect.count(name)
            assert count == 1 or (full.doubles and error.code in doubtful)


@pytest.mark.parametrize("ref", [one for one in FAULTED if one == "bus/nats"])
async def test_a_server_with_a_limit_below_its_disk_refuses_at_once_and_goes_on_serving(full: Line) -> None:
    confirmed, refused = await written_until_refused(full, seconds=10.0)

    assert {(error.code, error.retryable) for error in refused.values()} == {(ErrorCode.UNAVAILABLE, True)}
    assert await counts(full.effect, confirmed) == dict.fromkeys(confirmed, 1)
    assert await counts(full.effect, refused) == dict.fromkeys(refused, 0)
