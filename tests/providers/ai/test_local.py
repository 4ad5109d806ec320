"""The local AI provider: the named fallback always, the sentence model where it is installed."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from erp.contracts.models.ai import (
    ClassifyRequest,
    CountTokensRequest,
    EmbedRequest,
    Label,
    ListModelsRequest,
    Message,
)
from erp.providers.ai.local.hashing import HashingEmbedder
from erp.providers.ai.local.provider import LocalAi
from erp.runtime.spi import UNSET, CallContext, ErrorCode, OpenContext, Provider, ProviderError
from erp.vendor_clients.minilm.installed import ModelDamagedError

if TYPE_CHECKING:
    from tests.conftest import MakeCallContext

pytestmark = pytest.mark.anyio

MINILM, HASHING = "all-minilm-l6-v2", "hashing-384"
HOW_TO_INSTALL = "all-minilm-l6-v2 is not installed; run: erp models install minilm"
LABELS = [
    Label(name="complaint", description="The customer complains about damaged, wrong or missing goods."),
    Label(name="invoice", description="A question about an invoice, a payment or a price."),
    Label(name="delivery", description="When will the goods arrive; shipping, address, carrier, delay."),
    Label(name="order", description="The customer orders goods or changes an order."),
]


@pytest.fixture
async def local(open_context: OpenContext) -> AsyncIterator[LocalAi]:
    """Opened where no model is installed."""
    provider = LocalAi({}, open_context)
    await provider.open()
    yield provider
    await provider.close()


@pytest.fixture
def context(call_context: MakeCallContext) -> CallContext:
    return call_context()


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def refused(call: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await call
    return caught.value


async def test_it_is_a_provider_that_closes_twice_and_without_having_been_opened(open_context: OpenContext) -> None:
    provider = LocalAi({}, open_context)

    assert isinstance(provider, Provider)
    await provider.close()
    await provider.open()
    await provider.close()
    await provider.close()


async def test_a_closed_provider_is_unavailable_and_opens_again(local: LocalAi, context: CallContext) -> None:
    await local.close()

    assert (await refused(local.embed(EmbedRequest(texts=["order"]), context))).code is ErrorCode.UNAVAILABLE
    assert (await local.health()).status == "down"
    await local.open()
    assert (await local.embed(EmbedRequest(texts=["order"]), context)).model == HASHING


async def test_without_the_model_the_fallback_answers_under_its_own_name(local: LocalAi, context: CallContext) -> None:
    embedded = await local.embed(EmbedRequest(texts=["late delivery"]), context)
    classified = await local.classify(ClassifyRequest(texts=["late delivery"], labels=LABELS), context)

    assert (embedded.model, classified.model) == (HASHING, HASHING)
    assert (embedded.dimensions, len(embedded.embeddings[0].vector)) == (384, 384)
    assert (embedded.usage.input_tokens, embedded.usage.output_tokens, embedded.usage.estimated) == (2, 0, False)


async def test_health_without_the_model_is_ok_and_tells_how_to_install_it(local: LocalAi) -> None:
    health = await local.health()

    assert health.status == "ok"
    assert health.message == f"{HASHING} answers; {HOW_TO_INSTALL}."
    assert [(one.name, one.status, one.message) for one in health.dependencies] == [(MINILM, "down", HOW_TO_INSTALL)]


async def test_health_is_degraded_when_the_chosen_model_is_missing(open_context: OpenContext) -> None:
    provider = LocalAi({"default_model": MINILM}, open_context)
    await provider.open()

    health = await provider.health()

    assert (health.status, health.message) == ("degraded", f"{HOW_TO_INSTALL}.")
    await provider.close()


async def test_the_model_chosen_by_name_is_refused_while_it_is_missing_and_never_replaced(
    local: LocalAi, context: CallContext
) -> None:
    error = await refused(local.embed(EmbedRequest(texts=["order"], model=MINILM), context))

    assert error.code is ErrorCode.FAILED_PRECONDITION
    assert error.message == f"{HOW_TO_INSTALL} (or use the model hashing-384)."


@pytest.mark.parametrize(
    ("model", "code"), [("gpt-9", ErrorCode.NOT_FOUND), ("extractive-1", ErrorCode.INVALID_ARGUMENT)]
)
async def test_a_model_that_makes_no_vectors_is_refused_with_those_that_do(
    local: LocalAi, context: CallContext, model: str, code: ErrorCode
) -> None:
    error = await refused(local.embed(EmbedRequest(texts=["order"], model=model), context))

    assert error.code is code
    assert "all-minilm-l6-v2, hashing-384" in error.message


async def test_all_models_are_listed_with_what_is_missing(local: LocalAi, context: CallContext) -> None:
    listed = (await local.list_models(ListModelsRequest(), context)).items

    assert [(model.name, model.installed) for model in listed] == [
        (MINILM, False),
        (HASHING, True),
        ("extractive-1", True),
    ]
    assert listed[0].remedy == HOW_TO_INSTALL
    assert listed[0].default_for is UNSET
    assert listed[1].default_for == ["embed", "classify", "count_tokens"]
    assert listed[2].default_for == ["generate"]


async def test_models_are_listed_page_by_page_and_by_action(local: LocalAi, context: CallContext) -> None:
    first = await local.list_models(ListModelsRequest(limit=2), context)
    second = await local.list_models(ListModelsRequest(limit=2, cursor=first.next_cursor), context)
    for_generating = await local.list_models(ListModelsRequest(action="generate"), context)
    error = await refused(local.list_models(ListModelsRequest(cursor="x"), context))

    assert [model.name for model in first.items + second.items] == [MINILM, HASHING, "extractive-1"]
    assert second.next_cursor is UNSET
    assert [model.name for model in for_generating.items] == ["extractive-1"]
    assert (error.code, error.errors[0].pointer) == (ErrorCode.INVALID_ARGUMENT, "/params/cursor")


async def test_vectors_are_of_length_one_repeatable_and_independent_of_their_neighbours(
    local: LocalAi, context: CallContext
) -> None:
    texts = [
        "Invoice 4711 is overdue",
        "",
        " ",
        "!?",
        "Rechnung überfällig",
        "請求書の支払い",
        "\ud800 \U0001f69a",
        "x" * 200_000,
    ]

    together = (await local.embed(EmbedRequest(texts=texts), context)).embeddings
    alone = [(await local.embed(EmbedRequest(texts=[text]), context)).embeddings[0] for text in texts]

    assert together == alone
    assert all(math.isclose(cosine(one.vector, one.vector), 1.0, abs_tol=1e-9) for one in together)
    assert not any(one.truncated for one in together)


def test_the_fallback_gives_the_same_numbers_on_every_machine() -> None:
    (found,) = HashingEmbedder().encode(["Late"])
    strongest = max(range(384), key=lambda place: abs(found.vector[place]))

    assert (strongest, round(found.vector[strongest], 6)) == (202, 0.819232)


async def test_the_fallback_puts_like_spellings_nearest_whatever_case_and_encoding(
    local: LocalAi, context: CallContext
) -> None:
    texts = [
        "delivery address changed",
        "DELIVERY ADDRESSES CHANGE",
        "payment reminder",
        "Lieferschein \u00fc",
        "lieferschein u\u0308",
    ]

    vectors = [one.vector for one in (await local.embed(EmbedRequest(texts=texts), context)).embeddings]

    assert cosine(vectors[0], vectors[1]) > 0.45
    assert cosine(vectors[0], vectors[2]) < 0.15
    assert cosine(vectors[3], vectors[4]) == pytest.approx(1.0)


async def test_other_dimensions_than_the_models_are_unsupported(local: LocalAi, context: CallContext) -> None:
    error = await refused(local.embed(EmbedRequest(texts=["order"], dimensions=64), context))

    assert error.code is ErrorCode.UNSUPPORTED
    assert (await local.embed(EmbedRequest(texts=["order"], dimensions=384), context)).dimensions == 384


async def test_scores_are_ranked_and_add_up_to_one(local: LocalAi, context: CallContext) -> None:
    request = ClassifyRequest(texts=["A question about an invoice"], labels=LABELS)

    (found,) = (await local.classify(request, context)).classifications

    assert found.label == "invoice" == found.scores[0].label
    assert {one.label for one in found.scores} == {label.name for label in LABELS}
    assert sum(one.score for one in found.scores) == pytest.approx(1.0)
    assert [one.score for one in found.scores] == sorted((one.score for one in found.scores), reverse=True)


async def test_labels_scored_by_themselves_need_not_add_up_to_one(local: LocalAi, context: CallContext) -> None:
    labels = [Label(name="pumps"), Label(name="valves"), Label(name="weather")]
    request = ClassifyRequest(texts=["pumps and valves"], labels=labels, multi_label=True)

    (found,) = (await local.classify(request, context)).classifications

    assert [one.label for one in found.scores[:2]] == ["valves", "pumps"]
    assert found.scores[1].score > 0.4
    assert found.scores[2].score < 0.1


async def test_a_text_that_fits_too_little_gets_no_label_but_all_scores(local: LocalAi, context: CallContext) -> None:
    request = ClassifyRequest(texts=["zzz"], labels=LABELS, minimum_score=0.9)

    (found,) = (await local.classify(request, context)).classifications

    assert found.label is None
    assert len(found.scores) == 4


async def test_examples_of_a_label_count(local: LocalAi, context: CallContext) -> None:
    plain = [Label(name="a"), Label(name="b")]
    taught = [Label(name="a"), Label(name="b", examples=["cooling failed", "machine stopped"])]
    texts = ["The cooling has failed again"]

    before = await local.classify(ClassifyRequest(texts=texts, labels=plain), context)
    after = await local.classify(ClassifyRequest(texts=texts, labels=taught), context)

    assert after.classifications[0].label == "b"
    assert after.classifications[0].scores[0].score > max(one.score for one in before.classifications[0].scores)


async def test_two_labels_of_one_name_are_refused_with_their_place(local: LocalAi, context: CallContext) -> None:
    labels = [Label(name="a"), Label(name="b"), Label(name="a")]

    error = await refused(local.classify(ClassifyRequest(texts=["x"], labels=labels), context))

    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert [one.pointer for one in error.errors] == ["/params/labels/2/name"]


async def test_instructions_the_model_cannot_read_are_told(local: LocalAi, context: CallContext) -> None:
    request = ClassifyRequest(texts=["x"], labels=LABELS, instructions="Be strict.")

    assert (await local.classify(request, context)).warnings == [
        "instructions: this model cannot read any; describe the labels instead."
    ]


async def test_tokens_of_the_fallback_are_words(local: LocalAi, context: CallContext) -> None:
    result = await local.count_tokens(CountTokensRequest(texts=["Two words", "", "one-two three"]), context)

    assert (result.model, result.text_tokens, result.total_tokens, result.exact) == (HASHING, [2, 0, 3], 5, True)
    assert result.context_tokens is UNSET


async def test_tokens_of_a_conversation_need_a_chat_model(local: LocalAi, context: CallContext) -> None:
    error = await refused(local.count_tokens(CountTokensRequest(messages=[Message(role="user", text="Hi")]), context))

    assert error.code is ErrorCode.UNSUPPORTED
    assert not hasattr(local, "chat")


async def test_the_event_loop_stays_free_while_texts_are_computed(local: LocalAi, context: CallContext) -> None:
    work = asyncio.ensure_future(
        local.embed(EmbedRequest(texts=["word " * 2_000 + str(n) for n in range(200)]), context)
    )
    turns = 0
    while not work.done():
        await asyncio.sleep(0.001)
        turns += 1

    assert len((await work).embeddings) == 200
    assert turns > 3


async def test_a_cancelled_call_stops_its_thread(
    local: LocalAi, context: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = threading.Event()
    stopped = threading.Event()

    def endless(texts: Any, stop: threading.Event | None = None) -> Any:
        running.set()
        assert stop is not None
        if stop.wait(5):
            stopped.set()
        return []

    monkeypatch.setattr(local._models._hashing, "encode", endless)
    call = asyncio.ensure_future(local.embed(EmbedRequest(texts=["order " * 1000]), context))
    assert await asyncio.to_thread(running.wait, 5)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(stopped.wait, 5)
    monkeypatch.undo()
    assert len((await local.embed(EmbedRequest(texts=["order"]), context)).embeddings) == 1


async def test_two_hundred_calls_at_once_are_all_answered(local: LocalAi, context: CallContext) -> None:
    calls = [local.embed(EmbedRequest(texts=[f"order {number}"]), context) for number in range(200)]

    results = await asyncio.gather(*calls)

    assert len({tuple(result.embeddings[0].vector) for result in results}) == 200


def test_the_fallback_works_where_no_library_is_installed(tmp_path: Path) -> None:
    program = f"""
