"""What a model thinks of an order: its category, its urgency, and a note without personal data."""

from __future__ import annotations

from erp.contracts.models.ai import ClassifyRequest, ClassifyResult, Label
from erp.contracts.models.order import Annotation, GetResult
from erp.runtime.spi import UNSET, CallContext
from erp.security.privacy.redaction import redacted

NOTE_CHARACTERS = 200
TEXT_CHARACTERS = 2000
READ_CHARACTERS = 20_000

CATEGORIES = [
    Label(
        name="spare parts",
        examples=["We need replacement parts for a broken machine.", "Spare bearing, gasket, motor."],
    ),
    Label(
        name="raw material",
        examples=["Steel coils and granulate for next month's production.", "Sheet metal, resin, wood."],
    ),
    Label(
        name="office supplies", examples=["Paper, toner and chairs for the office.", "Printer cartridges and desks."]
    ),
    Label(
        name="services",
        examples=["Please send a technician for maintenance.", "Installation, training, consulting hours."],
    ),
    Label(name="merchandise", examples=["Articles for our shop, to be sold on.", "Shirts, toys and gifts for resale."]),
]
URGENCIES = [
    Label(
        name="urgent",
        examples=["Our production stands still, deliver today.", "Emergency, as soon as possible, express."],
    ),
    Label(name="normal", examples=["Please deliver in the usual time.", "Regular order, standard delivery."]),
    Label(name="can wait", examples=["There is no hurry, whenever it suits you.", "Deliver next month or later."]),
]


async def annotation(context: CallContext, order: GetResult) -> Annotation:
    """Ask the tenant's AI provider; no personal data leaves in the question or comes back in the note."""
    text = _text(order)
    category = await _label(context, text, CATEGORIES)
    # What the articles are called says nothing about how soon they are wanted.
    urgency = await _label(context, text if order.note is UNSET else _without_names(order, order.note), URGENCIES)
    return Annotation(
        category=category.classifications[0].label or "unknown",
        urgency=urgency.classifications[0].label or "unknown",
        note=_shortened(text),
        model=category.model,
    )


def _text(order: GetResult) -> str:
    described = ". ".join(line.sku if line.description is UNSET else line.description for line in order.lines)
    return _without_names(order, described if order.note is UNSET else f"{order.note} {described}")


def _without_names(order: GetResult, text: str) -> str:
    known = [order.customer.name, *([] if order.customer.email is UNSET else [order.customer.email])]
    # Cut after redaction: half of an address is still an address.
    return redacted(text[:READ_CHARACTERS], names=known)[:TEXT_CHARACTERS].strip() or "-"


async def _label(context: CallContext, text: str, labels: list[Label]) -> ClassifyResult:
    result: ClassifyResult = await context.invoke("ai", "classify", ClassifyRequest(texts=[text], labels=labels))
    return result


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= NOTE_CHARACTERS else words[: NOTE_CHARACTERS - 1].rpartition(" ")[0] + "…"
