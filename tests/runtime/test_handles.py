"""Handles that pass through a route."""

from __future__ import annotations

from typing import Any

import pytest

from erp.contracts.loading import catalog
from erp.contracts.models import bus, db, storage
from erp.errors import ProviderError
from erp.runtime.handles import NAMES, mark_of, marked, unmarked

MARK = mark_of("box", "a")


def test_a_handle_comes_back_as_its_peer_knows_it() -> None:
    began = marked(db.BeginResult(transaction="tx@1", lease_ends_at="2026-01-01T00:00:00Z"), MARK)
    request, mark = unmarked(db.QueryRequest(sql="select 1", transaction=began.transaction))

    assert began.transaction == f"tx@1@{MARK}"
    assert (request.transaction, mark) == ("tx@1", MARK)


def test_handles_of_items_are_marked_and_lists_of_them_read() -> None:
    event = bus.CloudEvent(id="1", source="/t", type="t")
    deliveries = [bus.Delivery(ack_id=f"{n}", topic="t", position="1", event=event, delivery=1) for n in range(2)]
    result = marked(bus.PullResult(deliveries=deliveries), MARK)
    request, mark = unmarked(bus.AckRequest(ack_ids=[one.ack_id for one in result.deliveries]))

    assert (request.ack_ids, mark) == (["0", "1"], MARK)
    assert deliveries[0].ack_id == "0", "what the provider returned is its own"


def test_what_has_no_handle_is_left_alone() -> None:
    request = storage.ListRequest()

    assert unmarked(request) == (request, None)


@pytest.mark.parametrize(
    ("ids", "words"),
    [(["1"], "a handle that this route gave"), (["1@aaaaaaaa", "2@bbbbbbbb"], "belong to several")],
)
def test_handles_that_no_target_or_several_gave_are_refused(ids: list[str], words: str) -> None:
    with pytest.raises(ProviderError) as refused:
        unmarked(bus.AckRequest(ack_ids=ids))

    [error] = refused.value.errors
    assert error.pointer == "/params/ack_ids"
    assert words in error.message


def test_two_targets_have_two_marks() -> None:
    assert mark_of("box", "a") != mark_of("box", "b") != mark_of("vat", "a")


def properties(schema: Any) -> set[str]:
    """Return every name of a member anywhere in a schema."""
    if isinstance(schema, list):
        return set().union(*map(properties, schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    own = set(schema.get("properties", {}))
    return own.union(*map(properties, schema.values()))


def test_the_names_are_those_of_the_contracts() -> None:
    actions = [action for domain in catalog()["domains"].values() for action in domain["actions"].values()]
    used = set().union(*(properties(action[part]) for action in actions for part in ("params", "result")))

    assert used >= NAMES
