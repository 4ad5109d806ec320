"""Which models there are, which can be used now, and the loaded ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from erp.contracts.models.ai import Model
from erp.providers.ai.local.extractive import MODEL_NAME as EXTRACTIVE
from erp.providers.ai.local.hashing import HashingEmbedder
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.minilm import release
from erp.vendor_clients.minilm.encoder import Encoded, Encoder, shared_encoder
from erp.vendor_clients.minilm.installed import obstacle

MINILM: Final = release.MODEL_NAME
HASHING: Final = HashingEmbedder.name
AUTOMATIC: Final = "auto"


class TextModel(Protocol):
    """Turns texts into vectors of length one; blocks, so it runs in a thread."""

    @property
    def name(self) -> str: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def sharpness(self) -> float:
        """Factor from cosine to the exponent of softmax."""

    def encode(self, texts: Sequence[str], stop: threading.Event | None = None) -> list[Encoded]: ...
    def count(self, text: str) -> int: ...


class SentenceModel:
    """MiniLM as a ``TextModel``; loaded when it is made."""

    name = MINILM
    dimensions = release.DIMENSIONS
    sharpness = 16.0

    def __init__(self, models_dir: Path) -> None:
        self._encoder: Encoder = shared_encoder(models_dir)

    def encode(self, texts: Sequence[str], stop: threading.Event | None = None) -> list[Encoded]:
        return self._encoder.encode(texts, stop)

    def count(self, text: str) -> int:
        return self._encoder.count(text)


class LocalModels:
    """The three models of this provider."""

    def __init__(self, models_dir: Path, default: str) -> None:
        self._models_dir = models_dir
        self._default = default
        self._hashing = HashingEmbedder()
        self._sentences: SentenceModel | None = None
        self._loading = threading.Lock()

    def obstacle(self) -> str | None:
        """Say what keeps MiniLM from being used; None when nothing does."""
        return None if self._sentences is not None else obstacle(self._models_dir)

    def default_name(self) -> str:
        """Return the model that answers when none is named; ``auto`` takes MiniLM when it can be used."""
        if self._default != AUTOMATIC:
            return self._default
        return HASHING if self.obstacle() else MINILM

    def acquire(self, name: str | None) -> TextModel:
        """Return the model called ``name``, loading it at its first use; blocks.

        Raises:
            ProviderError: ``not_found`` for a name nobody knows, ``invalid_argument`` for one that makes no vectors,
                ``failed_precondition`` when it is not installed.
        """
        name = name or self.default_name()
        if name == HASHING:
            return self._hashing
        require_known(name, [MINILM, HASHING], EXTRACTIVE)
        if reason := self.obstacle():
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, f"{reason} (or use the model {HASHING}).")
        with self._loading:
            if self._sentences is None:
                self._sentences = SentenceModel(self._models_dir)
            return self._sentences

    def release(self) -> None:
        """Let go of the loaded model; it is unloaded when no other connection holds it."""
        self._sentences = None

    def listed(self) -> list[Model]:
        """Describe all models, usable or not."""
        reason = self.obstacle()
        sentences = Model(
            name=MINILM,
            title="MiniLM sentence model",
            description=f"Nearness of meaning in English; reads the first {release.MAX_TOKENS} tokens of a text.",
            actions=["embed", "classify", "count_tokens"],
            capabilities=["embeddings", "classification", "multi_label", "token_counting"],
            installed=reason is None,
            context_tokens=release.MAX_TOKENS,
            dimensions=release.DIMENSIONS,
            languages=["en"],
        )
        if reason:
            sentences.remedy = reason
        models = [sentences, *_always_there()]
        for model in models:
            if model.name == self.default_name():
                model.default_for = ["embed", "classify", "count_tokens"]
        return models


def require_known(name: str, known: Sequence[str], other: str) -> None:
    """Refuse a model name that is not in ``known``; ``other`` exists but serves other actions."""
    if name in known:
        return
    choices = ", ".join(known)
    if name == other:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, f"{name} does not do this; use {choices}.")
    raise ProviderError(ErrorCode.NOT_FOUND, f"There is no model {name!r}; use {choices}.")


def _always_there() -> list[Model]:
    return [
        Model(
            name=HASHING,
            title="Hashing n-gram embedder",
            description="Nearness of spelling in any language, not of meaning; needs nothing installed.",
            actions=["embed", "classify", "count_tokens"],
            capabilities=["embeddings", "classification", "multi_label", "token_counting"],
            installed=True,
            dimensions=HashingEmbedder.dimensions,
        ),
        Model(
            name=EXTRACTIVE,
            title="Extractive summary",
            description="Summaries made of sentences of the text; it writes nothing itself.",
            actions=["generate"],
            capabilities=["generation", "summarization"],
            default_for=["generate"],
            installed=True,
        ),
    ]
