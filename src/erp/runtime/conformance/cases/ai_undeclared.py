"""What is asked of a model that has not declared it."""

from __future__ import annotations

from erp.runtime.conformance.bench import Bench
from erp.runtime.conformance.case import case

LABELS = [{"name": "invoice"}, {"name": "complaint"}]


@case("AI-15", capability="embeddings", without="embedding_dimensions")
async def dimensions_it_does_not_have_are_refused(bench: Bench) -> None:
    """Without ``embedding_dimensions`` dimensions other than the model's MUST be refused with ``unsupported``."""
    own = (await bench.call("embed", {"texts": ["a text"]}))["dimensions"]
    await bench.equal("embed", {"texts": ["a text"], "dimensions": own}, {"dimensions": own})
    await bench.refused("unsupported", "embed", {"texts": ["a text"], "dimensions": own - 1})


@case("AI-24", capability="classification", without="multi_label")
async def several_labels_at_once_are_refused(bench: Bench) -> None:
    """Without ``multi_label`` a ``classify`` that asks for it MUST be refused with ``unsupported``."""
    await bench.refused("unsupported", "classify", {"texts": ["a text"], "labels": LABELS, "multi_label": True})


@case("AI-33", capability="summarization", without="budgets")
async def a_limit_in_money_that_cannot_be_kept_is_refused(bench: Bench) -> None:
    """Without ``budgets`` a limit in money MUST be refused with ``unsupported``, never ignored."""
    limit = {"max_cost": {"amount": "1.00", "currency": "EUR"}}
    await bench.refused("unsupported", "generate", {"task": "summarize", "text": "A text. And more.", "budget": limit})
