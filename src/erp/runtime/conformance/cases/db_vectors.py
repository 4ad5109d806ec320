"""Vectors beside rows: searched by nearness, by payload and by words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case
from erp.runtime.conformance.host import ALPHA, BETA

COMPASS = {"east": [1.0, 0.0, 0.0], "near_east": [0.8, 0.6, 0.0], "north": [0.0, 1.0, 0.0], "west": [-1.0, 0.0, 0.0]}
"""All of length one, so that every measure of nearness puts them into the same order."""
EAST = [1.0, 0.0, 0.0]
TEXTS = ("ünïcödé \U0001f418", 'it\'s "quoted"', "line\nbreak", "\\ % _ ; --", "日本語")


async def new_collection(bench: Bench, items: Sequence[Mapping[str, Any]] = (), *, tenant: str = ALPHA) -> str:
    """Make a collection of the ``COMPASS``, or of ``items``; return its name."""
    name = bench.unique("collection").replace("-", "_")
    own = items or [{"id": key, "vector": vector} for key, vector in COMPASS.items()]
    answer = await bench.call("upsert_vectors", {"collection": name, "items": list(own)}, tenant=tenant)
    require(answer["stored"] == len(own), f"of {len(own)} items it stored {answer['stored']}")
    return name


async def found(bench: Bench, collection: str, *, tenant: str = ALPHA, **search: Any) -> list[Any]:
    """Return the items that a search answers."""
    params = {
        "collection": collection,
        **({"vector": EAST} if not search.keys() & {"vector", "text"} else {}),
        **search,
    }
    items: list[Any] = (await bench.call("search_vectors", params, tenant=tenant))["items"]
    return items


def ids(items: Sequence[Any]) -> list[str]:
    """The ids of items in their order."""
    return [item["id"] for item in items]


@case("DB-60", capability="vectors")
async def the_nearest_come_first(bench: Bench) -> None:
    """``search_vectors`` MUST answer the nearest vectors first, their scores falling, and no more than ``limit``."""
    collection = await new_collection(bench)
    items = await found(bench, collection)
    require(ids(items) == ["east", "near_east", "north", "west"], f"the order was {ids(items)}")
    scores = [item["score"] for item in items]
    require(all(first > second for first, second in itertools.pairwise(scores)), f"the scores were {scores}")
    require(ids(await found(bench, collection, limit=2)) == ["east", "near_east"], "limit was not kept")


@case("DB-61", capability="vectors")
async def a_search_keeps_to_equal_payloads(bench: Bench) -> None:
    """With ``equals`` only items whose payload has all these members with these values MUST be answered, up to ``limit``."""
    kinds = {"east": "a", "near_east": "b", "north": "a", "west": "b"}
    items = [
        {"id": key, "vector": COMPASS[key], "payload": {"kind": kind, "rank": number, "open": kind == "a"}}
        for number, (key, kind) in enumerate(kinds.items())
    ]
    collection = await new_collection(bench, [*items, {"id": "bare", "vector": EAST}])
    for equals, expected in (
        ({"kind": "b"}, ["near_east", "west"]),
        ({"kind": "a", "rank": 2}, ["north"]),
        ({"open": True}, ["east", "north"]),
        ({"rank": "2"}, []),
        ({"missing": 1}, []),
    ):
        answered = ids(await found(bench, collection, equals=equals))
        require(answered == expected, f"{equals} was answered {answered}")
    require(
        ids(await found(bench, collection, equals={"kind": "b"}, limit=1)) == ["near_east"], "limit came before equals"
    )


@case("DB-62", capability="vectors")
async def the_same_id_is_replaced(bench: Bench) -> None:
    """An item stored under a known id MUST replace the former one whole: its vector and its payload."""
    collection = await new_collection(
        bench, [{"id": "x", "vector": EAST, "payload": {"old": 1, "both": 1}}, {"id": "y", "vector": COMPASS["north"]}]
    )
    changed = {"id": "x", "vector": COMPASS["west"], "payload": {"both": 2}}
    await bench.call("upsert_vectors", {"collection": collection, "items": [changed]})
    items = await found(bench, collection)
    require(ids(items) == ["y", "x"], f"after the change the order was {ids(items)}")
    require(items[1].get("payload") == {"both": 2}, f"its payload is {items[1].get('payload')}")


@case("DB-63", capability="vectors")
async def vectors_of_another_length_are_refused(bench: Bench) -> None:
    """A vector of another length than the collection's MUST be refused with ``failed_precondition`` and change nothing."""
    collection = await new_collection(bench)
    items = [{"id": "new", "vector": EAST}, {"id": "short", "vector": [1.0, 0.0]}]
    for params in ({"items": items}, {"items": items[1:]}):
        await bench.refused("failed_precondition", "upsert_vectors", {"collection": collection, **params})
    require(set(ids(await found(bench, collection))) == set(COMPASS), "part of a refused request was stored")


@case("DB-64", capability="vectors")
async def an_unknown_collection_is_not_found(bench: Bench) -> None:
    """A search in a collection that nothing was ever stored in MUST be refused with ``not_found``."""
    unknown = bench.unique("unknown").replace("-", "_")
    await bench.refused("not_found", "search_vectors", {"collection": unknown, "vector": EAST})


