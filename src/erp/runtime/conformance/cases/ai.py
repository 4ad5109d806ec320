"""Models that read and write texts."""

from __future__ import annotations

import math
from typing import Any

from erp.runtime.conformance.bench import Bench, require
from erp.runtime.conformance.case import case

TEXTS = [
    "The invoice is overdue.",
    "Die Lieferung kommt morgen.",
    "x",
    "\U0001f4e6 \u0000 ünï",
    "The invoice is overdue.",
]
LABELS = [
    {"name": "invoice", "description": "It is about an invoice or a payment.", "examples": ["Please pay the bill."]},
    {"name": "weather", "description": "It is about rain, sun or wind.", "examples": ["It will rain tomorrow."]},
]
STORY = (
    "The order of ninety bolts was placed on Monday. The bolts are needed for the new production line. "
    "The weather was fine that day. Without the bolts the production line stands still. Somebody had lunch."
)
CLOSE = 1e-3


def _length(vector: list[float]) -> float:
    return math.sqrt(sum(number * number for number in vector))


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(left * right for left, right in zip(one, other, strict=True))


async def _vectors(bench: Bench, texts: list[str], **more: Any) -> list[list[float]]:
    answer = await bench.call("embed", {"texts": texts, **more})
    return [one["vector"] for one in answer["embeddings"]]


@case("AI-01")
async def models_are_listed_with_what_they_can_do(bench: Bench) -> None:
    """``list_models`` MUST list every model once, over all pages, with actions that the provider offers."""
    everything = (await bench.call("list_models"))["items"]
    names = [model["name"] for model in everything]
    require(bool(names) and len(names) == len(set(names)), f"listed {names}")
    offered = {one.name for one in bench.host.catalog.actions_of(bench.manifest)}
    wrong = {name for model in everything for name in model["actions"]} - offered
    require(not wrong, f"models can {wrong}, which the provider does not offer")
    paged: list[str] = []
    cursor: dict[str, Any] = {}
    for _ in range(len(names) + 1):
        page = await bench.call("list_models", {"limit": 1, **cursor})
        paged += [model["name"] for model in page["items"]]
        if "next_cursor" not in page:
            break
        cursor = {"cursor": page["next_cursor"]}
    require(paged == names, f"in pages it lists {paged}")


@case("AI-02")
async def models_are_filtered_by_action(bench: Bench) -> None:
    """``list_models`` with ``action`` MUST list exactly the models that can do it."""
    everything = (await bench.call("list_models"))["items"]
    for action in sorted({name for model in everything for name in model["actions"]}):
        found = [model["name"] for model in (await bench.call("list_models", {"action": action}))["items"]]
        expected = [model["name"] for model in everything if action in model["actions"]]
        require(found == expected, f"for {action} it lists {found}, not {expected}")


@case("AI-10", capability="embeddings")
async def every_text_has_its_vector(bench: Bench) -> None:
    """``embed`` MUST answer one vector for each text in that order, equal for equal texts, of the dimensions it names."""
    answer = await bench.call("embed", {"texts": TEXTS})
    vectors = [one["vector"] for one in answer["embeddings"]]
    require(len(vectors) == len(TEXTS), f"{len(vectors)} vectors for {len(TEXTS)} texts")
    require({len(vector) for vector in vectors} == {answer["dimensions"]}, "vectors of other dimensions than it names")
    require(_cosine(vectors[0], vectors[-1]) > 1 - CLOSE, "equal texts have different vectors")
    for number, text in enumerate(TEXTS):
        (alone,) = await _vectors(bench, [text])
        require(_cosine(alone, vectors[number]) > 1 - CLOSE, f"text {number} has another vector beside others")


@case("AI-11", capability="embeddings")
async def vectors_have_length_one(bench: Bench) -> None:
    """Vectors MUST have length one, so that the dot product of two is their cosine."""
    for vector in await _vectors(bench, TEXTS):
        require(abs(_length(vector) - 1) < CLOSE, f"a vector of length {_length(vector):.4f}")


@case("AI-12", capability="embeddings")
async def like_texts_are_near(bench: Bench) -> None:
    """A text MUST be nearer to one that shares its words than to one that shares none."""
    texts = ["the invoice is overdue", "this invoice is overdue now", "rain falls on green hills"]
    first, like, unlike = await _vectors(bench, texts)
    require(_cosine(first, like) > _cosine(first, unlike), "an unlike text is nearer than a like one")


@case("AI-13", capability="embeddings")
async def a_text_too_long_is_cut_and_said_so_or_refused(bench: Bench) -> None:
    """A text too long for the model MUST be cut and marked ``truncated``, or refused when ``truncate`` is false."""
    text = "word " * 39_000
    (one,) = (await bench.call("embed", {"texts": [text]}))["embeddings"]
    if not one.get("truncated"):
        await bench.call("embed", {"texts": [text], "truncate": False})
        return
    await bench.refused("invalid_argument", "embed", {"texts": [text], "truncate": False})
    short = (await bench.call("embed", {"texts": ["word"]}))["embeddings"][0]
    require(not short.get("truncated"), "a short text is marked as cut")


@case("AI-14", capability="embeddings")
async def an_unknown_model_is_not_found(bench: Bench) -> None:
    """A model that is not listed MUST be refused with ``not_found``; the answer names the model that really answered."""
    await bench.refused("not_found", "embed", {"texts": ["x"], "model": "no-such-model"})
    used = (await bench.call("embed", {"texts": ["x"]}))["model"]
    listed = {model["name"] for model in (await bench.call("list_models", {"action": "embed"}))["items"]}
    require(used in listed, f"{used} answered, and is not listed")
    named = await bench.call("embed", {"texts": ["x"], "model": used})
    require(named["model"] == used, f"asked for {used}, {named['model']} answered")


