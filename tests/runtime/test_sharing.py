"""Limits of a connection that all processes share, as a plan meets them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.conftest import MakeCallContext
from tests.runtime.conftest import ToyLayer
from tests.runtime.toys import KeyRequest

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import execution
from erp.runtime.call_policy import Rate
from erp.runtime.sharing import OwnPlaces, Sharing

pytestmark = pytest.mark.anyio

REQUEST = KeyRequest(key="a")


class NotedRates:
    """The port ``Rates``: who asked, and as many tokens as it is given."""

    def __init__(self, *waits: float) -> None:
        self.waits = list(waits)
        self.asked: list[tuple[Any, Rate]] = []

    async def take(self, owner: str | tuple[str, str], settings: Rate) -> float:
        self.asked.append((owner, settings))
        return self.waits.pop(0) if self.waits else 0.0


class NotedPlaces(OwnPlaces):
    """The port ``PlaceBook``: who asked for how many."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[tuple[str, str], int]] = []

    def of(self, owner: tuple[str, str], limit: int) -> Any:
        self.asked.append((owner, limit))
        return super().of(owner, limit)


def shared(toy: ToyLayer, *waits: float) -> tuple[NotedPlaces, NotedRates]:
    places, rates = NotedPlaces(), NotedRates(*waits)
    toy.plans.sharing = Sharing(places, rates)
    return places, rates


async def test_nothing_is_shared_that_nobody_has_limited(toy: ToyLayer, call_context: MakeCallContext) -> None:
    places, rates = shared(toy)
    plan = await toy.planned(bulkhead={"max_concurrency": 5})
    await execution.run(plan, REQUEST, call_context())
    assert (places.asked, rates.asked, plan.shared_rate) == ([], [], None)


async def test_a_limit_is_that_of_the_connection_or_of_an_action_that_has_its_own(toy: ToyLayer) -> None:
    places, _ = shared(toy)
    own = {"get": {"concurrency": 1, "rate": {"requests": 5}}}
    get = await toy.planned(concurrency=3, rate={"requests": 9}, actions=own)
    (tenant, name), limit = places.asked[-1]
    assert (tenant, name.rpartition(".")[2], limit) == ("acme", "get", 1)
    assert get.shared_rate is not None
    assert (get.shared_rate.owner, get.shared_rate.settings.requests) == ((tenant, name), 5)


async def test_calls_wait_for_a_place_that_others_have(toy: ToyLayer, call_context: MakeCallContext) -> None:
    places, _ = shared(toy)
    plan = await toy.planned(concurrency=1)
    other = places.of(*places.asked[-1])
    assert other.try_enter()
    waiting = asyncio.create_task(execution.run(plan, REQUEST, call_context()))
    await asyncio.sleep(0.05)
    assert (waiting.done(), toy.script.attempts) == (False, 0)
    other.leave()
    await waiting
    assert (plan.gate.running, other.running) == (0, 0)


async def test_a_call_that_waits_in_vain_leaves_nothing_behind(toy: ToyLayer, call_context: MakeCallContext) -> None:
    places, _ = shared(toy)
    plan = await toy.planned(concurrency=1)
    other = places.of(*places.asked[-1])
    assert other.try_enter()
    with pytest.raises(ProviderError) as refused:
        await execution.run(plan, REQUEST, call_context(seconds=0.05))
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert (plan.gate.running, other.running, other.waiting) == (0, 1, 0)
    other.leave()
    assert (await execution.run(plan, REQUEST, call_context())).value == "a"


async def test_the_rate_of_all_processes_refuses_before_the_provider_is_asked(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    _, rates = shared(toy, 0.7)
    plan = await toy.planned(rate={"requests": 50})
    with pytest.raises(ProviderError) as refused:
        await execution.run(plan, REQUEST, call_context())
    assert (refused.value.code, refused.value.retry_after_seconds) == (ErrorCode.RATE_LIMITED, 0.7)
    assert toy.script.attempts == 0
    assert len(rates.asked) == 1


async def test_every_attempt_counts_against_the_rate(toy: ToyLayer, call_context: MakeCallContext) -> None:
    _, rates = shared(toy, 0.0, 0.01, 0.0)
    plan = await toy.planned(rate={"requests": 50}, retry={"base_seconds": 0})
    toy.script.fails(ProviderError("unavailable", "Down."))
    assert (await execution.run(plan, REQUEST, call_context())).value == "recovered"
    assert (toy.script.attempts, len(rates.asked)) == (2, 3)


async def test_a_retry_without_a_token_before_the_deadline_ends_as_the_attempt_did(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    shared(toy, 0.0, 60.0)
    plan = await toy.planned(rate={"requests": 50}, retry={"base_seconds": 0})
    toy.script.fails(ProviderError("unavailable", "Down."))
    with pytest.raises(ProviderError) as failed:
        await execution.run(plan, REQUEST, call_context())
    assert (failed.value.message, toy.script.attempts) == ("Down.", 1)


async def test_bulkheads_of_one_connection_share_its_places_in_one_process_too(toy: ToyLayer) -> None:
    own = {"get": {"bulkhead": {"max_queue": 1}}}
    get = await toy.planned("get", concurrency=1, actions=own)
    put = await toy.plans.find("acme", toy.catalog.action("providers", "toy", "put"), "box", "default")
    assert get.gate.limits != put.gate.limits
    assert get.gate.try_enter()
    assert put.gate.try_enter() is False
    get.gate.leave()
    assert put.gate.try_enter() is True
    put.gate.leave()


async def test_places_that_are_taken_away_are_not_handed_on() -> None:
    book = OwnPlaces()
    places = book.of(("acme", "c"), 2)
    assert places.try_enter()
    assert places.try_enter()
    waiting = asyncio.create_task(places.wait_to_enter())
    await asyncio.sleep(0)
    assert book.of(("acme", "c"), 1) is places
    places.leave()
    await asyncio.sleep(0)
    assert waiting.done() is False
    places.leave()
    await waiting
    assert (places.running, places.waiting) == (1, 0)
