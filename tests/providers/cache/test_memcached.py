"""What is special to Memcached: short keys, whole seconds, servers that share the keys, passwords that must not be stored."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import certificates
from tests.support.losing_proxy import losing_proxy
from tests.support.memcached_server import MemcachedServer, memcached

from erp.contracts.models import cache as api
from erp.errors import ProviderError
from erp.providers.cache.memcached import entries
from erp.providers.cache.memcached.entries import Entry, Names
from erp.providers.cache.memcached.provider import MemcachedCache
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

pytestmark = [pytest.mark.anyio, pytest.mark.live]


@pytest.fixture(scope="module")
def server() -> Iterator[MemcachedServer]:
    with memcached() as made:
        yield made


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "127.0.0.1/32")


@pytest.fixture
async def cache(server: MemcachedServer, open_context: OpenContext) -> AsyncIterator[MemcachedCache]:
    made = MemcachedCache({"hosts": [server.address]}, open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context(seconds=60)
    return made


async def refusal(call: Awaitable[Any]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await call
    return caught.value


async def eventually(call: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat what is unavailable, as the layer does, for half a minute."""
    ends = time.monotonic() + 30
    while True:
        try:
            return await call()
        except ProviderError as error:
            if error.code != "unavailable" or time.monotonic() > ends:
                raise
            await asyncio.sleep(0.05)


async def test_a_server_that_was_killed_and_started_again_is_used_again(
    server: MemcachedServer, cache: MemcachedCache, ctx: CallContext
) -> None:
    before = await cache.set(api.SetRequest(key="k", value=1), ctx)
    server.kill()
    try:
        gone = await refusal(cache.get(api.GetRequest(key="k"), ctx))
        health = await cache.health()
    finally:
        server.start()

    assert gone.code == "unavailable"
    assert health.status == "down"
    assert (await eventually(lambda: cache.get(api.GetRequest(key="k"), ctx))).found is False
    after = await cache.set(api.SetRequest(key="k", value=2), ctx)
    assert after.version != before.version
    stale = api.CompareAndSetRequest(key="k", value=3, expected_version=before.version)
    assert (await cache.compare_and_set(stale, ctx)).stored is False


async def test_a_write_whose_answer_is_lost_has_an_unknown_outcome_and_is_not_repeated(
    server: MemcachedServer, cache: MemcachedCache, open_context: OpenContext, ctx: CallContext
) -> None:
    async with losing_proxy(server.port) as proxy:
        behind = MemcachedCache({"hosts": [f"127.0.0.1:{proxy.port}"]}, open_context)
        await behind.open()
        await behind.increment(api.IncrementRequest(key="lost"), ctx)
        proxy.loses = b"ms "
        lost = await refusal(behind.increment(api.IncrementRequest(key="lost"), ctx))
        retryable = await refusal(behind.set(api.SetRequest(key="k", value=1), ctx))
        proxy.loses = None
        assert (await behind.increment(api.IncrementRequest(key="lost"), ctx)).value == 3
        await behind.close()

    assert lost.code == "outcome_unknown"
    assert retryable.code == "unavailable", "writing the same value twice does no harm"


async def test_calls_beyond_the_pool_wait_and_then_are_refused(
    server: MemcachedServer, open_context: OpenContext, ctx: CallContext
) -> None:
    config = {"hosts": [server.address], "max_connections": 2, "pool_wait_seconds": 0.1}
    cache = MemcachedCache(config, open_context)
    await cache.open()
    await asyncio.gather(*(cache.set(api.SetRequest(key=f"k{number}", value=1), ctx) for number in range(50)))
    server.pause()
    try:
        held = [asyncio.ensure_future(cache.get(api.GetRequest(key="k1"), ctx)) for _ in range(2)]
        await asyncio.sleep(0.05)
        refused = await refusal(cache.get(api.GetRequest(key="k1"), ctx))
    finally:
        server.resume()

    assert (refused.code, refused.retry_after_seconds) == ("unavailable", 1.0)
    assert [one.found for one in await asyncio.gather(*held)] == [True, True]
    await cache.close()


