"""The action ``generate`` on extractive summaries: what is refused, what is left out, what is answered."""

from __future__ import annotations

from erp.contracts.models.ai import GenerateRequest, GenerateResult, TextRange, Usage
from erp.providers.ai.local.extractive import MODEL_NAME, summarize
from erp.providers.ai.local.hashing import HashingEmbedder, words_of
from erp.providers.ai.local.models import MINILM, require_known
from erp.runtime.spi import UNSET, ErrorCode, FieldError, ProviderError

_DEFAULT_SENTENCES = 3
_WISHES = ("instructions", "temperature", "top_p", "seed", "stop")


def require_possible(request: GenerateRequest) -> None:
    """Refuse what a summary of quotations cannot be."""
    if request.task != "summarize":
        raise ProviderError(ErrorCode.UNSUPPORTED, f"{MODEL_NAME} can only summarize; completing needs a chat model.")
    if request.model is not UNSET and request.model != MODEL_NAME:
        other = request.model if request.model in {MINILM, HashingEmbedder.name} else ""
        require_known(request.model, [MODEL_NAME], other)
    if request.budget is UNSET:
        return
    if request.budget.max_cost is not UNSET:
        raise ProviderError(ErrorCode.UNSUPPORTED, "This provider knows no prices; it costs nothing but time.")
    allowed = request.budget.max_input_tokens
    if allowed is not UNSET and len(words_of(request.text)) > allowed:
        message = f"The text has more than the {allowed} tokens of the budget."
        errors = [FieldError("/params/budget/max_input_tokens", message)]
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=errors)


def summarized(request: GenerateRequest) -> GenerateResult:
    """Return the summary and where its sentences stand in the text."""
    max_words = None if request.max_output_tokens is UNSET else request.max_output_tokens
    summary = summarize(request.text, max_sentences=_sentences(request, max_words), max_words=max_words)
    result = GenerateResult(
        model=MODEL_NAME,
        text=summary.text,
        quotes=[TextRange(start=start, end=end) for start, end in summary.quotes],
        finish_reason="max_tokens" if summary.was_cut else "stop",
        usage=Usage(input_tokens=len(words_of(request.text)), output_tokens=summary.tokens, estimated=True),
    )
    if ignored := [name for name in _WISHES if getattr(request, name) is not UNSET]:
        result.warnings = [f"{name}: {MODEL_NAME} only quotes and has no use for it." for name in ignored]
    return result


def _sentences(request: GenerateRequest, max_words: int | None) -> int | None:
    if request.max_sentences is not UNSET:
        return request.max_sentences
    return _DEFAULT_SENTENCES if max_words is None else None
