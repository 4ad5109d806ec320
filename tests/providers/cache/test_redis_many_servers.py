"""Masters that die behind sentinels, and slots that move in a cluster, while a layer goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis.crc import key_slot
from tests.support.redis_servers import PASSWORD, Cluster, Watched, cluster, watched

from erp.contracts.models import bus as bus_api
from erp.contracts.models import cache as api
from erp.errors import ProviderError
from erp.providers.bus.redis.provider import RedisBus
from erp.providers.cache.redis.provider import RedisCache
from erp.runtime.conformance.case import Case, cases_for
from erp.runtime.conformance.plugin import Suite, judge
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(180)]

SLOT = key_slot(b"erp:{acme/default}:e:")
FAILED_OVER_SECONDS = 30
"""Generous: this machine may be busy. The sentinels take a master for down after one second."""


@pytest.fixture(scope="module", autouse=True)
def _allowed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ALLOW_VARIABLE, "127.0.0.1/32")
        yield


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("sentinels")) as made:
        yield made


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context(seconds=120)
    return made


def of_sentinels(behind: Watched) -> dict[str, Any]:
    hosts = [sentinel.address for sentinel in behind.sentinels]
    return {"mode": "sentinel", "hosts": hosts, "password": PASSWORD, "connect_timeout_seconds": 1}


def of_cluster(nodes: Cluster) -> dict[str, Any]:
    return {"mode": "cluster", "hosts": [node.address for node in nodes.nodes], "password": PASSWORD}


async def eventually(call: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat what is unavailable, as the layer does."""
    ends = time.monotonic() + FAILED_OVER_SECONDS
    while True:
        try:
            return await call()
        except ProviderError as error:
            if error.code != "unavailable" or time.monotonic() > ends:
                raise
            await asyncio.sleep(0.1)


@pytest.mark.anyio
async def test_a_master_that_is_killed_is_replaced_and_the_layer_follows_within_seconds(
    behind: Watched, open_context: OpenContext, ctx: CallContext
) -> None:
    cache = RedisCache(of_sentinels(behind), open_context)
    await cache.open()
    await cache.set(api.SetRequest(key="k", value="kept"), ctx)
    old = behind.master()
    old.ask("WAIT", 1, 5000)
    old.kill()
    started = time.monotonic()
    await eventually(lambda: cache.set(api.SetRequest(key="new", value=1), ctx))
    took = time.monotonic() - started

    assert bytes((await cache.get(api.GetRequest(key="k"), ctx)).value) == b'"kept"'
    assert (await cache.health()).status == "ok"
    assert behind.master() is not old
    assert took < FAILED_OVER_SECONDS, f"{took:.1f} s"
    old.start()
    assert (await cache.increment(api.IncrementRequest(key="n"), ctx)).value == 1
    await cache.close()


@pytest.mark.anyio
async def test_a_sentinel_that_is_killed_is_not_missed(
    behind: Watched, open_context: OpenContext, ctx: CallContext
) -> None:
    behind.sentinels[0].kill()
    try:
        cache = RedisCache(of_sentinels(behind), open_context)
        await cache.open()
        assert (await cache.increment(api.IncrementRequest(key="m"), ctx)).value == 1
        await cache.close()
    finally:
        behind.sentinels[0].start()


@pytest.mark.anyio
async def test_a_name_that_no_sentinel_knows_is_unavailable(behind: Watched, open_context: OpenContext) -> None:
    cache = RedisCache({**of_sentinels(behind), "sentinel_service": "no-such-master"}, open_context)
    with pytest.raises(ProviderError) as caught:
        await cache.open()
    await cache.close()

    assert caught.value.code == "unavailable"


