from __future__ import annotations

import decimal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec import UNSET
from tests.runtime.conftest import ToyLayer

from erp.contracts.models import ai
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.call import Answer, Call
from erp.runtime.context import Actor
from erp.runtime.spending import Spending, minor_millionths

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class NotedHeld:
    """What was reserved, of limits of these units."""

    tenant: str
    limited: frozenset[str]

    def includes(self, unit: str) -> bool:
        return unit in self.limited


@dataclass
class NotedBudgets:
    """The port ``Budgets``: what was reserved and settled, in order."""

    reserved: list[tuple[Sequence[str], dict[str, int]]] = field(default_factory=list)
    settled: list[dict[str, int]] = field(default_factory=list)
    is_full: bool = False
    is_absent: bool = False
    limited: frozenset[str] = frozenset({"tokens"})

    def are_absent(self, tenant: str) -> bool:
        return self.is_absent or tenant != "acme"

    async def reserve(self, tenant: str, scopes: Sequence[str], units: Mapping[str, int]) -> NotedHeld:
        if self.is_full:
            raise ProviderError(ErrorCode.QUOTA_EXHAUSTED, "Used up.", retry_after_seconds=60.0)
        self.reserved.append((scopes, dict(units)))
        return NotedHeld(tenant, self.limited)

    def settle(self, held: Any, units: Mapping[str, int]) -> None:
        assert held == NotedHeld("acme", self.limited)
        self.settled.append(dict(units))


@pytest.fixture
def budgets(toy: ToyLayer) -> NotedBudgets:
    noted = NotedBudgets()
    toy.calls.spending = Spending(noted)
    return noted


async def test_a_call_reserves_by_its_tenant_actor_action_and_provider(toy: ToyLayer, budgets: NotedBudgets) -> None:
    answer = await toy.invoke("get")
    scopes, units = budgets.reserved[0]
    assert [scope.partition(":")[0] for scope in scopes] == ["tenant", "actor", "action", "provider"]
    assert units["requests"] == 1
    sent = units["bytes"] - 1024
    assert budgets.settled == [{"bytes": sent + len(answer.data)}]


async def test_a_call_beyond_its_budget_is_not_tried(toy: ToyLayer, budgets: NotedBudgets) -> None:
    budgets.is_full = True
    assert (await toy.refused("get")).code is ErrorCode.QUOTA_EXHAUSTED
    assert budgets.settled == []
    assert toy.calls.in_flight == 0


async def test_a_tenant_without_budgets_reserves_nothing(toy: ToyLayer, budgets: NotedBudgets) -> None:
    budgets.is_absent = True
    await toy.invoke("get")
    assert budgets.reserved == []


def chat(**facts: Any) -> ai.ChatRequest:
    return ai.ChatRequest(messages=[ai.Message(role="user", text="hello")], **facts)


async def spent(
    budgets: NotedBudgets, request: Any, outcome: ai.ChatResult | ProviderError, action: str = "chat"
) -> Any:
    """Run a call; return the request that the provider was given."""
    from erp.runtime.catalog import ProviderCatalog

    known = ProviderCatalog.load(None).action("providers", "ai", action)
    call = Call(action=known, actor=Actor(id="key_1", tenant="acme"), provider="local", body=b"x" * 100)
    given = []

    async def work(call: Call, request: Any) -> Answer:
        del call
        given.append(request)
        if isinstance(outcome, ProviderError):
            raise outcome
        return Answer(b"y" * 50, "ai/local", "default", result=outcome)

    await Spending(budgets).run(call, request, work)
    return given[0]


def said(**usage: Any) -> ai.ChatResult:
    return ai.ChatResult(model="m", text="", parts=[], finish_reason="stop", usage=ai.Usage(**usage))


async def test_a_model_is_paid_for_what_it_says_it_used() -> None:
    budgets = NotedBudgets()
    cost = ai.Money(amount=decimal.Decimal("0.00012"), currency="USD")
    await spent(budgets, chat(max_output_tokens=500), said(input_tokens=9, output_tokens=4, cost=cost))
    assert budgets.reserved[0][1] == {"requests": 1, "bytes": 1124, "tokens": 600, "money": 1_000_000}
    assert budgets.settled == [{"bytes": 150, "tokens": 13, "money:USD": 12_000}]


