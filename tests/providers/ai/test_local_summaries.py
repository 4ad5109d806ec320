"""Extractive summaries of the local AI provider: quotations within their limits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from erp.contracts.models.ai import Budget, GenerateRequest, Money
from erp.providers.ai.local.provider import LocalAi
from erp.runtime.spi import CallContext, ErrorCode, OpenContext, ProviderError

if TYPE_CHECKING:
    from tests.conftest import MakeCallContext

pytestmark = pytest.mark.anyio

HASHING = "hashing-384"
MAIL = (
    "Dear team, thank you for the call. Our order of 200 pumps must arrive by Friday, Dr. Smith said. "
    "The weather is nice. If the pumps do not arrive by Friday, our production line stops."
)


@pytest.fixture
async def local(open_context: OpenContext) -> AsyncIterator[LocalAi]:
    provider = LocalAi({}, open_context)
    await provider.open()
    yield provider
    await provider.close()


@pytest.fixture
def context(call_context: MakeCallContext) -> CallContext:
    return call_context()


async def refused(call: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await call
    return caught.value


async def test_a_summary_quotes_the_text_and_says_where(local: LocalAi, context: CallContext) -> None:
    result = await local.generate(GenerateRequest(task="summarize", text=MAIL, max_sentences=2), context)

    assert result.model == "extractive-1"
    assert result.text == (
        "Our order of 200 pumps must arrive by Friday, Dr. Smith said. "
        "If the pumps do not arrive by Friday, our production line stops."
    )
    assert " ".join(MAIL[one.start : one.end] for one in result.quotes) == result.text
    assert (result.finish_reason, result.usage.input_tokens, result.usage.output_tokens) == ("stop", 35, 24)
    assert result.usage.estimated is True


@pytest.mark.parametrize(
    ("text", "limits", "expected", "reason"),
    [
        ("One sentence.", {}, "One sentence.", "stop"),
        ("...", {}, "", "stop"),
        ("A b c d e f.", {"max_output_tokens": 3}, "A b c", "max_tokens"),
        ("Long one with many words. Short one.", {"max_output_tokens": 2}, "Short one.", "stop"),
        ("First.\n\n- second\n- third", {"max_sentences": 9}, "First. - second - third", "stop"),
        ("注文が遅れています。天気は良いです。", {"max_sentences": 9}, "注文が遅れています。 天気は良いです。", "stop"),
    ],
)
async def test_summaries_keep_their_limits(
    local: LocalAi, context: CallContext, text: str, limits: dict[str, int], expected: str, reason: str
) -> None:
    result = await local.generate(GenerateRequest(task="summarize", text=text, **limits), context)

    assert (result.text, result.finish_reason) == (expected, reason)


async def test_a_summary_of_a_very_long_text_is_made_in_time(local: LocalAi, context: CallContext) -> None:
    text = "".join(f"Line {number} about item{number * 7 % 991} is here. " for number in range(6_000))[:200_000]
    started = time.monotonic()

    result = await local.generate(GenerateRequest(task="summarize", text=text, max_sentences=1_000), context)

    assert len(result.quotes) == 1_000
    assert time.monotonic() - started < 5


async def test_wishes_a_summary_cannot_follow_are_told(local: LocalAi, context: CallContext) -> None:
    request = GenerateRequest(task="summarize", text=MAIL, temperature=0.5, seed=1)

    result = await local.generate(request, context)

    assert result.warnings == [
        "temperature: extractive-1 only quotes and has no use for it.",
        "seed: extractive-1 only quotes and has no use for it.",
    ]


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"task": "complete"}, ErrorCode.UNSUPPORTED),
        ({"model": "gpt-9"}, ErrorCode.NOT_FOUND),
        ({"model": HASHING}, ErrorCode.INVALID_ARGUMENT),
        ({"budget": Budget(max_input_tokens=34)}, ErrorCode.FAILED_PRECONDITION),
        ({"budget": Budget(max_cost=Money(amount=1, currency="EUR"))}, ErrorCode.UNSUPPORTED),
    ],
)
async def test_what_a_summary_cannot_be_is_refused(
    local: LocalAi, context: CallContext, facts: dict[str, Any], code: ErrorCode
) -> None:
    error = await refused(local.generate(GenerateRequest(**{"task": "summarize", "text": MAIL} | facts), context))

    assert error.code is code
