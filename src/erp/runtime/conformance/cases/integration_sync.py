"""Changes of records: read in order, from a checkpoint, to the end, skipping none."""

from __future__ import annotations

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.stock import Stock

BEGINNING = {"start": "beginning"}


@case("INT-30", capability="sync", needs="records")
async def everything_is_read_to_the_end(bench: Bench) -> None:
    """``sync`` from the beginning, page by page, MUST bring every record, with any limit, and end."""
    stock = Stock(bench)
    names = stock.named(10)
    await stock.put(*names)
    for limit in (2, 3, 4, 100):
        found, _ = await stock.changes(BEGINNING, limit=limit)
        require(set(stock.names(found)) >= set(names), f"limit {limit}: {stock.names(found)} of {names}")
        texts = {one["fields"][stock.text] for one in found if one["keys"][stock.key] in names}
        require(texts == {"a text"}, f"the records are {texts}")


@case("INT-31", capability="sync", needs="records")
async def a_snapshot_is_complete_only_at_its_end(bench: Bench) -> None:
    """``snapshot_complete`` MUST be false until a start from the beginning has listed everything, and true then."""
    stock = Stock(bench)
    await stock.put(*stock.named(5))
    page = await stock.page(**BEGINNING, limit=2)
    while page["more"]:
        require(page["snapshot_complete"] is False, "complete, and there is more")
        page = await stock.page(start="checkpoint", checkpoint=page["checkpoint"], limit=2)
    require(page["snapshot_complete"] is True, "at the end and not complete")


@case("INT-32", capability="sync", needs="records")
async def reading_on_brings_what_changed(bench: Bench) -> None:
    """Reading on from the checkpoint at the end MUST bring records that were made or changed since."""
    stock = Stock(bench)
    known, other = stock.named(2)
    await stock.put(known, other)
    _, checkpoint = await stock.changes(BEGINNING)
    for _ in range(2):
        [made] = stock.named(1)
        await stock.put(known, made, text=made)
        found, checkpoint = await stock.changes({"start": "checkpoint", "checkpoint": checkpoint}, limit=2)
        newest = {one["keys"][stock.key]: one["fields"][stock.text] for one in found if one["kind"] == "changed"}
        require(newest.get(known) == made, f"the change is not among {newest}")
        require(made in newest, f"the new record is not among {newest}")


@case("INT-33", capability="sync", needs="records")
async def from_now_on_only_what_follows(bench: Bench) -> None:
    """The start ``now`` MUST bring no changes and a checkpoint, from which later changes are read."""
    stock = Stock(bench)
    await stock.put(*stock.named(2))
    page = await stock.page(start="now")
    require((page["changes"], page["more"]) == ([], False), f"now brings {page['changes']}")
    [made] = stock.named(1)
    await stock.put(made)
    found, _ = await stock.changes({"start": "checkpoint", "checkpoint": page["checkpoint"]})
    require(made in stock.names(found), f"read were {stock.names(found)}")


@case("INT-34", capability="sync", needs="records")
async def a_wrong_start_is_refused(bench: Bench) -> None:
    """A checkpoint that is none MUST be ``invalid_argument``, as is a start without what it needs."""
    stock = Stock(bench)
    for params in ({"start": "checkpoint"}, {"start": "time"}, {"start": "checkpoint", "checkpoint": "no checkpoint"}):
        await bench.refused("invalid_argument", "sync", {"object": stock.object, **params})


@case("INT-35", capability="sync", needs="records")
async def a_checkpoint_can_be_read_from_again(bench: Bench) -> None:
    """Reading from the same checkpoint twice MUST bring the same changes: nothing is kept for the caller meanwhile."""
    stock = Stock(bench)
    await stock.put(*stock.named(6))
    first = await stock.page(**BEGINNING, limit=2)
    place = {"start": "checkpoint", "checkpoint": first["checkpoint"], "limit": 2}
    once, again = await stock.page(**place), await stock.page(**place)
    require(stock.names(once["changes"]) == stock.names(again["changes"]), "the second time others came")


@case("INT-36", capability="sync", needs="records")
async def no_record_is_skipped_while_others_change(bench: Bench) -> None:
    """A record that was there all the time MUST be read, whatever else is changed or deleted meanwhile."""
    stock = Stock(bench)
    names = stock.named(9)
    await stock.put(*names)
    page = await stock.page(**BEGINNING, limit=2)
    found = stock.names(page["changes"])
    for moved in (names[0], names[1]):
        await stock.put(moved, text="moved")
        if bench.declares("delete"):
            await stock.delete(moved)
        page = await stock.page(start="checkpoint", checkpoint=page["checkpoint"], limit=2)
        found += stock.names(page["changes"])
    if page["more"]:
        rest, _ = await stock.changes({"start": "checkpoint", "checkpoint": page["checkpoint"]}, limit=2)
        found += stock.names(rest)
    require(set(found) >= set(names[2:]), f"skipped: {sorted(set(names[2:]) - set(found))}")


@case("INT-37", capability="sync", needs="records")
async def changes_have_only_the_fields_that_are_wanted(bench: Bench) -> None:
    """``sync`` MUST answer only the fields that are named; an empty list means keys and versions alone."""
    stock = Stock(bench)
    [name] = stock.named(1)
    await bench.call("upsert", stock.params([stock.record(name, "x", **{stock.note: "y"})]))
    for fields, expected in (([stock.note], {stock.note: "y"}), ([], {})):
        page = await stock.page(**BEGINNING, fields=fields, limit=1000)
        [found] = [one for one in page["changes"] if one["keys"] == stock.keys(name)]
        require((found.get("fields") or {}) == expected, f"of {fields} were answered {found.get('fields')}")


@case("INT-38", capability="sync_deletions", needs="records")
async def deletions_are_read_too(bench: Bench) -> None:
    """A record that is deleted after the snapshot MUST be read as ``deleted``, and ``deletions`` MUST be ``reported``."""
    stock = Stock(bench)
    gone, kept = stock.named(2)
    await stock.put(gone, kept)
    page = await stock.page(**BEGINNING, limit=1000)
    require(page["deletions"] == "reported", f"deletions are {page['deletions']}")
    await stock.delete(gone)
    found, _ = await stock.changes({"start": "checkpoint", "checkpoint": page["checkpoint"]})
    require(stock.names(found, "deleted") == [gone], f"deleted: {stock.names(found, 'deleted')}")
    listed, _ = await stock.changes(BEGINNING)
    require(gone not in stock.names(listed), "a deleted record is listed as if it were there")