import asyncio, pathlib, sys
for name in ("numpy", "onnx", "onnxruntime", "tokenizers"):
    sys.modules[name] = None
from erp.contracts.models.ai import EmbedRequest
from erp.providers.ai.local.provider import LocalAi
from erp.runtime.standalone import place
here = pathlib.Path({str(tmp_path)!r})
async def main():
    provider = LocalAi({{}}, place(here))
    await provider.open()
    print((await provider.embed(EmbedRequest(texts=["order"]), None)).model)
    await provider.close()
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)

    assert (ended.stdout, ended.returncode) == (f"{HASHING}\n", 0), ended.stderr


async def test_a_damaged_model_is_an_error_and_not_replaced(
    open_context: OpenContext, context: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_: Path) -> None:
        raise ModelDamagedError("model.onnx of all-minilm-l6-v2 has changed; run: erp models install minilm")

    monkeypatch.setattr("erp.providers.ai.local.models.obstacle", lambda _: None)
    monkeypatch.setattr("erp.providers.ai.local.models.shared_encoder", damaged)
    provider = LocalAi({}, open_context)
    await provider.open()

    with pytest.raises(ModelDamagedError):
        await provider.embed(EmbedRequest(texts=["order"]), context)
    assert LocalAi.translate[ModelDamagedError] is ErrorCode.FAILED_PRECONDITION
    monkeypatch.undo()
    assert (await provider.embed(EmbedRequest(texts=["order"]), context)).model == HASHING
    await provider.close()
