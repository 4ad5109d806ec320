"""Vectors beside a SQLite database: a file of their own, whole or not at all, and a clear word without the extra."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from tests.providers.db.conftest import Caller

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.providers.db.sqlite.provider import SqliteDatabase
from erp.providers.db.sqlite.vectors import FILE, is_same
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio
EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def item(name: str, vector: list[float], **more: Any) -> api.UpsertVectorsRequestItemsItem:
    return api.UpsertVectorsRequestItemsItem(id=name, vector=vector, **more)


async def store(caller: Caller, *items: api.UpsertVectorsRequestItemsItem, collection: str = "notes") -> int:
    request = api.UpsertVectorsRequest(collection=collection, items=list(items))
    return (await caller.database.upsert_vectors(request, caller.context)).stored


async def found(caller: Caller, **search: Any) -> list[Any]:
    request = api.SearchVectorsRequest(**{"collection": "notes", **search})
    return [
        (one.id, round(one.score, 3)) for one in (await caller.database.search_vectors(request, caller.context)).items
    ]


async def test_vectors_outlive_the_provider_in_a_file_of_their_own(caller: Caller, open_context: OpenContext) -> None:
    assert await store(caller, item("a", EAST, text="the cat"), item("b", NORTH)) == 2
    await caller.database.close()
    assert (open_context.data_dir / FILE).exists()
    newer = Caller(SqliteDatabase({}, open_context), caller.context)
    await newer.database.open()
    assert await found(newer, vector=EAST) == [("a", 1.0), ("b", 0.0)]
    assert [name for name, _ in await found(newer, text="CAT")] == ["a"]
    await newer.database.close()


async def test_no_file_is_made_before_the_first_vector(caller: Caller, open_context: OpenContext) -> None:
    assert await caller.rows("select count(*) from stock") == [[5]]
    assert not (open_context.data_dir / FILE).exists()


@pytest.mark.parametrize("missing", ["apsw", "sqlite_vec"])
async def test_without_the_extra_the_refusal_names_it_and_all_else_works(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for attempt in (store(caller, item("a", EAST)), found(caller, vector=EAST)):
        with pytest.raises(ProviderError, match=r"pip install 'erp-provider-layer\[sqlite-vec\]'") as refused:
            await attempt
        assert refused.value.code == "failed_precondition"
    assert await caller.rows("select count(*) from stock") == [[5]]
    monkeypatch.undo()
    assert await store(caller, item("a", EAST)) == 1


async def test_a_refused_request_stores_nothing(caller: Caller) -> None:
    await store(caller, item("a", EAST))
    with pytest.raises(ProviderError) as refused:
        await store(caller, item("b", NORTH), item("c", [1.0, 0.0, 0.0]))
    assert refused.value.code == "failed_precondition"
    assert await found(caller, vector=EAST) == [("a", 1.0)]


async def test_a_changed_text_is_found_and_the_former_is_not(caller: Caller) -> None:
    await store(caller, item("a", EAST, text="old words"), item("b", EAST, text="other"))
    await store(caller, item("a", EAST, text="new words"), item("b", EAST))
    assert [name for name, _ in await found(caller, text="new")] == ["a"]
    assert await found(caller, text="old") == []
    assert await found(caller, text="other") == []


async def test_a_vector_without_direction_is_near_to_nothing(caller: Caller) -> None:
    await store(caller, item("zero", [0.0, 0.0]), item("east", EAST), item("west", [-1.0, 0.0]))
    assert await found(caller, vector=EAST) == [("east", 1.0), ("zero", 0.0), ("west", -1.0)]
    assert await found(caller, vector=[0.0, 0.0], limit=1) == [("east", 0.0)]


async def test_a_closed_database_has_no_vectors(caller: Caller) -> None:
    await store(caller, item("a", EAST))
    await caller.database.close()
    with pytest.raises(ProviderError) as refused:
        await found(caller, vector=EAST)
    assert refused.value.code == "unavailable"


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [(1, 1.0, True), (1, True, False), ("1", 1, False), ({"a": [1]}, {"a": [1.0]}, True), ({"a": 1}, {"b": 1}, False),
     ([True], [1], False), (None, None, True)],
)  # fmt: skip
def test_json_values_are_compared_as_such(left: Any, right: Any, same: bool) -> None:
    assert is_same(left, right) is same
