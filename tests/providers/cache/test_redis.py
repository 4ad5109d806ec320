"""What is special to Redis: servers that die, answers that are lost, tags that must not pile up, names that try to escape."""

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
from tests.support.redis_servers import PASSWORD, RedisServer, free_port, single
from tests.support.redis_servers import eventually as now_and_then

from erp.contracts.models import cache as api
from erp.errors import ProviderError
from erp.providers.cache.redis.provider import RedisCache
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

pytestmark = [pytest.mark.anyio, pytest.mark.live]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with single(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "127.0.0.1/32")


@pytest.fixture(autouse=True)
def _empty(server: RedisServer) -> None:
    server.ask("FLUSHALL")


def settings(port: int, **more: Any) -> dict[str, Any]:
    return {"hosts": [f"127.0.0.1:{port}"], "password": PASSWORD, **more}


@pytest.fixture
async def cache(server: RedisServer, open_context: OpenContext) -> AsyncIterator[RedisCache]:
    made = RedisCache(settings(server.port), open_context)
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
    server: RedisServer, cache: RedisCache, ctx: CallContext
) -> None:
    await cache.set(api.SetRequest(key="k", value=1), ctx)
    server.kill()
    try:
        gone = await refusal(cache.get(api.GetRequest(key="k"), ctx))
        assert (await cache.health()).status == "down"
    finally:
        server.start()

    assert gone.code == "unavailable"
    assert (await eventually(lambda: cache.get(api.GetRequest(key="k"), ctx))).found is False
    await cache.set(api.SetRequest(key="k", value=2), ctx)
    assert (await cache.get(api.GetRequest(key="k"), ctx)).found is True
    assert (await cache.health()).status == "ok"


async def test_an_increment_whose_answer_is_lost_has_an_unknown_outcome_and_is_not_repeated(
    server: RedisServer, cache: RedisCache, open_context: OpenContext, ctx: CallContext
) -> None:
    async with losing_proxy(server.port) as proxy:
        behind = RedisCache(settings(proxy.port), open_context)
        await behind.open()
        await behind.increment(api.IncrementRequest(key="n"), ctx)
        proxy.loses = b"EVALSHA"
        lost = await refusal(behind.increment(api.IncrementRequest(key="n"), ctx))
        swap = api.CompareAndSetRequest(key="free", value=1, expected_version=None)
        lost_too = await refusal(behind.compare_and_set(swap, ctx))
        retryable = await refusal(behind.set(api.SetRequest(key="k", value=1), ctx))
        proxy.loses = None
        assert (await behind.increment(api.IncrementRequest(key="n"), ctx)).value == 3
        await behind.close()

    assert [lost.code, lost_too.code] == ["outcome_unknown", "outcome_unknown"]
    assert retryable.code == "unavailable", "writing the same value twice does no harm"
    assert (await cache.get(api.GetRequest(key="free"), ctx)).found is True


async def test_a_server_that_is_silent_is_given_up_and_used_again_when_it_answers(
    server: RedisServer, open_context: OpenContext, ctx: CallContext
) -> None:
    cache = RedisCache(settings(server.port, answer_timeout_seconds=0.2), open_context)
    await cache.open()
    server.pause()
    try:
        silent = await refusal(cache.get(api.GetRequest(key="k"), ctx))
        unsure = await refusal(cache.increment(api.IncrementRequest(key="n"), ctx))
    finally:
        server.resume()

    assert silent.code == "unavailable"
    assert unsure.code in {"unavailable", "outcome_unknown"}, "a new connection may not have come so far"
    assert (await eventually(lambda: cache.get(api.GetRequest(key="k"), ctx))).found is False
    await cache.close()


async def test_calls_beyond_the_pool_wait_and_then_are_refused(
    server: RedisServer, open_context: OpenContext, ctx: CallContext
) -> None:
    cache = RedisCache(settings(server.port, max_connections=2, pool_wait_seconds=0.1), open_context)
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
    assert "All 2 connections" in refused.message
    assert [one.found for one in await asyncio.gather(*held)] == [True, True]
    assert (await cache.get(api.GetRequest(key="k1"), ctx)).found is True
    assert str(server.ask("CLIENT", "LIST")).count("name=erp ") <= 2
    await cache.close()


