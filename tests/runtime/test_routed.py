"""Calls that name a route: where they go, when they go on, and what never happens twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.runtime.conftest import ToyLayer
from tests.runtime.toys import Script, ToyResult

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.spi import Health

pytestmark = pytest.mark.anyio

DOWN = ProviderError(ErrorCode.UNAVAILABLE, "gone", retryable=False)
UNKNOWN = ProviderError(ErrorCode.OUTCOME_UNKNOWN, "who knows")


@pytest.fixture
async def two(toy: ToyLayer) -> AsyncIterator[tuple[Script, Script]]:
    """Connections ``a`` and ``b`` of ``toy/box``, each with a script of its own; no retries."""
    scripts = Script(), Script()
    for name, script in zip("ab", scripts, strict=True):
        toy.connect(name=name, script=script, policy={"retry": {"max_attempts": 1}})
    yield scripts
    await toy.calls.routes.close()


def answers(script: Script, value: Any) -> None:
    async def method(request: Any, context: Any) -> ToyResult:
        return ToyResult(value=value)

    script.method = method


def breaks(script: Script, error: ProviderError) -> None:
    async def method(request: Any, context: Any) -> ToyResult:
        raise error

    script.method = method


async def until(condition: Any) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.005)


async def served(toy: ToyLayer, action: str = "get", **facts: Any) -> str:
    return (await toy.invoke(action, provider="main-box", **facts)).connection


async def test_a_single_route_is_another_name(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "single", "#b")

    answer = await toy.invoke("get", provider="main-box")

    assert (answer.provider, answer.connection) == ("toy/box", "b")
    assert [script.attempts for script in two] == [0, 1]


async def test_an_unknown_route_is_not_found_and_says_how_to_make_it(toy: ToyLayer) -> None:
    error = await toy.refused("get", provider="no-such")

    assert error.code is ErrorCode.NOT_FOUND
    assert "PUT /routes/toy/no-such" in error.message


async def test_a_route_of_another_tenant_does_not_exist(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    made = toy.lead("main-box", "single", "#b")
    del toy.routes.stored["acme", "toy", "main-box"]
    toy.routes.stored["other", "toy", "main-box"] = made

    assert (await toy.refused("get", provider="main-box")).code is ErrorCode.NOT_FOUND
    assert [script.attempts for script in two] == [0, 0]


@pytest.mark.parametrize("code", [ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT, ErrorCode.INTERNAL, ErrorCode.RATE_LIMITED])
async def test_a_read_goes_on_to_the_next_target(toy: ToyLayer, two: tuple[Script, Script], code: ErrorCode) -> None:
    toy.lead("main-box", "failover", "#a", "#b")
    breaks(two[0], ProviderError(code, "gone"))

    assert await served(toy) == "b"


@pytest.mark.parametrize("code", [ErrorCode.NOT_FOUND, ErrorCode.CONFLICT, ErrorCode.INVALID_ARGUMENT])
async def test_a_refusal_is_the_answer(toy: ToyLayer, two: tuple[Script, Script], code: ErrorCode) -> None:
    toy.lead("main-box", "failover", "#a", "#b")
    breaks(two[0], ProviderError(code, "no"))

    assert (await toy.refused("get", provider="main-box")).code is code
    assert two[1].attempts == 0


async def test_an_effect_that_did_not_happen_goes_on(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "failover", "#a", "#b")
    breaks(two[0], DOWN)

    assert await served(toy, "append") == "b"


@pytest.mark.parametrize("key", [None, "k1"])
@pytest.mark.parametrize("action", ["append", "put"])
async def test_an_effect_of_unknown_outcome_is_never_repeated_on_another_system(
    toy: ToyLayer, two: tuple[Script, Script], action: str, key: str | None
) -> None:
    toy.lead("main-box", "failover", "#a", "#b")
    breaks(two[0], UNKNOWN)

    error = await toy.refused(action, provider="main-box", idempotency_key=key)

    assert error.code is ErrorCode.OUTCOME_UNKNOWN
    assert two[1].attempts == 0
    kept = toy.journal.completions[-1]
    assert (kept.claim is None, kept.release) == (key is None, False)


async def test_an_effect_of_unknown_outcome_goes_on_where_its_repetition_is_recognised(toy: ToyLayer) -> None:
    scripts = Script(), Script()
    for name, script in zip("ab", scripts, strict=True):
        toy.connect(provider="vat", name=name, script=script, policy={"retry": {"max_attempts": 1}})
    toy.lead("main-box", "failover", "vat#a", "vat#b", same_system=True)
    breaks(scripts[0], UNKNOWN)

    assert (await toy.refused("append", provider="main-box")).code is ErrorCode.OUTCOME_UNKNOWN
    assert scripts[1].attempts == 0
    assert await served(toy, "append", idempotency_key="k1") == "b"


async def test_a_retry_that_fails_cleanly_does_not_hide_an_attempt_that_may_have_happened(toy: ToyLayer) -> None:
    scripts = Script(), Script()
    for name, script in zip("ab", scripts, strict=True):
        retry = {"max_attempts": 2, "base_seconds": 0, "cap_seconds": 0}
        toy.connect(provider="vat", name=name, script=script, policy={"retry": retry})
    toy.lead("main-box", "failover", "vat#a", "vat#b")
    scripts[0].fails(ProviderError(ErrorCode.TIMEOUT, "slow"), ProviderError(ErrorCode.UNAVAILABLE, "gone"))

    error = await toy.refused("append", provider="main-box", idempotency_key="k1")

    assert error.code is ErrorCode.UNAVAILABLE
    assert scripts[1].attempts == 0
    assert not toy.journal.completions[-1].release


async def test_a_target_that_keeps_failing_gets_no_calls_until_it_is_healthy_again(
    toy: ToyLayer, two: tuple[Script, Script]
) -> None:
    toy.lead("main-box", "failover", "#a", "#b", after_failures=2, retry_after_seconds=0.05)
    breaks(two[0], DOWN)
    two[0].health = Health(status="down")
    for _ in range(5):
        assert await served(toy) == "b"
    assert two[0].attempts == 2

    await asyncio.sleep(0.06)
    await served(toy)
    await asyncio.sleep(0.02)
    assert await served(toy) == "b", "its health is still bad"
    two[0].health = Health(status="ok")
    answers(two[0], "back")
    ends = time.monotonic() + 30
    while await served(toy) != "a":
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)
    assert two[0].attempts == 3


async def test_when_all_are_down_the_first_is_tried_first(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "failover", "#a", "#b", after_failures=1, retry_after_seconds=60)
    for script in two:
        breaks(script, DOWN)
        script.health = Health(status="down")
    for _ in range(3):
        assert (await toy.refused("get", provider="main-box")).code is ErrorCode.UNAVAILABLE
    answers(two[0], 1)

    assert await served(toy) == "a"


async def test_a_target_that_cannot_be_opened_is_passed_over(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "failover", "#a", "#b")

    async def fail(_: Any) -> None:
        raise ProviderError(ErrorCode.UNAUTHENTICATED, "the password has changed")

    two[0].on_open = fail

    assert await served(toy, "append") == "b"


async def test_the_patience_of_the_caller_ends_the_search(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "failover", "#a", "#b")

    async def slow(request: Any, context: Any) -> ToyResult:
        await asyncio.sleep(5)
        return ToyResult()

    two[0].method = slow

    assert (await toy.refused("get", provider="main-box", timeout_seconds=0.05)).code is ErrorCode.TIMEOUT
    assert two[1].attempts == 0


async def test_weights_are_shares(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    made = toy.lead("main-box", "weighted", "#a", "#b")
    made.targets[0] = type(made.targets[0])(provider="box", connection="a", weight=3)

    shares = Counter([await served(toy, idempotency_key=f"k{number}") for number in range(400)])
    at_random = Counter([await served(toy) for _ in range(400)])

    assert 260 < shares["a"] < 340
    assert 250 < at_random["a"] < 350


async def test_a_target_without_weight_gets_nothing(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    made = toy.lead("main-box", "weighted", "#a", "#b")
    made.targets[0] = type(made.targets[0])(provider="box", connection="a", weight=0)

    assert {await served(toy) for _ in range(30)} == {"b"}


async def test_calls_with_one_key_go_one_way(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "weighted", "#a", "#b")

    assert len({await served(toy, idempotency_key="the same") for _ in range(30)}) == 1


async def test_a_mirror_gets_the_same_calls_and_nobody_waits_for_it(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "shadow", "#a", "#b")
    answers(two[0], {"total": "1.10", "lines": [1, 2]})
    go = asyncio.Event()

    async def late(request: Any, context: Any) -> ToyResult:
        await go.wait()
        return ToyResult(value={"total": "1.11", "lines": [1, 2]})

    two[1].method = late

    assert await served(toy) == "a"
    live = await toy.calls.routes.find("acme", "toy", "main-box")
    assert live is not None
    go.set()
    await until(lambda: live.shadow.compared == 1)

    [difference] = live.shadow.differences
    assert (difference.primary, difference.mirror, difference.pointers) == ("ok", "ok", ["/value/total"])
    assert difference.target == "box#b"


async def test_equal_answers_and_those_that_may_differ_are_no_difference(
    toy: ToyLayer, two: tuple[Script, Script]
) -> None:
    toy.lead("main-box", "shadow", "#a", "#b", ignore=["/value/*/at"])
    answers(two[0], [{"at": 1, "n": 1}])
    answers(two[1], [{"at": 2, "n": 1}])

    await served(toy)

    live = await toy.calls.routes.find("acme", "toy", "main-box")
    assert live is not None
    await until(lambda: live.shadow.compared == 1)
    assert (live.shadow.equal, live.shadow.different) == (1, 0)


async def test_a_mirror_that_fails_is_reported_and_disturbs_nobody(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "shadow", "#a", "#b")
    breaks(two[1], DOWN)

    assert await served(toy) == "a"

    live = await toy.calls.routes.find("acme", "toy", "main-box")
    assert live is not None
    await until(lambda: live.shadow.compared == 1)
    assert [one.mirror for one in live.shadow.differences] == ["unavailable"]


async def test_effects_are_mirrored_only_when_asked_for_and_then_audited(
    toy: ToyLayer, two: tuple[Script, Script]
) -> None:
    toy.lead("main-box", "shadow", "#a", "#b")
    await served(toy, "put")
    await asyncio.sleep(0.02)
    assert two[1].attempts == 0

    toy.lead("all-box", "shadow", "#a", "#b", mirror_effects=True)
    await toy.invoke("put", provider="all-box")
    await until(lambda: two[1].attempts == 1)
    await until(lambda: any(done.audit.reason == "mirrored" for done in toy.journal.completions))


async def test_the_audit_record_says_who_served_the_route(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "failover", "#a", "#b")
    breaks(two[0], DOWN)

    await served(toy, "put")

    [audit] = [done.audit for done in toy.journal.completions]
    assert (audit.target, audit.detail) == ("toy/main-box.put", {"served_by": "box#b"})


async def test_a_changed_route_keeps_what_is_known_of_its_targets(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "failover", "#a", "#b", after_failures=1, retry_after_seconds=60)
    breaks(two[0], DOWN)
    await served(toy)
    before = two[0].attempts
    del toy.routes.stored["acme", "toy", "main-box"]
    toy.lead("other-box", "single", "#a")
    toy.lead("main-box", "failover", "#a", "#b", after_failures=1, retry_after_seconds=60)

    assert await served(toy) == "b"
    assert two[0].attempts == before


async def test_a_stream_begins_at_the_first_target_that_opens(toy: ToyLayer, two: tuple[Script, Script]) -> None:
    toy.lead("main-box", "failover", "#a", "#b")

    async def fail(_: Any) -> None:
        raise ProviderError(ErrorCode.UNAVAILABLE, "no way in")

    two[0].on_open = fail
    two[1].items = [1]
    items = await toy.calls.stream(toy.call("watch", provider="main-box"))

    assert [item async for item in items] == [b'{"value":1,"amount":null}']