async def test_a_silent_server_is_given_up(
    server: MemcachedServer, open_context: OpenContext, ctx: CallContext
) -> None:
    cache = MemcachedCache({"hosts": [server.address], "answer_timeout_seconds": 0.2}, open_context)
    await cache.open()
    server.pause()
    try:
        silent = await refusal(cache.get(api.GetRequest(key="k"), ctx))
    finally:
        server.resume()

    assert silent.code == "unavailable"
    await eventually(lambda: cache.set(api.SetRequest(key="k", value=1), ctx))
    await cache.close()


async def test_a_value_larger_than_the_server_takes_is_refused_and_the_old_one_is_not_shown(
    cache: MemcachedCache, ctx: CallContext
) -> None:
    refused = await refusal(cache.set(api.SetRequest(key="large", value="x" * 1_100_000), ctx))

    assert refused.code == "failed_precondition"
    assert "-I" in refused.message
    assert (await cache.get(api.GetRequest(key="large"), ctx)).found is False
    await cache.set(api.SetRequest(key="large", value="small"), ctx)
    assert bytes((await cache.get(api.GetRequest(key="large"), ctx)).value) == b'"small"'


async def test_hundreds_of_keys_with_values_larger_than_all_buffers_are_read_at_once(
    cache: MemcachedCache, ctx: CallContext
) -> None:
    wanted = [api.Entry(key=f"b{number}", value="x" * 40_000) for number in range(350)]
    await cache.set_many(api.SetManyRequest(entries=wanted), ctx)
    items = (await cache.get_many(api.GetManyRequest(keys=[one.key for one in wanted]), ctx)).items

    assert [(item.found, len(bytes(item.value))) for item in items] == [(True, 40_002)] * 350


async def test_a_long_lifetime_is_kept(cache: MemcachedCache, ctx: CallContext) -> None:
    await cache.set(api.SetRequest(key="year", value=1, ttl_seconds=365 * 24 * 3600), ctx)

    assert (await cache.get(api.GetRequest(key="year"), ctx)).found is True


class Clock:
    """A clock that stands."""

    @staticmethod
    def time() -> float:
        return 1_800_000_000.0


def test_a_lifetime_beyond_a_month_is_told_as_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "time", Clock)

    def told(seconds: float) -> int:
        return Entry("v", entries.death(seconds), b"").seconds()

    assert told(0.001) == 2
    assert told(10) == 11
    assert told(entries.MONTH - 1) == entries.MONTH
    assert told(entries.MONTH) == 1_800_000_000 + entries.MONTH + 1
    assert Entry("v", entries.death(None), b"").seconds() == 0


def test_keys_fit_and_never_meet() -> None:
    names = [Names("erp", tenant, connection) for tenant in ("a", "a/b", "h", "") for connection in ("c", "b/c", ":")]
    keys = ["k", "x" * 512, "\r\n", " ", "é" * 512, ":", "\u0000", "%20"]
    made = [one.of(key) for one in names for key in keys]

    assert len(set(made)) == len(made)
    assert all(len(name) <= 250 and name.isascii() and name.isprintable() and " " not in name for name in made)
    assert Names("erp", "a", "c").of("k") == "erp:a/c:k"


async def test_no_name_of_tenant_connection_or_key_reaches_another_tenant(
    server: MemcachedServer, cache: MemcachedCache, open_context: OpenContext, ctx: CallContext
) -> None:
    hostile = ["k\r\nflush_all", "k 1\r\nmd k", "acme/default", "%", "\u0000", "é" * 300]
    await cache.set(api.SetRequest(key="k", value="mine"), ctx)
    for name in hostile:
        for place in (
            dataclasses.replace(open_context, tenant=name),
            dataclasses.replace(open_context, connection=name),
        ):
            other = MemcachedCache({"hosts": [server.address]}, place)
            await other.open()
            for key in ("k", *hostile):
                assert (await other.get(api.GetRequest(key=key), ctx)).found is False
                await other.set(api.SetRequest(key=key, value="theirs"), ctx)
                assert (await other.delete(api.DeleteRequest(key=key), ctx)).deleted is True
            await other.close()

    assert bytes((await cache.get(api.GetRequest(key="k"), ctx)).value) == b'"mine"'