async def test_a_wrong_password_is_unauthenticated_and_a_missing_one_too(
    server: RedisServer, open_context: OpenContext
) -> None:
    for config in (settings(server.port, password="wrong"), {"hosts": [server.address]}):
        cache = RedisCache(config, open_context)
        refused = await refusal(cache.open())
        assert refused.code == "unauthenticated"
        assert PASSWORD not in f"{refused} {refused.detail}"
        await cache.close()


async def test_a_user_without_the_right_is_told_so(
    server: RedisServer, open_context: OpenContext, ctx: CallContext
) -> None:
    server.ask("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+@connection")
    cache = RedisCache(settings(server.port, username="reader", password="secret"), open_context)
    await cache.open()
    refused = await refusal(cache.set(api.SetRequest(key="k", value=1), ctx))
    server.ask("ACL", "SETUSER", "reader", "+@scripting")
    refused_in_script = await refusal(cache.set(api.SetRequest(key="k", value=1), ctx))

    assert [refused.code, refused_in_script.code] == ["permission_denied", "permission_denied"]
    assert (await cache.get(api.GetRequest(key="k"), ctx)).found is False
    await cache.close()


async def test_the_rights_that_the_readme_names_are_enough(
    server: RedisServer, open_context: OpenContext, ctx: CallContext
) -> None:
    rights = ["+@read", "+@write", "+@scripting", "+@connection", "+time"]
    server.ask("ACL", "SETUSER", "erp", "on", ">secret", "~erp:*", *rights)
    cache = RedisCache(settings(server.port, username="erp", password="secret"), open_context)
    await cache.open()
    await cache.set(api.SetRequest(key="k", value=1, tags=["t"], tti_seconds=60), ctx)
    await cache.increment(api.IncrementRequest(key="n"), ctx)

    assert (await cache.get(api.GetRequest(key="k"), ctx)).found is True
    assert (await cache.invalidate_tags(api.InvalidateTagsRequest(tags=["t"]), ctx)).removed == 1
    assert (await cache.invalidate_prefix(api.InvalidatePrefixRequest(prefix="n"), ctx)).removed == 1
    await cache.close()


async def test_a_full_server_is_unavailable_and_what_was_there_stays(
    server: RedisServer, cache: RedisCache, ctx: CallContext
) -> None:
    await cache.set(api.SetRequest(key="k", value="kept"), ctx)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        refused = await refusal(cache.set(api.SetRequest(key="k", value="new"), ctx))
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0")

    assert refused.code == "unavailable"
    assert bytes((await cache.get(api.GetRequest(key="k"), ctx)).value) == b'"kept"'


async def test_a_server_that_has_forgotten_the_scripts_is_sent_them_again(
    server: RedisServer, cache: RedisCache, ctx: CallContext
) -> None:
    await cache.increment(api.IncrementRequest(key="n"), ctx)
    server.ask("SCRIPT", "FLUSH")

    assert (await cache.increment(api.IncrementRequest(key="n"), ctx)).value == 2


async def test_tags_of_entries_that_have_died_take_no_memory(
    server: RedisServer, cache: RedisCache, ctx: CallContext
) -> None:
    entries = [api.Entry(key=f"k{number}", value=1, ttl_seconds=0.01, tags=["t", "u"]) for number in range(500)]
    await cache.set_many(api.SetManyRequest(entries=entries), ctx)
    await cache.set(api.SetRequest(key="last", value=1, ttl_seconds=60, tags=["t"]), ctx)
    await asyncio.sleep(0.05)
    await cache.set(api.SetRequest(key="last", value=2, ttl_seconds=60, tags=["t"]), ctx)

    (tag,) = server.ask("KEYS", "*:t:*")
    assert server.ask("ZRANGE", tag, 0, -1) == ["last"], "dead ones are dropped, and the set of u has died with them"
    await cache.delete(api.DeleteRequest(key="last"), ctx)
    now_and_then(lambda: server.ask("DBSIZE") == 0, "Redis drops what has expired, and nothing else is there")


