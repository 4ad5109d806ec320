"""The local AI provider with the real sentence model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from erp.contracts.models.ai import ClassifyRequest, CountTokensRequest, EmbedRequest, Label, ListModelsRequest
from erp.providers.ai.local.provider import LocalAi
from erp.runtime.spi import UNSET, CallContext, ErrorCode, OpenContext, ProviderError
from erp.vendor_clients.minilm.installed import obstacle

if TYPE_CHECKING:
    from tests.conftest import MakeCallContext

pytestmark = [pytest.mark.anyio, pytest.mark.model]

MINILM = "all-minilm-l6-v2"
LABELS = [
    Label(name="complaint", description="The customer complains about damaged, wrong or missing goods."),
    Label(name="invoice", description="A question about an invoice, a payment or a price."),
    Label(name="delivery", description="When will the goods arrive; shipping, address, carrier, delay."),
    Label(name="order", description="The customer orders goods or changes an order."),
]


@pytest.fixture
async def with_model(open_context: OpenContext) -> AsyncIterator[LocalAi]:
    """Opened where the sentence model is installed."""
    configured = os.environ.get("ERP_MODELS_DIR")
    if not configured:
        pytest.skip("ERP_MODELS_DIR is not set")
    if reason := obstacle(Path(configured)):
        pytest.skip(reason)
    provider = LocalAi({}, dataclasses.replace(open_context, shared_dir=Path(configured)))
    await provider.open()
    yield provider
    await provider.close()


@pytest.fixture
def context(call_context: MakeCallContext) -> CallContext:
    return call_context(seconds=30.0)


async def test_the_installed_model_answers_by_default_and_is_listed(with_model: LocalAi, context: CallContext) -> None:
    result = await with_model.embed(EmbedRequest(texts=["order"]), context)
    listed = (await with_model.list_models(ListModelsRequest(), context)).items
    health = await with_model.health()

    assert result.model == MINILM
    assert (listed[0].installed, listed[0].remedy, listed[0].context_tokens) == (True, UNSET, 256)
    assert listed[0].default_for == ["embed", "classify", "count_tokens"]
    assert (health.status, health.message) == ("ok", "all-minilm-l6-v2 answers.")


async def test_the_model_sorts_mails_by_what_they_are_about(with_model: LocalAi, context: CallContext) -> None:
    mails = {
        "We would like to order 20 more boxes of M8 screws.": "order",
        "Two of the ten monitors arrived with broken screens.": "complaint",
        "Please send me a copy of the bill from March, we were charged twice.": "invoice",
        "Where is my parcel? It should have been here on Monday.": "delivery",
        "Please ship the pallets to our new warehouse in Hamburg.": "delivery",
        "The tyres you sent are the wrong size.": "complaint",
    }

    result = await with_model.classify(ClassifyRequest(texts=list(mails), labels=LABELS), context)

    assert [one.label for one in result.classifications] == list(mails.values())


async def test_a_text_over_256_tokens_is_cut_and_told_or_refused(with_model: LocalAi, context: CallContext) -> None:
    texts = ["short", "order " * 255]

    result = await with_model.embed(EmbedRequest(texts=texts), context)
    with pytest.raises(ProviderError) as caught:
        await with_model.embed(EmbedRequest(texts=texts, truncate=False), context)
    counted = await with_model.count_tokens(CountTokensRequest(texts=texts), context)

    assert [one.truncated for one in result.embeddings] == [False, True]
    assert result.usage.input_tokens == 3 + 256
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert [(one.pointer, one.message) for one in caught.value.errors] == [("/params/texts/1", "Has 257 tokens.")]
    assert (counted.text_tokens, counted.context_tokens, counted.exact) == ([3, 257], 256, True)
