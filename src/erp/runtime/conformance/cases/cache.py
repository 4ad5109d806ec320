"""Short-lived values by key."""

from __future__ import annotations

import asyncio
from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.host import ALPHA, BETA

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**53 - 1, 1.5, "", "ünïcödé ❤ \u0000 \U0001f980", [], {}, [None], {"": None}, {"a": [1, {"b": "c"}]},
)  # fmt: skip
KEYS = ("k", " ", "a/b:c.d", "ключ", "键", "🔑", "é", "e\u0301", "x" * 512, "\u0000", "..", "%20")


@case("CACHE-01")
async def a_value_reads_back_as_it_was_written(bench: Bench) -> None:
    """``get`` MUST answer exactly the value last written by ``set``, of any JSON type, ``null`` included."""
    for value in VALUES:
        await bench.call("set", {"key": "k", "value": value})
        read = await bench.equal("get", {"key": "k"}, {"found": True})
        require(repr(read.get("value")) == repr(value), f"wrote {value!r}, read {read.get('value')!r}")


@case("CACHE-02")
async def a_missing_key_is_not_an_error(bench: Bench) -> None:
    """``get`` of a key that is not there MUST answer ``found: false`` and no value."""
    answer = await bench.call("get", {"key": bench.unique()})
    require(answer == {"found": False}, f"answered {answer}")


@case("CACHE-03")
async def keys_are_any_text_and_all_differ(bench: Bench) -> None:
    """Keys MUST be compared character by character: any text of up to 512 characters is a key of its own."""
    for number, key in enumerate(KEYS):
        await bench.call("set", {"key": key, "value": number})
    for number, key in enumerate(KEYS):
        await bench.equal("get", {"key": key}, {"found": True, "value": number})


@case("CACHE-04")
async def delete_removes_one_key_once(bench: Bench) -> None:
    """``delete`` MUST remove the key and no other, and answer whether it was there."""
    for key in ("a", "ab"):
        await bench.call("set", {"key": key, "value": 1})
    await bench.equal("delete", {"key": "a"}, {"deleted": True})
    await bench.equal("delete", {"key": "a"}, {"deleted": False})
    await bench.equal("get", {"key": "a"}, {"found": False})
    await bench.equal("get", {"key": "ab"}, {"found": True})


@case("CACHE-05")
async def the_version_changes_with_every_write(bench: Bench) -> None:
    """``set`` MUST answer a version that ``get`` shows, never one the key has had before, also after a delete."""
    seen = []
    for number in range(4):
        version = (await bench.call("set", {"key": "k", "value": "same"}))["version"]
        await bench.equal("get", {"key": "k"}, {"version": version})
        seen.append(version)
        if number == 1:
            await bench.call("delete", {"key": "k"})
    require(len(set(seen)) == len(seen), f"versions repeat: {seen}")


@case("CACHE-06")
async def many_are_read_in_the_order_asked_for(bench: Bench) -> None:
    """``get_many`` MUST answer one item for each key, in that order, the missing and the repeated ones too."""
    await bench.call("set", {"key": "a", "value": 1})
    items = (await bench.call("get_many", {"keys": ["z", "a", "z", "a"]}))["items"]
    found = [(item["key"], item["found"], item.get("value")) for item in items]
    require(found == [("z", False, None), ("a", True, 1), ("z", False, None), ("a", True, 1)], f"answered {found}")


@case("CACHE-07")
async def many_are_written_as_by_set(bench: Bench) -> None:
    """``set_many`` MUST write every entry and answer their versions in that order; of equal keys the last stands."""
    entries = [{"key": key, "value": number} for number, key in enumerate(("a", "b", "a"))]
    versions = (await bench.call("set_many", {"entries": entries}))["versions"]
    require(len(versions) == len(entries), f"{len(versions)} versions for {len(entries)} entries")
    await bench.equal("get", {"key": "a"}, {"value": 2, "version": versions[2]})
    await bench.equal("get", {"key": "b"}, {"value": 1, "version": versions[1]})


@case("CACHE-08")
async def large_values_are_kept_whole(bench: Bench) -> None:
    """A value of one megabyte MUST read back whole."""
    value = "0123456789abcdef" * 65536
    await bench.call("set", {"key": "large", "value": value})
    read = await bench.call("get", {"key": "large"})
    require(read.get("value") == value, f"{len(str(read.get('value')))} of {len(value)} characters came back")


