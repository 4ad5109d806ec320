"""Records: written, read and deleted by the caller's keys."""

from __future__ import annotations

from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.stock import Stock

TEXTS = ["", " ", "0.10", "null", "Grüße, 世界 \U0001f600", 'quote " and \\ back', "line\nline", "x" * 100_000]
KEYS = ["a/b", "a b", "50%", "ä世", "a?b=c&d#e", "..x", "%2F", "a+b", "semi;colon,comma"]


@case("INT-10", capability="upsert", needs="records")
async def writing_twice_makes_one_record(bench: Bench) -> None:
    """``upsert`` of the same keys twice MUST leave one record, with what was written last."""
    stock = Stock(bench)
    [name] = stock.named(1)
    [first] = await stock.put(name, text="first")
    require(first["status"] == "created", f"a new record was {first['status']}")
    for text in ("second", "second"):
        [again] = await stock.put(name, text=text)
        require(again["status"] in {"updated", "unchanged"}, f"a known record was {again['status']}")
    if bench.declares("fetch"):
        require(await stock.texts(name) == ["second"], "what was written last is not there")
    if bench.declares("sync"):
        listed = stock.names((await stock.changes({"start": "beginning"}))[0])
        require(listed.count(name) == 1, f"the record is there {listed.count(name)} times")


@case("INT-11", capability="upsert", needs="records")
async def outcomes_are_in_the_order_of_the_records(bench: Bench) -> None:
    """``upsert`` MUST answer one outcome per record, in the order of the records, with their keys."""
    stock = Stock(bench)
    names = stock.named(5)[::-1]
    await stock.put(names[2])
    outcomes = await stock.put(*names)
    require([one["keys"] for one in outcomes] == [stock.keys(name) for name in names], f"outcomes {outcomes}")
    created = [one["status"] == "created" for one in outcomes]
    require(created == [True, True, False, True, True], f"statuses {[one['status'] for one in outcomes]}")


@case("INT-12", capability="upsert", needs="records")
async def what_is_absent_stays_and_null_clears(bench: Bench) -> None:
    """A field that ``upsert`` does not name MUST stay as it is; one that is null MUST be cleared."""
    stock = Stock(bench)
    [name] = stock.named(1)
    await bench.call("upsert", stock.params([stock.record(name, "old", **{stock.note: "kept"})]))
    await stock.put(name, text="new")
    [found] = await stock.fetch(name)
    require((found["fields"][stock.text], found["fields"].get(stock.note)) == ("new", "kept"), f"it is {found}")
    await bench.call("upsert", stock.params([{"keys": stock.keys(name), "fields": {stock.note: None}}]))
    [found] = await stock.fetch(name)
    require(found["fields"].get(stock.note) is None, f"the cleared field is {found['fields'].get(stock.note)!r}")
    require(found["fields"][stock.text] == "new", "another field was cleared too")


@case("INT-13", capability="fetch", needs="records")
async def what_is_written_is_read_unchanged(bench: Bench) -> None:
    """Text MUST come back as it was written: empty, decimals, characters beyond ASCII, control characters, 100 kB."""
    stock = Stock(bench)
    names = stock.named(len(TEXTS))
    records = [stock.record(name, text) for name, text in zip(names, TEXTS, strict=True)]
    await bench.call("upsert", stock.params(records))
    found = await stock.texts(*names)
    wrong = [(wrote, read) for wrote, read in zip(TEXTS, found, strict=True) if wrote != read]
    require(not wrong, f"{str(wrong)[:300]}")


@case("INT-14", capability="fetch", needs="records")
async def any_text_can_be_a_key(bench: Bench) -> None:
    """Keys with slashes, spaces, signs of URLs and characters beyond ASCII MUST lead to their record and to no other."""
    stock = Stock(bench)
    names = [f"{key}-{bench.unique()}" for key in KEYS]
    for name in names:
        await stock.put(name, text=name)
        await stock.put(name, text=f"{name} again")
    found = await stock.texts(*names)
    wrong = [(name, text) for name, text in zip(names, found, strict=True) if text != f"{name} again"]
    require(not wrong, f"by their keys were read {wrong}")


@case("INT-15", capability="upsert", needs="records")
async def modes_are_kept(bench: Bench) -> None:
    """``create`` MUST refuse a record that exists (``already_exists``), ``update`` one that does not (``not_found``).

    Neither changes anything then.
    """
    stock = Stock(bench)
    known, unknown = stock.named(2)
    await stock.put(known, text="before")
    changed = stock.params([stock.record(known, "after")], mode="create")
    await bench.refused("already_exists", "upsert", changed)
    await bench.refused("not_found", "upsert", stock.params([stock.record(unknown)], mode="update"))
    require(await stock.texts(known, unknown) == ["before", None], "a refused write changed something")
    await bench.call("upsert", stock.params([stock.record(unknown, "made")], mode="create"))
    await bench.call("upsert", stock.params([stock.record(known, "changed")], mode="update"))
    require(await stock.texts(known, unknown) == ["changed", "made"], "an allowed write changed nothing")


@case("INT-16", capability="upsert", needs="records")
async def each_failure_is_named(bench: Bench) -> None:
    """With ``report_failures`` each record that failed MUST be named with its problem, and the others MUST take effect."""
    stock = Stock(bench)
    first, taken, last = stock.named(3)
    await stock.put(taken, text="before")
    records = [stock.record(name, "after") for name in (first, taken, last)]
    answer = await bench.call("upsert", stock.params(records, mode="create", report_failures=True))
    statuses = [one["status"] for one in answer["outcomes"]]
    require(
        (statuses, answer["failed"]) == (["created", "failed", "created"], 1), f"{statuses}, {answer['failed']} failed"
    )
    problem: Any = answer["outcomes"][1]["problem"]
    require(problem["code"] == "already_exists", f"the problem is {problem}")
    require(await stock.texts(first, taken, last) == ["after", "before", "after"], "the effects are others")


