"""Language models that run inside the process: vectors, zero-shot classification, extractive summaries."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, TypeVar

from erp.contracts.models.ai import (
    ClassifyRequest,
    ClassifyResult,
    CountTokensRequest,
    CountTokensResult,
    Embedding,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    GenerateResult,
    ListModelsRequest,
    ListModelsResult,
    Usage,
)
from erp.providers.ai.local import summaries, zero_shot
from erp.providers.ai.local.models import HASHING, MINILM, LocalModels, TextModel
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    Dependency,
    ErrorCode,
    ErrorTable,
    FieldError,
    Health,
    OpenContext,
    ProviderError,
    UnsetType,
)
from erp.vendor_clients.minilm.encoder import Encoded, EncodingStoppedError
from erp.vendor_clients.minilm.installed import ModelDamagedError
from erp.vendor_clients.minilm.release import MAX_TOKENS

T = TypeVar("T")

_THREADS = 2
LIGHT_TEXTS, LIGHT_CHARACTERS = 32, 2000
"""What the word-hashing model reads, labels included, in less time than a thread takes to begin and to report."""


class LocalAi:
    """Nothing leaves the machine. The sentence model is loaded by the first call that needs it."""

    translate: ClassVar[ErrorTable] = {
        ModelDamagedError: ErrorCode.FAILED_PRECONDITION,
        EncodingStoppedError: ErrorCode.CANCELLED,
    }

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._models = LocalModels(context.shared_dir, config.get("default_model", "auto"))
        self._labels = zero_shot.KnownLabels()
        self._threads: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ai-local")

    async def close(self) -> None:
        """Wait for the batch that is being computed, at most some tenths of a second."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)
        self._models.release()

    async def health(self) -> Health:
        """Tell which model answers. Without MiniLM the provider works, by its named fallback, and says so."""
        if self._threads is None:
            return Health(status="down", message="The provider is not open.")
        started = time.perf_counter()
        # Not in the provider's own threads: they may be busy for longer than health may take.
        reason, default = await asyncio.to_thread(lambda: (self._models.obstacle(), self._models.default_name()))
        sentences = Dependency(name=MINILM, status="ok" if reason is None else "down")
        if reason is not None:
            sentences.message = reason
        needed = default == MINILM and reason is not None
        message = f"{default} answers." if reason is None else f"{default} answers; {reason}."
        return Health(
            status="degraded" if needed else "ok",
            latency_ms=round((time.perf_counter() - started) * 1000, 3),
            dependencies=[sentences],
            message=f"{reason}." if needed else message,
        )

    async def embed(self, request: EmbedRequest, context: CallContext) -> EmbedResult:  # noqa: ARG002
        def work(stop: threading.Event) -> EmbedResult:
            model = self._models.acquire(_named(request.model))
            _require_dimensions(request.dimensions, model)
            encoded = _encode(model, request.texts, request.truncate, stop)
            embeddings = [Embedding(vector=one.vector, truncated=one.truncated) for one in encoded]
            return EmbedResult(
                model=model.name, dimensions=model.dimensions, embeddings=embeddings, usage=_usage(encoded)
            )

        return await self._compute(work, request.texts, request.model)

    async def classify(self, request: ClassifyRequest, context: CallContext) -> ClassifyResult:  # noqa: ARG002
        zero_shot.require_unique(request.labels)

        def work(stop: threading.Event) -> ClassifyResult:
            model = self._models.acquire(_named(request.model))
            texts = _encode(model, request.texts, request.truncate, stop)
            centres, tokens = self._labels.centres(model.name, request.labels, lambda new: model.encode(new, stop))
            found = [zero_shot.classify(text, centres, request, model.sharpness) for text in texts]
            usage = Usage(input_tokens=sum(one.tokens for one in texts) + tokens, output_tokens=0)
            result = ClassifyResult(model=model.name, classifications=found, usage=usage)
            if request.instructions is not UNSET:
                result.warnings = ["instructions: this model cannot read any; describe the labels instead."]
            return result

        labels = [text for label in request.labels for text in zero_shot.label_texts(label)]
        return await self._compute(work, [*request.texts, *labels], request.model)

    async def generate(self, request: GenerateRequest, context: CallContext) -> GenerateResult:  # noqa: ARG002
        summaries.require_possible(request)
        return await self._run(lambda: summaries.summarized(request))

    async def list_models(self, request: ListModelsRequest, context: CallContext) -> ListModelsResult:  # noqa: ARG002
        if request.cursor is not UNSET and not (request.cursor.isascii() and request.cursor.isdigit()):
            raise _invalid("/params/cursor", "Use next_cursor of the page before.")
        start = 0 if request.cursor is UNSET else int(request.cursor)
        models = await asyncio.to_thread(self._models.listed)
        wanted = [model for model in models if request.action is UNSET or request.action in model.actions]
        result = ListModelsResult(items=wanted[start : start + request.limit])
        if start + request.limit < len(wanted):
            result.next_cursor = str(start + request.limit)
        return result

    async def count_tokens(self, request: CountTokensRequest, context: CallContext) -> CountTokensResult:  # noqa: ARG002
        if not (request.messages is UNSET and request.instructions is UNSET and request.tools is UNSET):
            raise ProviderError(ErrorCode.UNSUPPORTED, "This provider has no chat; count the tokens of texts.")
        texts = [] if request.texts is UNSET else request.texts

        def work(stop: threading.Event) -> CountTokensResult:
            model = self._models.acquire(_named(request.model))
            counts = []
            for text in texts:
                _go_on(stop)
                counts.append(model.count(text))
            result = CountTokensResult(model=model.name, total_tokens=sum(counts), text_tokens=counts, exact=True)
            if model.name != HASHING:
                result.context_tokens = MAX_TOKENS
            return result

        return await self._compute(work, texts, request.model)

    async def _compute(self, work: Callable[[threading.Event], T], texts: Sequence[str], model: str | UnsetType) -> T:
        """Run ``work`` in a thread, or here where the way to a thread and back takes longer than the work.

        When the call is cancelled the thread stops after the batch it is at.
        """
        stop = threading.Event()
        if self._threads is not None and self._is_light(texts, model):
            return work(stop)
        try:
            return await self._run(lambda: work(stop))
        finally:
            stop.set()

    def _is_light(self, texts: Sequence[str], model: str | UnsetType) -> bool:
        """Whether it takes a fraction of a millisecond."""
        if len(texts) > LIGHT_TEXTS or sum(map(len, texts)) > LIGHT_CHARACTERS:
            return False
        return (_named(model) or self._models.default_name()) == HASHING

    async def _run(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The provider is not open.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _named(model: str | UnsetType) -> str | None:
    return None if model is UNSET else model


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise EncodingStoppedError


def _encode(model: TextModel, texts: Sequence[str], truncate: bool, stop: threading.Event) -> list[Encoded]:  # noqa: FBT001
    if not truncate:
        counts = [(index, model.count(text)) for index, text in enumerate(texts)]
        too_long = [(index, count) for index, count in counts if model.name == MINILM and count > MAX_TOKENS]
        if too_long:
            errors = [FieldError(f"/params/texts/{index}", f"Has {count} tokens.") for index, count in too_long]
            raise ProviderError(
                ErrorCode.INVALID_ARGUMENT, f"{model.name} reads {MAX_TOKENS} tokens of a text.", errors=errors
            )
    return model.encode(texts, stop)


def _require_dimensions(wanted: int | UnsetType, model: TextModel) -> None:
    if wanted is not UNSET and wanted != model.dimensions:
        message = f"{model.name} has {model.dimensions} dimensions and cannot give {wanted}."
        raise ProviderError(ErrorCode.UNSUPPORTED, message)


def _usage(encoded: Sequence[Encoded]) -> Usage:
    return Usage(input_tokens=sum(one.tokens for one in encoded), output_tokens=0)


def _invalid(pointer: str, message: str) -> ProviderError:
    return ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError(pointer, message)])