@case("DB-65", capability="vectors")
async def tenants_share_no_vectors(bench: Bench) -> None:
    """No tenant MUST ever find or replace a vector of another, whatever names it uses."""
    own = {"id": "x", "vector": EAST, "payload": {"of": "alpha"}}
    collection = await new_collection(bench, [own])
    await bench.refused("not_found", "search_vectors", {"collection": collection, "vector": EAST}, tenant=BETA)
    theirs = {"id": "x", "vector": EAST, "payload": {"of": "beta"}}
    await bench.call("upsert_vectors", {"collection": collection, "items": [theirs]}, tenant=BETA)
    for tenant, of in ((ALPHA, "alpha"), (BETA, "beta")):
        items = await found(bench, collection, tenant=tenant)
        require([item["payload"]["of"] for item in items] == [of], f"{tenant} found {items}")


@case("DB-66", capability="vectors")
async def payloads_come_back_unchanged(bench: Bench) -> None:
    """Ids and payloads MUST come back exactly, whatever text they are and however they are nested."""
    deep: dict[str, Any] = {
        "list": [1, 2.5, None, True, {"a": []}],
        "said": TEXTS[0],
        "none": None,
        "": "empty name",
        "big": 2**53 - 1,
    }
    items: list[dict[str, Any]] = [{"id": text, "vector": EAST, "payload": {"text": text, **deep}} for text in TEXTS]
    collection = await new_collection(bench, items)
    answered = {item["id"]: item["payload"] for item in await found(bench, collection, limit=100)}
    require(answered == {item["id"]: item["payload"] for item in items}, "an id or a payload has changed")
    for text in TEXTS:
        require(
            ids(await found(bench, collection, equals={"text": text})) == [text],
            f"{text!r} was not found by its payload",
        )


@case("DB-67", capability="vectors")
async def many_vectors_are_kept(bench: Bench) -> None:
    """A thousand vectors stored at once MUST all be there; of an id that comes twice the later item counts."""
    items = [
        {"id": f"n{number}", "vector": [1.0, number / 1000, 0.0], "payload": {"n": number}} for number in range(999)
    ]
    collection = await new_collection(bench, [{**items[0], "payload": {"n": -1}}, *items])
    answered = await found(bench, collection, limit=1000)
    require(sorted(item["payload"]["n"] for item in answered) == list(range(999)), f"{len(answered)} were found")
    require(ids(answered[:3]) == ["n0", "n1", "n2"], f"the nearest were {ids(answered[:3])}")


@case("DB-68", capability="vectors")
async def a_search_needs_something_to_search_for(bench: Bench) -> None:
    """A search with neither vector nor text, or with a vector of another length, MUST be refused with ``invalid_argument``."""
    collection = await new_collection(bench)
    for search in ({}, {"vector": [1.0, 0.0]}):
        await bench.refused("invalid_argument", "search_vectors", {"collection": collection, **search})


ANIMALS = (
    {"id": "cat", "vector": [1.0, 0.0, 0.0], "text": "the cat sleeps on the warm roof", "payload": {"kind": "pet"}},
    {"id": "dog", "vector": [0.8, 0.6, 0.0], "text": "the dog barks at the cat", "payload": {"kind": "pet"}},
    {"id": "bear", "vector": [0.0, 1.0, 0.0], "text": "a bear fishes in the river", "payload": {"kind": "wild"}},
    {"id": "fox", "vector": [-1.0, 0.0, 0.0], "text": "the fox runs from the dog", "payload": {"kind": "wild"}},
    {"id": "mute", "vector": [-0.8, 0.6, 0.0]},
)


@case("DB-70", capability="hybrid_search")
async def words_are_found(bench: Bench) -> None:
    """With ``text`` alone exactly the items whose text has the words MUST be answered, also with ``equals``."""
    collection = await new_collection(bench, ANIMALS)
    for text, equals, expected in (
        ("cat", {}, {"cat", "dog"}),
        ("DOG", {}, {"dog", "fox"}),
        ("dog", {"kind": "wild"}, {"fox"}),
        ("river", {}, {"bear"}),
        ("unheard", {}, set()),
        ("'; -- \" ( & !", {}, set()),
    ):
        answered = ids(await found(bench, collection, text=text, equals=equals))
        require(set(answered) == expected, f"{text!r} {equals} was answered {answered}")


@case("DB-71", capability="hybrid_search")
async def words_and_nearness_count_together(bench: Bench) -> None:
    """With ``vector`` and ``text`` an item that is near and has the words MUST come before those that only are or have."""
    collection = await new_collection(bench, ANIMALS)
    both = await found(bench, collection, vector=EAST, text="barks")
    require(ids(both)[:1] == ["dog"], f"what barks near the east was answered {ids(both)}")
    far = await found(bench, collection, vector=COMPASS["west"], text="dog")
    require(ids(far)[:1] == ["fox"], f"west with a dog was answered {ids(far)}")
    require(
        [item["score"] for item in far] == sorted((item["score"] for item in far), reverse=True), "scores do not fall"
    )
    wild = await found(bench, collection, vector=COMPASS["near_east"], text="dog", equals={"kind": "wild"})
    require(set(ids(wild)) <= {"bear", "fox"}, f"with equals it was answered {ids(wild)}")


@case("DB-72", capability="vectors", without="hybrid_search")
async def words_need_their_capability(bench: Bench) -> None:
    """Without the capability ``hybrid_search`` a search with ``text`` MUST be refused with ``unsupported``."""
    collection = await new_collection(bench)
    await bench.refused("unsupported", "search_vectors", {"collection": collection, "text": "cat"})
    await bench.refused("unsupported", "search_vectors", {"collection": collection, "text": "cat", "vector": EAST})
