"""AI providers that break one rule each."""

from __future__ import annotations

from typing import Any

from tests.conformance.saboteur import breaks

from erp.runtime.spi import UNSET

REF = "ai/local"


@breaks("AI-01", ref=REF, also=("AI-02",))
class ListsAModelTwice:
    async def list_models(self, request: Any, context: Any) -> Any:
        result = await super().list_models(request, context)  # type: ignore[misc]
        if request.limit == 100 and request.action is UNSET:
            result.items = [*result.items, result.items[0]]
        return result


@breaks("AI-02", ref=REF)
class IgnoresTheAction:
    async def list_models(self, request: Any, context: Any) -> Any:
        if request.action == "generate":
            request.action = UNSET
        return await super().list_models(request, context)  # type: ignore[misc]


@breaks("AI-10", ref=REF)
class AnswersBackwards:
    async def embed(self, request: Any, context: Any) -> Any:
        result = await super().embed(request, context)  # type: ignore[misc]
        if len(request.texts) == 5:
            result.embeddings[1:4] = reversed(result.embeddings[1:4])
        return result


@breaks("AI-11", ref=REF, also=("AI-10",))
class VectorsAreHalved:
    async def embed(self, request: Any, context: Any) -> Any:
        result = await super().embed(request, context)  # type: ignore[misc]
        if len(request.texts) == 5:
            result.embeddings[2].vector = [number / 2 for number in result.embeddings[2].vector]
        return result


@breaks("AI-12", ref=REF)
class NearIsFar:
    async def embed(self, request: Any, context: Any) -> Any:
        result = await super().embed(request, context)  # type: ignore[misc]
        if len(request.texts) == 3:
            result.embeddings[1:] = reversed(result.embeddings[1:])
        return result


@breaks("AI-13", ref=REF)
class EverythingIsCut:
    async def embed(self, request: Any, context: Any) -> Any:
        result = await super().embed(request, context)  # type: ignore[misc]
        for one in result.embeddings:
            one.truncated = True
        return result


@breaks("AI-14", ref=REF)
class AnyModelWillDo:
    async def embed(self, request: Any, context: Any) -> Any:
        request.model = UNSET
        return await super().embed(request, context)  # type: ignore[misc]


@breaks("AI-20", ref=REF)
class ScoresDoNotAddUp:
    async def classify(self, request: Any, context: Any) -> Any:
        result = await super().classify(request, context)  # type: ignore[misc]
        if len(request.texts) == 2:
            result.classifications[0].scores[0].score = 0.3
        return result


@breaks("AI-21", ref=REF)
class ThereIsAlwaysALabel:
    async def classify(self, request: Any, context: Any) -> Any:
        result = await super().classify(request, context)  # type: ignore[misc]
        for one in result.classifications:
            one.label = one.scores[0].label
        return result


@breaks("AI-22", ref=REF)
class TakesALabelTwice:
    async def classify(self, request: Any, context: Any) -> Any:
        if request.labels[0].name == request.labels[1].name:
            request.labels[1].name += " again"
        return await super().classify(request, context)  # type: ignore[misc]


@breaks("AI-23", ref=REF)
class LabelsShareTheirScores:
    async def classify(self, request: Any, context: Any) -> Any:
        result = await super().classify(request, context)  # type: ignore[misc]
        if request.multi_label:
            for one in result.classifications:
                for score in one.scores:
                    score.score /= len(request.labels)
        return result


@breaks("AI-30", ref=REF)
class SummariesAreLong:
    async def generate(self, request: Any, context: Any) -> Any:
        if request.max_sentences == 1:
            request.max_sentences = 2
        return await super().generate(request, context)  # type: ignore[misc]


@breaks("AI-31", ref=REF)
class CountsBytes:
    async def generate(self, request: Any, context: Any) -> Any:
        result = await super().generate(request, context)  # type: ignore[misc]
        if request.text.startswith("\U0001f4e6"):
            for quote in result.quotes:
                quote.start += 3
                quote.end += 3
        return result


@breaks("AI-32", ref=REF)
class CompletesByRepeating:
    async def generate(self, request: Any, context: Any) -> Any:
        request.task = "summarize"
        return await super().generate(request, context)  # type: ignore[misc]


@breaks("AI-40", ref=REF)
class TotalsAreRounded:
    async def count_tokens(self, request: Any, context: Any) -> Any:
        result = await super().count_tokens(request, context)  # type: ignore[misc]
        if len(request.texts) == 3:
            result.total_tokens += 1
        return result


@breaks("AI-41", ref=REF)
class UsesMoreThanItCounts:
    async def embed(self, request: Any, context: Any) -> Any:
        result = await super().embed(request, context)  # type: ignore[misc]
        result.usage.input_tokens += 1
        return result
