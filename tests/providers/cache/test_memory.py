"""What the cache promises, at its edges."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from erp.contracts.models import cache as api
from erp.errors import ProviderError
from erp.providers.cache.memory import entries, provider
from erp.providers.cache.memory.provider import MemoryCache
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio


class Clock:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(entries, "time", made)
    monkeypatch.setattr(provider, "time", made)
    return made


@pytest.fixture
def cache(open_context: OpenContext) -> MemoryCache:
    return MemoryCache({"max_bytes": 65_536}, open_context)


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


async def put(cache: MemoryCache, ctx: CallContext, key: str, value: Any, **more: Any) -> str:
    return (await cache.set(api.SetRequest(key=key, value=value, **more), ctx)).version


async def read(cache: MemoryCache, ctx: CallContext, key: str) -> Any:
    """The value, or the string ``missing``."""
    result = await cache.get(api.GetRequest(key=key), ctx)
    return msgspec.json.decode(msgspec.json.encode(result.value)) if result.found else "missing"


@pytest.mark.parametrize("value", [None, 0, "", "ü\u0000🎉", [], {"a": [1, {"b": None}]}, 1.5, True, "x" * 20_000])
async def test_any_json_value_is_read_back_as_it_was_written(cache: MemoryCache, ctx: CallContext, value: Any) -> None:
    await put(cache, ctx, "k", value)
    assert await read(cache, ctx, "k") == value


async def test_a_stored_value_does_not_change_with_the_object_it_came_from(
    cache: MemoryCache, ctx: CallContext
) -> None:
    value = {"a": 1}
    await put(cache, ctx, "k", value)
    value["a"] = 2
    assert await read(cache, ctx, "k") == {"a": 1}


async def test_every_write_changes_the_version(cache: MemoryCache, ctx: CallContext) -> None:
    versions = [await put(cache, ctx, "k", 1) for _ in range(3)]
    assert len(set(versions)) == 3
    assert (await cache.get(api.GetRequest(key="k"), ctx)).version == versions[-1]


async def test_an_entry_lives_exactly_its_time(cache: MemoryCache, ctx: CallContext, clock: Clock) -> None:
    await put(cache, ctx, "k", 1, ttl_seconds=10)
    clock.now += 9.999
    assert await read(cache, ctx, "k") == 1
    clock.now += 0.001
    assert await read(cache, ctx, "k") == "missing"


async def test_a_write_replaces_lifetimes_and_tags(cache: MemoryCache, ctx: CallContext, clock: Clock) -> None:
    await put(cache, ctx, "k", 1, ttl_seconds=10, tags=["old"])
    await put(cache, ctx, "k", 2)
    clock.now += 1000
    assert await read(cache, ctx, "k") == 2
    assert (await cache.invalidate_tags(api.InvalidateTagsRequest(tags=["old"]), ctx)).removed == 0


async def test_reading_and_touching_restart_the_time_to_idle(
    cache: MemoryCache, ctx: CallContext, clock: Clock
) -> None:
    await put(cache, ctx, "k", 1, tti_seconds=10)
    for _ in range(5):
        clock.now += 9
        assert await read(cache, ctx, "k") == 1
        clock.now += 9
        assert (await cache.touch(api.TouchRequest(key="k"), ctx)).found is True
    clock.now += 10
    assert (await cache.touch(api.TouchRequest(key="k"), ctx)).found is False


async def test_idling_does_not_outlive_the_time_to_live(cache: MemoryCache, ctx: CallContext, clock: Clock) -> None:
    await put(cache, ctx, "k", 1, ttl_seconds=15, tti_seconds=10)
    clock.now += 9
    assert await read(cache, ctx, "k") == 1
    clock.now += 6
    assert await read(cache, ctx, "k") == "missing"


async def test_expire_counts_from_now(cache: MemoryCache, ctx: CallContext, clock: Clock) -> None:
    await put(cache, ctx, "k", 1)
    assert (await cache.expire(api.ExpireRequest(key="k", ttl_seconds=5), ctx)).found is True
    clock.now += 5
    assert await read(cache, ctx, "k") == "missing"
    assert (await cache.expire(api.ExpireRequest(key="k", ttl_seconds=5), ctx)).found is False


async def test_deleting_says_whether_something_was_there(cache: MemoryCache, ctx: CallContext, clock: Clock) -> None:
    await put(cache, ctx, "k", 1, ttl_seconds=5)
    assert (await cache.delete(api.DeleteRequest(key="k"), ctx)).deleted is True
    assert (await cache.delete(api.DeleteRequest(key="k"), ctx)).deleted is False
    await put(cache, ctx, "k", 1, ttl_seconds=5)
    clock.now += 5
    assert (await cache.delete(api.DeleteRequest(key="k"), ctx)).deleted is False


async def test_batches_keep_their_order(cache: MemoryCache, ctx: CallContext) -> None:
    new = [api.Entry(key=f"k{number}", value=number) for number in range(3)]
    versions = (await cache.set_many(api.SetManyRequest(entries=new), ctx)).versions
    items = (await cache.get_many(api.GetManyRequest(keys=["k2", "nope", "k0"]), ctx)).items

    assert [(item.key, item.found) for item in items] == [("k2", True), ("nope", False), ("k0", True)]
    assert [items[0].version, items[2].version] == [versions[2], versions[0]]


async def test_an_increment_starts_at_its_initial_value_and_keeps_the_lifetime(
    cache: MemoryCache, ctx: CallContext, clock: Clock
) -> None:
    first = await cache.increment(api.IncrementRequest(key="n", by=5, initial=100, ttl_seconds=10), ctx)
    clock.now += 9
    second = await cache.increment(api.IncrementRequest(key="n", by=-3, ttl_seconds=10), ctx)
    assert (first.value, second.value) == (105, 102)
    clock.now += 1
    assert await read(cache, ctx, "n") == "missing"


@pytest.mark.parametrize("value", ["7", 1.5, None, [1], True])
async def test_what_is_not_a_whole_number_is_not_incremented(cache: MemoryCache, ctx: CallContext, value: Any) -> None:
    await put(cache, ctx, "k", value)
    with pytest.raises(ProviderError) as refused:
        await cache.increment(api.IncrementRequest(key="k"), ctx)
    assert refused.value.code == "failed_precondition"
    assert await read(cache, ctx, "k") == value


async def test_a_number_never_leaves_64_bits(cache: MemoryCache, ctx: CallContext) -> None:
    await put(cache, ctx, "n", 2**63 - 1)
    with pytest.raises(ProviderError):
        await cache.increment(api.IncrementRequest(key="n"), ctx)
    assert await read(cache, ctx, "n") == 2**63 - 1


async def test_a_value_is_replaced_only_if_it_is_the_one_that_was_read(cache: MemoryCache, ctx: CallContext) -> None:
    async def swap(expected: str | None, value: int) -> api.CompareAndSetResult:
        request = api.CompareAndSetRequest(key="k", value=value, expected_version=expected)
        return await cache.compare_and_set(request, ctx)

    created = await swap(None, 1)
    again = await swap(None, 2)
    assert (created.stored, again.stored, again.version) == (True, False, created.version)
    changed = await swap(created.version, 3)
    stale = await swap(created.version, 4)
    assert (changed.stored, stale.stored, stale.version) == (True, False, changed.version)
    assert await read(cache, ctx, "k") == 3


async def test_tags_and_prefixes_remove_what_they_name_and_announce_it(cache: MemoryCache, ctx: CallContext) -> None:
    for key, tags in {"a:1": ["x"], "a:2": ["x", "y"], "b:1": ["y"], "c": []}.items():
        await put(cache, ctx, key, 1, tags=tags)

    assert (await cache.invalidate_tags(api.InvalidateTagsRequest(tags=["x", "nope"]), ctx)).removed == 2
    assert (await cache.invalidate_prefix(api.InvalidatePrefixRequest(prefix="b:"), ctx)).removed == 1
    assert await read(cache, ctx, "c") == 1
    assert [(event.name, event.data) for event in ctx.emitted] == [
        ("invalidated", {"tags": ["x", "nope"], "removed": 2}),
        ("invalidated", {"prefix": "b:", "removed": 1}),
    ]


async def test_the_least_recently_used_make_room_and_the_bound_holds(cache: MemoryCache, ctx: CallContext) -> None:
    for number in range(100):
        await put(cache, ctx, f"k{number}", "x" * 1000)
        await read(cache, ctx, "k0")

    assert await read(cache, ctx, "k0") == "x" * 1000
    assert await read(cache, ctx, "k1") == "missing"
    assert await read(cache, ctx, "k99") == "x" * 1000
    assert cache._entries.bytes <= 65_536


async def test_expired_entries_make_room_without_being_read(cache: MemoryCache, ctx: CallContext, clock: Clock) -> None:
    for number in range(10):
        await put(cache, ctx, f"short{number}", 1, ttl_seconds=1)
    clock.now += 1
    for number in range(3):
        await put(cache, ctx, f"new{number}", 1)
    assert len(cache._entries) == 3


async def test_an_entry_larger_than_the_cache_is_refused_and_evicts_nothing(
    cache: MemoryCache, ctx: CallContext
) -> None:
    await put(cache, ctx, "kept", 1)
    with pytest.raises(ProviderError) as refused:
        await put(cache, ctx, "big", "x" * 70_000)
    assert refused.value.code == "failed_precondition"
    assert await read(cache, ctx, "kept") == 1


async def test_a_batch_with_one_impossible_entry_writes_none(cache: MemoryCache, ctx: CallContext) -> None:
    new = [api.Entry(key="a", value=1), api.Entry(key="b", value="x" * 70_000)]
    with pytest.raises(ProviderError):
        await cache.set_many(api.SetManyRequest(entries=new), ctx)
    assert await read(cache, ctx, "a") == "missing"


async def test_closing_twice_and_without_opening_is_safe(cache: MemoryCache, ctx: CallContext) -> None:
    await put(cache, ctx, "k", 1)
    await cache.close()
    await cache.close()
    assert await read(cache, ctx, "k") == "missing"