@pytest.mark.anyio
async def test_a_slot_that_moves_is_followed_while_it_moves_and_after(
    nodes: Cluster, open_context: OpenContext, ctx: CallContext
) -> None:
    cache, bus = RedisCache(of_cluster(nodes), open_context), RedisBus(of_cluster(nodes), open_context)
    await cache.open()
    await bus.open()
    await cache.set(api.SetRequest(key="k", value="kept", tags=["t"]), ctx)
    source = nodes.owner(SLOT)
    target = next(node for node in nodes.nodes if node is not source)
    nodes.begin_move(SLOT, target)
    while_moving = await cache.get(api.GetRequest(key="k"), ctx)
    nodes.end_move(SLOT, target)

    assert bytes(while_moving.value) == b'"kept"', "ASK is followed"
    assert bytes((await cache.get(api.GetRequest(key="k"), ctx)).value) == b'"kept"', "MOVED is followed"
    assert (await cache.increment(api.IncrementRequest(key="n"), ctx)).value == 1
    event = bus_api.CloudEvent(id="e", source="/test", type="test.happened")
    await bus.publish(bus_api.PublishRequest(topic="t", event=event), ctx)
    pulled = await bus.pull(bus_api.PullRequest(topic="t", group="g"), ctx)
    assert [one.event.id for one in pulled.deliveries] == ["e"]
    assert (await cache.invalidate_prefix(api.InvalidatePrefixRequest(prefix="k"), ctx)).removed == 1
    assert nodes.owner(SLOT) is target
    await cache.close()
    await bus.close()


@pytest.mark.anyio
async def test_servers_that_sentinels_name_are_judged_too(
    behind: Watched, open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, ",".join(f"127.0.0.1/32:{one.port}" for one in behind.sentinels))
    cache = RedisCache(of_sentinels(behind), open_context)
    with pytest.raises(ProviderError) as caught:
        await cache.open()
    await cache.close()

    assert caught.value.code == "failed_precondition"
    assert ALLOW_VARIABLE in caught.value.message


@pytest.mark.anyio
async def test_nodes_that_a_cluster_names_are_judged_too(
    nodes: Cluster, open_context: OpenContext, ctx: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = nodes.owner(SLOT)
    other = next(node for node in nodes.nodes if node is not owner)
    monkeypatch.setenv(ALLOW_VARIABLE, f"127.0.0.1/32:{other.port}")
    cache = RedisCache({**of_cluster(nodes), "hosts": [other.address]}, open_context)
    with pytest.raises(ProviderError) as caught:
        await cache.open()
        await cache.increment(api.IncrementRequest(key="n"), ctx)
    await cache.close()

    assert caught.value.code == "failed_precondition"
    assert ALLOW_VARIABLE in caught.value.message


@pytest.mark.anyio
async def test_a_node_that_dies_is_said_to_be_down_and_used_again_when_it_is_back(
    nodes: Cluster, open_context: OpenContext, ctx: CallContext
) -> None:
    cache = RedisCache({**of_cluster(nodes), "connect_timeout_seconds": 1}, open_context)
    await cache.open()
    await cache.set(api.SetRequest(key="k", value=1), ctx)
    owner = nodes.owner(SLOT)
    owner.kill()
    with pytest.raises(ProviderError) as caught:
        await cache.get(api.GetRequest(key="k"), ctx)
    health = await cache.health()
    owner.start()
    await eventually(lambda: cache.set(api.SetRequest(key="k", value=2), ctx))

    assert caught.value.code == "unavailable"
    assert health.status == "down"
    assert bytes((await cache.get(api.GetRequest(key="k"), ctx)).value) == b"2"
    assert (await cache.health()).status == "ok"
    nodes.wait()
    await cache.close()


_suites: dict[str, Suite] = {}


def _cases(ref: str) -> list[Case]:
    return cases_for(Suite(ref, {}).manifest)


@pytest.mark.parametrize(
    ("ref", "case"),
    [pytest.param(ref, case, id=f"{ref}-{case.id}") for ref in ("cache/redis", "bus/redis") for case in _cases(ref)],
)
def test_the_contract_is_kept_on_a_cluster(nodes: Cluster, ref: str, case: Case) -> None:
    if ref not in _suites:
        _suites[ref] = Suite(ref, of_cluster(nodes))
    judge(_suites[ref].outcome(case))