async def test_tags_are_refused_where_redis_may_drop_them_and_outlive_entries_where_it_may_not(
    server: RedisServer, open_context: OpenContext, ctx: CallContext
) -> None:
    used = int(server.facts("memory")["used_memory"])
    server.ask("CONFIG", "SET", "maxmemory", used + 3_000_000, "maxmemory-policy", "allkeys-lru")
    try:
        cache = RedisCache(settings(server.port), open_context)
        await cache.open()
        refused = await refusal(cache.set(api.SetRequest(key="k", value=1, tags=["t"]), ctx))
        assert (await cache.get(api.GetRequest(key="k"), ctx)).found is False
        await cache.set(api.SetRequest(key="k", value=1), ctx)
        await cache.close()
        server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        cache = RedisCache(settings(server.port), open_context)
        await cache.open()
        keys = [f"k{number}" for number in range(5000)]
        for begin in range(0, 5000, 1000):
            made = [
                api.Entry(key=key, value="x" * 900, tags=["t"], ttl_seconds=60) for key in keys[begin : begin + 1000]
            ]
            await cache.set_many(api.SetManyRequest(entries=made), ctx)
        evicted = int(server.facts("stats")["evicted_keys"])
        removed = (await cache.invalidate_tags(api.InvalidateTagsRequest(tags=["t"]), ctx)).removed
        left = 0
        for begin in range(0, 5000, 1000):
            items = (await cache.get_many(api.GetManyRequest(keys=keys[begin : begin + 1000]), ctx)).items
            left += sum(item.found for item in items)
        await cache.close()
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")

    assert refused.code == "failed_precondition"
    assert "allkeys-lru" in refused.message
    assert evicted > 0
    assert (removed + evicted, left) == (5000, 0)


@pytest.mark.slow
async def test_an_entry_that_is_read_stays_under_its_tag_and_its_ttl_ends_it_all_the_same(
    cache: RedisCache, ctx: CallContext
) -> None:
    await cache.set(api.SetRequest(key="idle", value=1, tti_seconds=3, tags=["t"]), ctx)
    await cache.set(api.SetRequest(key="both", value=1, tti_seconds=60, ttl_seconds=2), ctx)
    for _ in range(8):
        await asyncio.sleep(0.5)
        assert (await cache.get_many(api.GetManyRequest(keys=["idle"]), ctx)).items[0].found is True
        await cache.get(api.GetRequest(key="both"), ctx)
        await cache.set(api.SetRequest(key="other", value=1, tags=["t"]), ctx)

    assert (await cache.get(api.GetRequest(key="both"), ctx)).found is False
    assert (await cache.invalidate_tags(api.InvalidateTagsRequest(tags=["t"]), ctx)).removed == 2


async def test_an_increment_keeps_tags_and_idle_time(cache: RedisCache, ctx: CallContext) -> None:
    await cache.set(api.SetRequest(key="n", value=5, tti_seconds=60, tags=["t"]), ctx)

    assert (await cache.increment(api.IncrementRequest(key="n", by=-7), ctx)).value == -2
    assert (await cache.increment(api.IncrementRequest(key="n"), ctx)).value == -1
    assert bytes((await cache.get(api.GetRequest(key="n"), ctx)).value) == b"-1"
    assert (await cache.touch(api.TouchRequest(key="n"), ctx)).found is True
    assert (await cache.invalidate_tags(api.InvalidateTagsRequest(tags=["t"]), ctx)).removed == 1


async def test_a_number_that_would_not_be_exact_is_refused_and_stays(cache: RedisCache, ctx: CallContext) -> None:
    most = 2**53 - 1
    await cache.set(api.SetRequest(key="n", value=most), ctx)
    refused = await refusal(cache.increment(api.IncrementRequest(key="n"), ctx))

    assert refused.code == "failed_precondition"
    assert (await cache.increment(api.IncrementRequest(key="n", by=-1), ctx)).value == most - 1


async def test_more_entries_than_one_step_removes_go_by_tag_and_by_prefix(cache: RedisCache, ctx: CallContext) -> None:
    for begin in (0, 1000, 2000):
        entries = [api.Entry(key=f"a[{n}", value=1, tags=["t"]) for n in range(begin, begin + 1000)]
        await cache.set_many(api.SetManyRequest(entries=entries), ctx)

    assert (await cache.invalidate_prefix(api.InvalidatePrefixRequest(prefix="a[1"), ctx)).removed == 1111
    assert (await cache.invalidate_tags(api.InvalidateTagsRequest(tags=["t", "none"]), ctx)).removed == 1889