@case("INT-17", capability="upsert", needs="records")
async def a_call_that_failed_in_part_says_so(bench: Bench) -> None:
    """Without ``report_failures`` a call in which some records failed MUST be ``partial``; if all did, the first's code.

    ``errors[]`` MUST point to each record that failed.
    """
    stock = Stock(bench)
    fresh, taken = stock.named(2)
    await stock.put(taken)
    records = [stock.record(fresh), stock.record(taken)]
    error = await bench.refused("partial", "upsert", stock.params(records, mode="create"))
    pointers = [one.pointer for one in error.errors]
    require(pointers == ["/params/records/1"], f"it points to {pointers}")
    error = await bench.refused("already_exists", "upsert", stock.params(records, mode="create"))
    pointers = [one.pointer for one in error.errors]
    require(pointers == ["/params/records/0", "/params/records/1"], f"it points to {pointers}")


@case("INT-18", capability="upsert", without="atomic_upsert", needs="records")
async def all_or_nothing_is_refused_where_it_is_not_possible(bench: Bench) -> None:
    """``atomic`` without the capability MUST be refused with ``unsupported`` and write nothing."""
    stock = Stock(bench)
    [name] = stock.named(1)
    await bench.refused("unsupported", "upsert", stock.params([stock.record(name)], atomic=True))
    require(await stock.texts(name) == [None], "it was written all the same")


@case("INT-19", capability="upsert", without="versions", needs="records")
async def a_version_is_refused_where_it_is_not_compared(bench: Bench) -> None:
    """``expected_version`` without the capability ``versions`` MUST be refused with ``unsupported`` and write nothing."""
    stock = Stock(bench)
    [name] = stock.named(1)
    await bench.refused("unsupported", "upsert", stock.params([{**stock.record(name), "expected_version": "1"}]))
    require(await stock.texts(name) == [None], "it was written all the same")


@case("INT-20", capability="upsert", needs="records")
async def an_unknown_object_is_not_found(bench: Bench) -> None:
    """Every action on an object that the peer does not have MUST be refused with ``not_found``."""
    stock = Stock(bench)
    stock.object = bench.unique("no-such-object")
    [name] = stock.named(1)
    await bench.refused("not_found", "upsert", stock.params([stock.record(name)]))
    if bench.declares("fetch"):
        await bench.refused("not_found", "fetch", {"object": stock.object, "keys": [stock.keys(name)]})
    if bench.declares("delete"):
        await bench.refused("not_found", "delete", stock.params([{"keys": stock.keys(name)}]))
    if bench.declares("sync"):
        await bench.refused("not_found", "sync", {"object": stock.object, "start": "beginning"})


@case("INT-21", capability="upsert", needs="records")
async def wrong_keys_are_refused_before_anything_is_written(bench: Bench) -> None:
    """Key fields that do not identify a record MUST be refused with ``invalid_argument``, and nothing be written."""
    stock = Stock(bench)
    [name] = stock.named(1)
    wrong = {"keys": {"no_such_key": "1"}, "fields": {stock.text: "x"}}
    error = await bench.refused("invalid_argument", "upsert", stock.params([stock.record(name), wrong]))
    require([one.pointer for one in error.errors] == ["/params/records/1/keys"], f"it points to {error.errors}")
    require(await stock.texts(name) == [None], "the record before it was written")


@case("INT-22", capability="fetch", needs="records")
async def records_are_answered_in_the_order_of_the_keys(bench: Bench) -> None:
    """``fetch`` MUST answer one record per entry of ``keys``, in that order; one that is not there is an answer."""
    stock = Stock(bench)
    first, second, missing = stock.named(3)
    await stock.put(first, text="1")
    await stock.put(second, text="2")
    order = [second, missing, first, second]
    found = await stock.fetch(*order)
    require([one["keys"] for one in found] == [stock.keys(name) for name in order], f"in the order {found}")
    require([one["found"] for one in found] == [True, False, True, True], f"found {found}")
    require(await stock.texts(*order) == ["2", None, "1", "2"], "the records are others")


@case("INT-23", capability="fetch", needs="records")
async def only_the_fields_that_are_wanted_are_read(bench: Bench) -> None:
    """``fetch`` MUST answer only the fields that are named; an empty list means none, also when one is not known."""
    stock = Stock(bench)
    [name] = stock.named(1)
    await bench.call("upsert", stock.params([stock.record(name, "x", **{stock.note: "y"})]))
    [found] = await stock.fetch(name, fields=[stock.note, "no_such_field"])
    require(found["fields"] == {stock.note: "y"}, f"of one field were answered {found['fields']}")
    [found] = await stock.fetch(name, fields=[])
    require(found["found"] and not found.get("fields"), f"of no field were answered {found}")


@case("INT-24", capability="delete", needs="records")
async def what_is_deleted_is_gone(bench: Bench) -> None:
    """``delete`` MUST delete exactly the records named; one that is not there is ``missing`` and no failure."""
    stock = Stock(bench)
    gone, kept, never = stock.named(3)
    await stock.put(gone, kept)
    statuses = [one["status"] for one in await stock.delete(gone, never)]
    require(statuses == ["deleted", "missing"], f"outcomes {statuses}")
    require([one["found"] for one in await stock.fetch(gone, kept)] == [False, True], "another one was deleted")
    statuses = [one["status"] for one in await stock.delete(gone)]
    require(statuses == ["missing"], f"deleted again: {statuses}")
    [made] = await stock.put(gone)
    require(made["status"] == "created", f"made again it was {made['status']}")
