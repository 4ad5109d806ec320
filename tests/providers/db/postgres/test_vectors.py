"""What is special to vectors in PostgreSQL; the rest is in the conformance suite."""

from __future__ import annotations

import asyncio
import math
from random import Random
from typing import Any

import pytest
from tests.providers.db.postgres.conftest import Caller, Open, Server, calling

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.postgres.vectors import _NEAREST

pytestmark = [pytest.mark.live, pytest.mark.anyio]


@pytest.fixture
async def vectors(open_database: Open, server: Server, call_context: Any) -> Caller:
    if not await server.rows("select 1 from pg_available_extensions where name = 'vector'"):
        pytest.skip("needs pgvector: set ERP_TEST_PGVECTOR")
    await server.run("create extension vector")
    return calling(await open_database(), call_context)


def item(name: str, *vector: float, **more: Any) -> api.UpsertVectorsRequestItemsItem:
    return api.UpsertVectorsRequestItemsItem(id=name, vector=list(vector), **more)


async def stored(caller: Caller, *items: api.UpsertVectorsRequestItemsItem, collection: str = "c") -> int:
    request = api.UpsertVectorsRequest(collection=collection, items=list(items))
    result: int = (await caller.database.upsert_vectors(request, caller.context)).stored
    return result


async def search(caller: Caller, **words: Any) -> list[Any]:
    request = api.SearchVectorsRequest(**{"collection": "c", **words})
    items: list[Any] = (await caller.database.search_vectors(request, caller.context)).items
    return items


async def test_many_vectors_are_searched_by_their_index(vectors: Caller, server: Server) -> None:
    random = Random(1)
    items = [item(f"n{number}", *(random.gauss(0, 1) for _ in range(16))) for number in range(3000)]
    for start in range(0, len(items), 1000):
        await stored(vectors, *items[start : start + 1000])
    await server.run("analyze")
    sql = _NEAREST.format(table="erp_vectors_c", filter="", limit=10)
    plan = " ".join(row[0] for row in await server.rows(f"explain {sql}", str(items[0].vector)))

    assert "Index Scan using erp_vectors_c_near" in plan
    assert (await search(vectors, vector=items[7].vector))[0].id == "n7"


async def test_the_score_is_the_cosine_and_zero_where_there_is_no_angle(vectors: Caller) -> None:
    await stored(vectors, item("same", 2, 0), item("right", 0, 3), item("back", -1, 0), item("none", 0, 0))
    scores = {one.id: one.score for one in await search(vectors, vector=[5.0, 0.0])}

    assert all(
        math.isclose(scores[name], score, abs_tol=1e-6) for name, score in (("same", 1), ("right", 0), ("back", -1))
    )
    assert scores.get("none", 0.0) == 0.0


async def test_collections_with_long_names_do_not_meet(vectors: Caller) -> None:
    names = ["a" * 62 + end for end in "bc"]
    for name in names:
        await stored(vectors, item(name, 1.0), collection=name)

    for name in names:
        assert [one.id for one in await search(vectors, collection=name, vector=[1.0])] == [name]


async def test_vectors_too_long_for_an_index_are_kept_and_a_refused_first_item_makes_no_collection(
    vectors: Caller,
) -> None:
    assert await stored(vectors, item("long", *[0.5] * 2001)) == 1
    assert [one.id for one in await search(vectors, vector=[0.5] * 2001)] == ["long"]
    with pytest.raises(ProviderError) as refused:
        await stored(vectors, item("huge", *[0.5] * 16_000), item("huger", *[1e300] * 16_000), collection="d")
    assert refused.value.code == "invalid_argument"
    with pytest.raises(ProviderError) as unknown:
        await search(vectors, collection="d", vector=[1.0])
    assert unknown.value.code == "not_found"


async def test_a_collection_begun_by_many_at_once_has_all_their_items(vectors: Caller) -> None:
    await asyncio.gather(*(stored(vectors, item(f"n{number}", 1.0, number)) for number in range(12)))

    assert len(await search(vectors, vector=[1.0, 0.0], limit=100)) == 12


async def test_vectors_cannot_be_reached_by_queries(vectors: Caller) -> None:
    await stored(vectors, item("x", 1.0))
    with pytest.raises(ProviderError) as refused:
        await vectors.rows("select * from erp_vectors_c")

    assert refused.value.code == "invalid_argument"
    assert [
        table.name for table in (await vectors.database.metadata(api.MetadataRequest(), vectors.context)).tables
    ] == []
