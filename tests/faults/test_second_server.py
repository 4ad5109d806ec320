"""A failover route over two servers, of which the first is killed and comes back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
from tests.conformance.live import LIVE
from tests.faults.conftest import NOT_RESTARTED, Line, address_of, server_of, through, until
from tests.faults.effects import Inserted, counts
from tests.support.faulty_proxy import FaultyProxy

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.conformance.host import ALPHA, Host

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.live,
    pytest.mark.skipif(sys.platform != "linux", reason="servers are found and started again by way of /proc"),
]
READS, WRITES = 10, 12
ROUTE = "second-server"
AFTER_FAILURES = 2
FAILOVER = {"kind": "failover", "after_failures": AFTER_FAILURES, "retry_after_seconds": 0.2}


class Pair:
    """Two connections with a server each, and a line whose calls name the route over them."""

    def __init__(self, line: Line, first: Line, second: Line) -> None:
        self.line = line
        self.first = first
        self.second = second

    async def prepare(self) -> None:
        """Make on both servers what calls need, and the route."""
        self.line.target = (ROUTE, "default")
        for one in (self.first, self.second):
            if isinstance(self.line.effect, Inserted):
                one.effect = Inserted(one, self.line.effect.table)
            await one.connect()
        targets = [{"provider": one.provider, "connection": one.name} for one in (self.first, self.second)]
        path = f"/routes/{self.line.domain}/{ROUTE}"
        status, answer = await self.line.host.ask("PUT", path, ALPHA, {**FAILOVER, "targets": targets})
        assert status == 200, answer

    async def kill_first(self) -> None:
        """Kill the first server; one that would forget everything is only no longer reached."""
        if self.line.ref in NOT_RESTARTED:
            await self.line.proxy.vanish()
        else:
            await asyncio.to_thread(server_of(self.line.ref).kill)

    async def start_first(self) -> None:
        """End ``kill_first``."""
        if self.line.ref in NOT_RESTARTED:
            await self.line.proxy.listen()
        else:
            await asyncio.to_thread(server_of(self.line.ref).start)

    async def close(self) -> None:
        """Remove the route and the connections."""
        await self.line.host.ask("DELETE", f"/routes/{self.line.domain}/{ROUTE}", ALPHA)
        await self.first.close()
        await self.second.close()


@pytest.fixture
async def pair(host: Host, ref: str, proxy: FaultyProxy) -> AsyncIterator[Pair]:
    """One of the servers is the one that all tests share: the second, or the first where that cannot be killed."""
    shared = address_of(ref)
    if ref not in NOT_RESTARTED:
        first, second = server_of(ref).address, shared
    else:  # both of them on one server have their objects apart, and tables of one name would be one
        first, second = through(shared, proxy), server_of(ref).address if ref.startswith("db/") else shared
    made = Pair(
        Line(host, ref, ALPHA, {}, proxy),
        Line(host, ref, ALPHA, dict(LIVE[ref].config(first)), proxy),
        Line(host, ref, ALPHA, dict(LIVE[ref].config(second)), proxy),
    )
    await made.prepare()
    yield made
    await made.close()


async def test_the_second_server_answers_while_the_first_is_dead_and_the_first_when_it_is_back(pair: Pair) -> None:
    line, first, second = pair.line, pair.first, pair.second
    await line.effect.write("before")
    assert line.answered_by == first.name

    await pair.kill_first()
    failed: dict[str, ProviderError] = {}
    for number in range(WRITES):
        try:
            await line.effect.write(f"during-{number:02}", seconds=10.0)
        except ProviderError as error:
            failed[f"during-{number:02}"] = error
    for _ in range(READS):
        await line.effect.read()
        assert line.answered_by == second.name
    assert [error.code for error in failed.values() if error.code is not ErrorCode.OUTCOME_UNKNOWN] == []
    assert len(failed) <= AFTER_FAILURES, "calls go on to a target that keeps failing"

    await pair.start_first()
    await first.recovered()

    async def is_back() -> bool:
        await line.effect.read()
        return line.answered_by == first.name

    await until(is_back, "calls never go back to the first server")
    names = [f"during-{number:02}" for number in range(WRITES)]
    assert await counts(second.effect, names) == {name: 0 if name in failed else 1 for name in names}
    assert await counts(first.effect, names) == dict.fromkeys(names, 0)