@case("CACHE-09")
async def tenants_do_not_meet(bench: Bench) -> None:
    """No tenant MUST ever read, change or remove an entry of another under the same connection and key."""
    await bench.call("set", {"key": "k", "value": "alpha's"}, tenant=ALPHA)
    read = await bench.call("get", {"key": "k"}, tenant=BETA)
    require(read == {"found": False}, f"another tenant read {read}")
    await bench.call("set", {"key": "k", "value": "beta's"}, tenant=BETA)
    await bench.call("delete", {"key": "k"}, tenant=BETA)
    await bench.equal("get", {"key": "k"}, {"value": "alpha's"})


@case("CACHE-10")
async def connections_do_not_meet(bench: Bench) -> None:
    """Two connections of one tenant MUST NOT share entries."""
    await bench.call("set", {"key": "k", "value": "first"})
    read = await bench.call("get", {"key": "k"}, connection=f"{bench.connection}-b")
    require(read == {"found": False}, f"another connection read {read}")


@case("CACHE-20", capability="ttl", timed=True)
async def an_entry_lives_as_long_as_its_ttl(bench: Bench) -> None:
    """An entry with ``ttl_seconds`` MUST be there before that time and MUST NOT be there after it."""
    await bench.call("set", {"key": "long", "value": 1, "ttl_seconds": 30})
    await bench.call("set", {"key": "short", "value": 1, "ttl_seconds": 0.15})
    await bench.equal("get", {"key": "short"}, {"found": True})
    await asyncio.sleep(0.2)
    await bench.equal("get", {"key": "short"}, {"found": False})
    await bench.equal("get", {"key": "long"}, {"found": True})


@case("CACHE-21", capability="ttl", timed=True)
async def reading_does_not_prolong_a_ttl(bench: Bench) -> None:
    """A read MUST NOT restart the time to live."""
    await bench.call("set", {"key": "k", "value": 1, "ttl_seconds": 0.2})
    for _ in range(3):
        await asyncio.sleep(0.05)
        await bench.call("get", {"key": "k"})
    await asyncio.sleep(0.1)
    await bench.equal("get", {"key": "k"}, {"found": False})


@case("CACHE-22", capability="ttl", timed=True)
async def set_forgets_the_lifetime_before(bench: Bench) -> None:
    """``set`` without ``ttl_seconds`` MUST write an entry that does not expire, whatever was there before."""
    await bench.call("set", {"key": "k", "value": 1, "ttl_seconds": 0.05})
    await bench.call("set", {"key": "k", "value": 2})
    await asyncio.sleep(0.1)
    await bench.equal("get", {"key": "k"}, {"found": True, "value": 2})


@case("CACHE-23", capability="ttl", timed=True)
async def expire_gives_a_new_lifetime_from_now(bench: Bench) -> None:
    """``expire`` MUST replace the time to live of an entry, keep its value, and answer whether it was there."""
    await bench.call("set", {"key": "k", "value": "kept", "ttl_seconds": 0.05})
    await bench.equal("expire", {"key": "k", "ttl_seconds": 30}, {"found": True})
    await asyncio.sleep(0.1)
    await bench.equal("get", {"key": "k"}, {"found": True, "value": "kept"})
    await bench.call("expire", {"key": "k", "ttl_seconds": 0.01})
    await asyncio.sleep(0.05)
    await bench.equal("get", {"key": "k"}, {"found": False})
    await bench.equal("expire", {"key": "k", "ttl_seconds": 30}, {"found": False})


async def _refuses(bench: Bench, **setting: Any) -> None:
    await bench.refused("unsupported", "set", {"key": "k", "value": 1, **setting})
    await bench.equal("get", {"key": "k"}, {"found": False})


@case("CACHE-24", without="ttl")
async def a_ttl_that_cannot_be_kept_is_refused(bench: Bench) -> None:
    """Without the capability ``ttl``, ``set`` with ``ttl_seconds`` MUST be refused with ``unsupported``."""
    await _refuses(bench, ttl_seconds=30)


@case("CACHE-32", without="tti")
async def a_tti_that_cannot_be_kept_is_refused(bench: Bench) -> None:
    """Without the capability ``tti``, ``set`` with ``tti_seconds`` MUST be refused with ``unsupported``."""
    await _refuses(bench, tti_seconds=30)


