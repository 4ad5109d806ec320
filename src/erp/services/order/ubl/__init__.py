"""Orders as documents: OASIS UBL 2.1 ``Order``, read strictly and made the same request as any other order."""

from __future__ import annotations

import asyncio

import msgspec

from erp.contracts.models.order import SubmitRequest
from erp.runtime.spi import ErrorCode, FieldError, ProviderError
from erp.services.order.ubl import document, mapping, structure, totals
from erp.services.order.ubl.document import POINTER
from erp.services.order.validation import PricedOrder, priced

SHOWN_PROBLEMS = 50
LARGE_CHARACTERS = 50_000
"""From here on reading takes so long that other calls should get their turns."""

Read = tuple[SubmitRequest, PricedOrder]


async def read(text: str) -> Read:
    """Return the order that a document holds, checked and priced.

    Raises:
        ProviderError: ``invalid_argument`` with everything that is wrong, each at its XPath.
    """
    return await asyncio.to_thread(_read, text) if len(text) >= LARGE_CHARACTERS else _read(text)


def _read(text: str) -> Read:
    root = document.read(text)
    _refuse_any([*structure.problems(root)])
    found = mapping.mapped(root)
    _refuse_any(found.problems)
    try:
        request = msgspec.convert(found.params, SubmitRequest)
    except msgspec.ValidationError as error:
        raise document.refusal(_of_type(found, str(error))) from None
    try:
        order = priced(request)
    except ProviderError as error:
        if error.code is not ErrorCode.INVALID_ARGUMENT:
            raise
        raise document.refusal(*(_at_its_place(found, item) for item in error.errors)) from None
    _refuse_any([*totals.problems(root, order)])
    return request, order


def _refuse_any(problems: list[FieldError]) -> None:
    shown = problems[:SHOWN_PROBLEMS]
    if len(problems) > SHOWN_PROBLEMS:
        shown.append(FieldError(POINTER, f"has {len(problems) - SHOWN_PROBLEMS} more errors. Mend these first."))
    if shown:
        raise document.refusal(*shown)


def _at_its_place(found: mapping.Mapped, error: FieldError) -> FieldError:
    pointer = error.pointer.removeprefix("/params")
    return document.problem(found.places.get(pointer, "/Order"), f"{error.message}. Mend it.")


def _of_type(found: mapping.Mapped, message: str) -> FieldError:
    """``Expected ... - at `$.lines[0].sku` ``: what the types of the contract do not allow."""
    reason, _, path = message.partition(" - at `$")
    pointer = path.rstrip("`").replace(".", "/").replace("[", "/").replace("]", "")
    return document.problem(found.places.get(pointer, "/Order"), f"is refused: {reason}. Mend it.")