@case("AI-20", capability="classification")
async def every_text_gets_its_label(bench: Bench) -> None:
    """``classify`` MUST answer for each text, in that order, a label that was given, and all scores, best first."""
    texts = ["The invoice has not been paid.", "There will be rain and wind."]
    answer = await bench.call("classify", {"texts": texts, "labels": LABELS})
    found = answer["classifications"]
    require([one["label"] for one in found] == ["invoice", "weather"], f"labels {[one['label'] for one in found]}")
    for one in found:
        scores = [score["score"] for score in one["scores"]]
        require({score["label"] for score in one["scores"]} == {"invoice", "weather"}, "scores of other labels")
        require(scores == sorted(scores, reverse=True), f"scores are not best first: {scores}")
        require(one["scores"][0]["label"] == one["label"], "the label is not the one with the best score")
        require(abs(sum(scores) - 1) < CLOSE, f"scores add up to {sum(scores):.3f}")


@case("AI-21", capability="classification")
async def a_label_below_the_minimum_is_none(bench: Bench) -> None:
    """When no label scores ``minimum_score`` the label MUST be null and the scores still be answered."""
    params = {"texts": ["The invoice has not been paid."], "labels": LABELS, "minimum_score": 1}
    (one,) = (await bench.call("classify", params))["classifications"]
    require(one["label"] is None or one["scores"][0]["score"] >= 1, f"labelled {one['label']} below the minimum")
    require(len(one["scores"]) == len(LABELS), "the scores are missing")


@case("AI-22", capability="classification")
async def labels_are_unique(bench: Bench) -> None:
    """Two labels with one name MUST be refused with ``invalid_argument``."""
    await bench.refused("invalid_argument", "classify", {"texts": ["x"], "labels": [LABELS[0], LABELS[0]]})


@case("AI-23", capability="multi_label")
async def each_label_is_scored_by_itself(bench: Bench) -> None:
    """With ``multi_label`` the score of a label MUST NOT depend on what other labels are there."""
    text = "The invoice has not been paid."
    more = [*LABELS, {"name": "sport", "description": "It is about football or running."}]
    scores = []
    for labels in (LABELS, more):
        params = {"texts": [text], "labels": labels, "multi_label": True}
        (one,) = (await bench.call("classify", params))["classifications"]
        scores.append(next(score["score"] for score in one["scores"] if score["label"] == "invoice"))
    require(abs(scores[0] - scores[1]) < CLOSE, f"with one more label it scored {scores[1]}, before {scores[0]}")


@case("AI-30", capability="summarization")
async def a_summary_is_shorter_than_its_text(bench: Bench) -> None:
    """``generate`` with ``summarize`` MUST answer a text that is not empty and shorter, within ``max_sentences``."""
    for sentences in (1, 2):
        params = {"task": "summarize", "text": STORY, "max_sentences": sentences}
        answer = await bench.call("generate", params)
        require(0 < len(answer["text"]) < len(STORY), f"a summary of {len(answer['text'])} characters")
        count = sum(answer["text"].count(mark) for mark in ".!?")
        require(count <= sentences, f"{count} sentences, asked for {sentences}")


@case("AI-31", capability="summarization")
async def quotes_stand_where_they_say(bench: Bench) -> None:
    """Where ``quotes`` are answered, each MUST be a range of the text, in order, and together be the summary."""
    answer = await bench.call("generate", {"task": "summarize", "text": f"\U0001f4e6 {STORY}", "max_sentences": 2})
    quotes = answer.get("quotes")
    if quotes is None:
        return
    text = f"\U0001f4e6 {STORY}"
    passages = [text[quote["start"] : quote["end"]] for quote in quotes]
    starts = [quote["start"] for quote in quotes]
    require(starts == sorted(starts), f"quotes are not in order: {starts}")
    joined = "".join("".join(passages).split())
    require(joined == "".join(answer["text"].split()), f"the quotes are {passages}, the summary {answer['text']!r}")


@case("AI-32", capability="generation")
async def a_task_it_cannot_do_is_unsupported(bench: Bench) -> None:
    """A task whose capability is not declared MUST be refused with ``unsupported``."""
    for task, capability in (("complete", "completion"), ("summarize", "summarization")):
        if not bench.declares(capability):
            await bench.refused("unsupported", "generate", {"task": task, "text": STORY})


@case("AI-40", capability="token_counting")
async def tokens_are_counted_one_by_one(bench: Bench) -> None:
    """``count_tokens`` MUST answer a number for each text, in that order, whose sum is the total; more text has no fewer."""
    texts = ["", "one", "one two three four five six seven eight"]
    answer = await bench.call("count_tokens", {"texts": texts})
    counts = answer["text_tokens"]
    require(len(counts) == len(texts), f"{len(counts)} numbers for {len(texts)} texts")
    require(answer["total_tokens"] == sum(counts), f"the total is {answer['total_tokens']}, the sum {sum(counts)}")
    require(counts == sorted(counts) and counts[1] < counts[2], f"counted {counts}")


@case("AI-41", capability="token_counting")
async def what_was_used_is_what_was_counted(bench: Bench) -> None:
    """``usage.input_tokens`` of ``embed`` MUST be what ``count_tokens`` of the same model counts, when it counts exactly."""
    if not bench.declares("embeddings"):
        return
    texts = ["one two three", "four"]
    used = await bench.call("embed", {"texts": texts})
    counted = await bench.call("count_tokens", {"texts": texts, "model": used["model"]})
    if counted["exact"]:
        total, usage = counted["total_tokens"], used["usage"]["input_tokens"]
        require(usage == total, f"embed used {usage} tokens, count_tokens counts {total}")