@case("CACHE-43", without="tags")
async def tags_that_cannot_be_kept_are_refused(bench: Bench) -> None:
    """Without the capability ``tags``, ``set`` with ``tags`` MUST be refused with ``unsupported``."""
    await _refuses(bench, tags=["x"])


@case("CACHE-30", capability="tti", timed=True)
async def an_entry_that_is_read_stays(bench: Bench) -> None:
    """An entry with ``tti_seconds`` MUST stay as long as it is read within that time, and go when it is not."""
    await bench.call("set", {"key": "k", "value": 1, "tti_seconds": 0.2})
    for _ in range(4):
        await asyncio.sleep(0.08)
        await bench.equal("get", {"key": "k"}, {"found": True})
    await asyncio.sleep(0.25)
    await bench.equal("get", {"key": "k"}, {"found": False})


@case("CACHE-31", capability="tti", timed=True)
async def touch_restarts_the_time_to_idle(bench: Bench) -> None:
    """``touch`` MUST restart the time to idle without reading, and answer whether the entry was there."""
    await bench.call("set", {"key": "k", "value": 1, "tti_seconds": 0.2})
    for _ in range(4):
        await asyncio.sleep(0.08)
        await bench.equal("touch", {"key": "k"}, {"found": True})
    await asyncio.sleep(0.25)
    await bench.equal("touch", {"key": "k"}, {"found": False})


@case("CACHE-40", capability="tags")
async def a_tag_removes_its_entries_and_no_others(bench: Bench) -> None:
    """``invalidate_tags`` MUST remove every entry with one of the tags, no other, and answer how many."""
    for key, tags in (("a", ["x"]), ("b", ["x", "y"]), ("c", ["y"]), ("d", ["xy"]), ("e", [])):
        await bench.call("set", {"key": key, "value": 1, "tags": tags})
    await bench.equal("invalidate_tags", {"tags": ["x", "no-such-tag"]}, {"removed": 2})
    found = [item["found"] for item in (await bench.call("get_many", {"keys": list("abcde")}))["items"]]
    require(found == [False, False, True, True, True], f"left over: {found}")
    await bench.equal("invalidate_tags", {"tags": ["x"]}, {"removed": 0})


@case("CACHE-41", capability="tags")
async def set_forgets_the_tags_before(bench: Bench) -> None:
    """``set`` MUST give the entry the tags it names and no others."""
    await bench.call("set", {"key": "k", "value": 1, "tags": ["old"]})
    await bench.call("set", {"key": "k", "value": 2, "tags": ["new"]})
    await bench.equal("invalidate_tags", {"tags": ["old"]}, {"removed": 0})
    await bench.equal("get", {"key": "k"}, {"found": True})
    await bench.equal("invalidate_tags", {"tags": ["new"]}, {"removed": 1})


@case("CACHE-42", capability="tags")
async def invalidating_by_tag_is_announced(bench: Bench) -> None:
    """Entries removed by tag MUST be announced by one event ``invalidated`` with the tags and their number."""
    await bench.call("set", {"key": "k", "value": 1, "tags": ["x"]})
    await bench.call("invalidate_tags", {"tags": ["x"]})
    emitted = bench.emitted()
    require(emitted == [("invalidated", {"tags": ["x"], "removed": 1})], f"announced {emitted}")


@case("CACHE-50", capability="prefix_invalidation")
async def a_prefix_removes_its_entries_and_no_others(bench: Bench) -> None:
    """``invalidate_prefix`` MUST remove every entry whose key begins with the text, taken literally, and no other."""
    for key in ("a:1", "a:2", "a", "b:a:1", "a%", "a*x", "A:1"):
        await bench.call("set", {"key": key, "value": 1})
    await bench.equal("invalidate_prefix", {"prefix": "a:"}, {"removed": 2})
    await bench.equal("invalidate_prefix", {"prefix": "a*"}, {"removed": 1})
    await bench.equal("invalidate_prefix", {"prefix": "a%"}, {"removed": 1})
    keys = ["a", "b:a:1", "A:1"]
    found = [item["found"] for item in (await bench.call("get_many", {"keys": keys}))["items"]]
    require(all(found), f"{keys} left over: {found}")


@case("CACHE-51", capability="prefix_invalidation")
async def invalidating_by_prefix_is_announced(bench: Bench) -> None:
    """Entries removed by prefix MUST be announced by one event ``invalidated`` with the prefix and their number."""
    await bench.call("set", {"key": "p:1", "value": 1})
    await bench.call("invalidate_prefix", {"prefix": "p:"})
    emitted = bench.emitted()
    require(emitted == [("invalidated", {"prefix": "p:", "removed": 1})], f"announced {emitted}")