async def test_what_the_caller_allows_a_call_to_cost_is_reserved() -> None:
    budgets = NotedBudgets()
    most = ai.Budget(max_input_tokens=10, max_cost=ai.Money(amount=decimal.Decimal("1.5"), currency="EUR"))
    await spent(budgets, chat(max_output_tokens=5, budget=most), said(input_tokens=1, output_tokens=1))
    assert budgets.reserved[0][1]["money:EUR"] == 150_000_000
    assert budgets.reserved[0][1]["tokens"] == 15


async def test_a_model_that_may_write_as_much_as_it_likes_is_given_the_limit_that_was_reserved() -> None:
    budgets = NotedBudgets()
    given = await spent(budgets, chat(), said(input_tokens=1, output_tokens=1))
    assert given.max_output_tokens == 4096
    assert budgets.reserved[0][1]["tokens"] == 100 + 4096


async def test_what_a_call_allows_itself_is_what_is_reserved_and_what_the_provider_is_told() -> None:
    budgets = NotedBudgets()
    picture = {"type": "image", "url": "https://images.example.com/large.png"}
    request = ai.ChatRequest(
        messages=[ai.Message(role="user", parts=[picture])],
        max_output_tokens=7,
        budget=ai.Budget(max_input_tokens=1_500),
    )
    assert await spent(budgets, request, said(input_tokens=1_400, output_tokens=7)) is request
    assert budgets.reserved[0][1]["tokens"] == 1_507


async def test_without_a_limit_of_tokens_a_request_stays_as_it_is() -> None:
    budgets = NotedBudgets(limited=frozenset({"bytes"}))
    request = chat()
    assert await spent(budgets, request, said(input_tokens=1, output_tokens=1)) is request


@pytest.mark.parametrize(
    ("facts", "sentences"), [({}, 3), ({"max_sentences": 9}, 9), ({"max_output_tokens": 50}, UNSET)]
)
async def test_a_summary_is_as_long_as_without_a_limit_of_tokens(facts: dict[str, int], sentences: Any) -> None:
    request = ai.GenerateRequest(task="summarize", text="One. Two.", **facts)
    given = await spent(NotedBudgets(), request, said(input_tokens=1, output_tokens=1), "generate")
    assert given.max_sentences == sentences
    assert given.max_output_tokens == facts.get("max_output_tokens", 4096)


@pytest.mark.parametrize(
    "text", ["hello there", "12345678901234567890", "\u4f60\u597d\u4e16\u754c", "\U0001f469\u200d\U0001f680"]
)
async def test_no_text_has_more_tokens_than_are_reserved(text: str) -> None:
    """Not even with a tokenizer that makes a token of every byte."""
    budgets = NotedBudgets()
    from erp.runtime.catalog import ProviderCatalog

    request = ai.ChatRequest(messages=[ai.Message(role="user", text=text)], max_output_tokens=1)
    action = ProviderCatalog.load(None).action("providers", "ai", "chat")
    await Spending(budgets).allow(
        Call(action=action, actor=Actor(id="key_1", tenant="acme"), provider="local"), request
    )
    assert budgets.reserved[0][1]["tokens"] - 1 > len(text.encode())


@pytest.mark.parametrize(
    ("code", "tokens"), [(ErrorCode.UNAVAILABLE, None), (ErrorCode.TIMEOUT, 600), (ErrorCode.INTERNAL, 600)]
)
async def test_a_failed_call_pays_only_when_it_may_have_been_answered(code: ErrorCode, tokens: int | None) -> None:
    budgets = NotedBudgets()
    with pytest.raises(ProviderError):
        await spent(budgets, chat(max_output_tokens=500), ProviderError(code, "No."))
    assert budgets.settled[0].get("tokens") == tokens


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [("1.23", "USD", 123_000_000), ("1.23", "JPY", 1_230_000), ("1.234", "KWD", 1_234_000_000), ("1E-10", "EUR", 1)],
)
def test_money_is_counted_in_minor_units_of_its_currency(amount: str, currency: str, expected: int) -> None:
    assert minor_millionths(decimal.Decimal(amount), currency) == expected