async def test_what_it_cannot_keep_is_refused_and_nothing_is_written(cache: MemcachedCache, ctx: CallContext) -> None:
    batch = [api.Entry(key="first", value=1), api.Entry(key="second", value=1, tags=["t"])]
    refused = await refusal(cache.set_many(api.SetManyRequest(entries=batch), ctx))

    assert refused.code == "unsupported"
    assert (await cache.get(api.GetRequest(key="first"), ctx)).found is False


async def test_servers_share_the_keys_and_one_that_is_away_takes_its_own_with_it(
    open_context: OpenContext, ctx: CallContext
) -> None:
    with memcached() as first, memcached() as second:
        cache = MemcachedCache({"hosts": [first.address, second.address]}, open_context)
        await cache.open()
        keys = [f"k{number}" for number in range(100)]
        await cache.set_many(api.SetManyRequest(entries=[api.Entry(key=key, value=key) for key in keys]), ctx)
        whole = (await cache.get_many(api.GetManyRequest(keys=keys), ctx)).items
        second.kill()
        answers = await asyncio.gather(
            *(cache.get(api.GetRequest(key=key), ctx) for key in keys), return_exceptions=True
        )
        health = await cache.health()
        await cache.close()

    assert [bytes(item.value).decode() for item in whole] == [f'"{key}"' for key in keys]
    kept = [one for one in answers if isinstance(one, api.GetResult) and one.found]
    lost = [one for one in answers if isinstance(one, ProviderError) and one.code == "unavailable"]
    assert len(kept) + len(lost) == 100
    assert 20 < len(kept) < 80
    assert health.status == "degraded"
    assert second.address in str(health.message)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[MemcachedServer]:
    users = tmp_path / "users"
    users.write_text("erp:right\n")
    with memcached("-Y", str(users)) as made:
        yield made


async def test_a_password_is_sent_to_a_server_that_asks_for_it(
    guarded: MemcachedServer, open_context: OpenContext, ctx: CallContext
) -> None:
    answers = []
    for more in ({"username": "erp", "password": "right"}, {"username": "erp", "password": "wrong"}, {}):
        cache = MemcachedCache({"hosts": [guarded.address], **more}, open_context)
        try:
            await cache.open()
            answers.append(str((await cache.increment(api.IncrementRequest(key="n"), ctx)).value))
        except ProviderError as error:
            answers.append(error.code.value)
        await cache.close()

    assert answers == ["1", "unauthenticated", "unauthenticated"]


async def test_a_password_is_never_stored_on_a_server_that_asks_for_none(
    server: MemcachedServer, open_context: OpenContext
) -> None:
    config = {"hosts": [server.address], "username": "erp", "password": "right"}
    refused = await refusal(MemcachedCache(config, open_context).open())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"get auth\r\n")
    stored = await reader.readline()
    writer.close()
    await writer.wait_closed()

    assert refused.code == "failed_precondition"
    assert stored == b"END\r\n"


async def test_tls_proves_the_server(tmp_path: Path, open_context: OpenContext, ctx: CallContext) -> None:
    made, foreign = certificates(tmp_path / "own"), certificates(tmp_path / "foreign")
    options = ("-Z", "-o", f"ssl_chain_cert={made.certificate},ssl_key={made.key}")
    with memcached(*options) as server:
        cache = MemcachedCache({"hosts": [server.address], "tls": True, "tls_ca": made.authority}, open_context)
        await cache.open()
        await cache.set(api.SetRequest(key="k", value=1), ctx)
        assert (await cache.get(api.GetRequest(key="k"), ctx)).found is True
        await cache.close()
        wrong = MemcachedCache({"hosts": [server.address], "tls": True, "tls_ca": foreign.authority}, open_context)
        refused = await refusal(wrong.open())
        await wrong.close()

    assert refused.code == "failed_precondition"
    assert "tls_ca" in refused.message


async def test_an_address_that_the_operator_does_not_allow_is_not_connected_to(
    server: MemcachedServer, open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALLOW_VARIABLE)
    cache = MemcachedCache({"hosts": [server.address]}, open_context)
    refused = await refusal(cache.open())
    await cache.close()

    assert refused.code == "failed_precondition"
    assert ALLOW_VARIABLE in refused.message