@case("CACHE-60", capability="atomic_increment")
async def increments_add_up_from_the_initial_value(bench: Bench) -> None:
    """``increment`` MUST add to the number that is there, or to ``initial``, and answer the sum that ``get`` shows."""
    await bench.equal("increment", {"key": "n"}, {"value": 1})
    await bench.equal("increment", {"key": "n", "by": -5, "initial": 100}, {"value": -4})
    await bench.equal("increment", {"key": "m", "by": 2, "initial": 10}, {"value": 12})
    await bench.equal("get", {"key": "n"}, {"value": -4})


@case("CACHE-61", capability="atomic_increment")
async def concurrent_increments_are_all_counted(bench: Bench) -> None:
    """Of concurrent increments none MUST be lost, and no two MUST answer the same sum."""
    sums = await asyncio.gather(*(bench.call("increment", {"key": "n"}) for _ in range(100)))
    found = sorted(answer["value"] for answer in sums)
    require(found == list(range(1, 101)), f"{len(set(found))} different sums, the last {found[-1]}")


@case("CACHE-62", capability="atomic_increment")
async def only_whole_numbers_are_incremented(bench: Bench) -> None:
    """``increment`` of a value that is no whole number MUST be refused with ``failed_precondition`` and change nothing."""
    for value in ("1", 1.5, True, None, [1]):
        await bench.call("set", {"key": "k", "value": value})
        await bench.refused("failed_precondition", "increment", {"key": "k"})
        read = await bench.call("get", {"key": "k"})
        require(read.get("value") == value, f"{value!r} became {read.get('value')!r}")


@case("CACHE-63", capability="atomic_increment", timed=True)
async def an_increment_keeps_the_lifetime_of_an_entry(bench: Bench) -> None:
    """``ttl_seconds`` of ``increment`` MUST be given to a new entry and MUST NOT change an existing one."""
    await bench.call("increment", {"key": "n", "ttl_seconds": 0.1})
    await bench.call("increment", {"key": "n", "ttl_seconds": 30})
    await asyncio.sleep(0.15)
    await bench.equal("get", {"key": "n"}, {"found": False})


@case("CACHE-70", capability="compare_and_set")
async def a_value_is_replaced_only_by_who_saw_it_last(bench: Bench) -> None:
    """``compare_and_set`` MUST write when the version is the present one, else write nothing and answer the present one."""
    first = (await bench.call("set", {"key": "k", "value": 1}))["version"]
    stored = await bench.equal("compare_and_set", {"key": "k", "value": 2, "expected_version": first}, {"stored": True})
    again = await bench.equal("compare_and_set", {"key": "k", "value": 3, "expected_version": first}, {"stored": False})
    require(again.get("version") == stored.get("version"), f"answered {again}, and {stored} is there")
    await bench.equal("get", {"key": "k"}, {"value": 2, "version": stored["version"]})


@case("CACHE-71", capability="compare_and_set")
async def an_expected_null_means_absent(bench: Bench) -> None:
    """``expected_version: null`` MUST write only where there is no entry; an absent entry has no version."""
    params = {"key": "k", "value": 1, "expected_version": None}
    await bench.equal("compare_and_set", params, {"stored": True})
    await bench.equal("compare_and_set", {**params, "value": 2}, {"stored": False})
    absent = await bench.call("compare_and_set", {"key": "z", "value": 1, "expected_version": "never"})
    require(absent == {"stored": False}, f"of an absent key answered {absent}")
    await bench.equal("get", {"key": "k"}, {"value": 1})


@case("CACHE-72", capability="compare_and_set")
async def of_concurrent_writers_one_wins(bench: Bench) -> None:
    """Of concurrent ``compare_and_set`` with the same version exactly one MUST write."""
    version = (await bench.call("set", {"key": "k", "value": -1}))["version"]
    params = [{"key": "k", "value": number, "expected_version": version} for number in range(50)]
    answers = await asyncio.gather(*(bench.call("compare_and_set", one) for one in params))
    winners = [number for number, answer in enumerate(answers) if answer["stored"]]
    require(len(winners) == 1, f"{len(winners)} writers won")
    await bench.equal("get", {"key": "k"}, {"value": winners[0]})