HOSTILE = ["*", "beta}", "{beta", "a/b", "alpha/default}:e:", "..", "%2F", "\n", "é", "\\", "[a-z]", "e:t:"]


async def test_no_name_of_tenant_connection_key_or_tag_reaches_another_tenant(
    server: RedisServer, cache: RedisCache, open_context: OpenContext, ctx: CallContext
) -> None:
    await cache.set(api.SetRequest(key="k", value="mine", tags=["t"]), ctx)
    places = [dataclasses.replace(open_context, tenant=name) for name in HOSTILE]
    places += [dataclasses.replace(open_context, connection=name) for name in HOSTILE]
    seen = set()
    for place in places:
        other = RedisCache(settings(server.port), place)
        await other.open()
        for key in ("k", *HOSTILE):
            assert (await other.get(api.GetRequest(key=key), ctx)).found is False
            await other.set(api.SetRequest(key=key, value=place.tenant, tags=HOSTILE), ctx)
        for prefix in ("*", "?", "[", "\\"):
            await other.invalidate_prefix(api.InvalidatePrefixRequest(prefix=prefix), ctx)
        await other.invalidate_tags(api.InvalidateTagsRequest(tags=["t", *HOSTILE]), ctx)
        await other.set(api.SetRequest(key="k", value=1), ctx)
        seen |= {key.partition("}:")[0] for key in server.ask("KEYS", "erp:*")}
        await other.close()

    assert len(seen) == 1 + len(places), "every tenant and connection has a beginning of its own"
    assert bytes((await cache.get(api.GetRequest(key="k"), ctx)).value) == b'"mine"'
    assert (await cache.invalidate_tags(api.InvalidateTagsRequest(tags=["t"]), ctx)).removed == 1


async def test_settings_that_do_not_fit_together_are_named(open_context: OpenContext) -> None:
    for config, pointer in (
        ({"hosts": ["a", "b"]}, "/config/hosts"),
        ({"mode": "cluster", "database": 1}, "/config/database"),
    ):
        with pytest.raises(ProviderError) as caught:
            RedisCache(config, open_context)
        assert caught.value.code == "invalid_argument"
        assert [error.pointer for error in caught.value.errors] == [pointer]


async def test_an_address_that_the_operator_does_not_allow_is_not_connected_to(
    server: RedisServer, open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALLOW_VARIABLE)
    before = server.ask("INFO", "stats")["total_connections_received"]
    for config in (settings(server.port), {"mode": "cluster", "hosts": [server.address]}):
        cache = RedisCache(config, open_context)
        refused = await refusal(cache.open())
        await cache.close()
        assert refused.code == "failed_precondition"
        assert ALLOW_VARIABLE in refused.message

    assert server.ask("INFO", "stats")["total_connections_received"] == before + 1, "only that of the question"


async def test_tls_proves_the_server(tmp_path: Path, open_context: OpenContext, ctx: CallContext) -> None:
    made, foreign = certificates(tmp_path / "own"), certificates(tmp_path / "foreign")
    files = ("--tls-cert-file", str(made.certificate), "--tls-key-file", str(made.key), "--tls-auth-clients", "no")
    port = free_port()
    with single(tmp_path / "redis", "--tls-port", str(port), *files, "--tls-ca-cert-file", str(made.authority_file)):
        cache = RedisCache(settings(port, tls=True, tls_ca=made.authority), open_context)
        await cache.open()
        await cache.set(api.SetRequest(key="k", value=1), ctx)
        assert (await cache.get(api.GetRequest(key="k"), ctx)).found is True
        await cache.close()
        wrong = RedisCache(settings(port, tls=True, tls_ca=foreign.authority), open_context)
        refused = await refusal(wrong.open())
        await wrong.close()
        broken = RedisCache(settings(port, tls=True, tls_ca="-----BEGIN CERTIFICATE-----"), open_context)
        unreadable = await refusal(broken.open())
        await broken.close()

    assert refused.code == "failed_precondition"
    assert "tls_ca" in refused.message
    assert unreadable.code == "failed_precondition"
    assert "PEM" in unreadable.message
