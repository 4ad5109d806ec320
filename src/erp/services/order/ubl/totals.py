"""Compares the amounts that a document states beside what the order is made of with what the order comes to."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from erp.runtime.spi import FieldError
from erp.services.order.ubl.document import Element, problem
from erp.services.order.validation import PricedOrder

_REMEDY = "Mend the amount, or leave it out."


def problems(order: Element, priced: PricedOrder) -> Iterator[FieldError]:
    """Return each stated amount that is not what it should be."""
    for names, right in (
        (("cac:AnticipatedMonetaryTotal", "cbc:LineExtensionAmount"), priced.net_total),
        (("cac:AnticipatedMonetaryTotal", "cbc:TaxExclusiveAmount"), priced.net_total),
        (("cac:AnticipatedMonetaryTotal", "cbc:TaxInclusiveAmount"), priced.total),
    ):
        yield from _unless(order.all(*names), right)
    yield from _unless(order.all("cac:TaxTotal", "cbc:TaxAmount")[:1], priced.tax_total)
    for line, item in zip(order.all("cac:OrderLine", "cac:LineItem"), priced.lines, strict=True):
        yield from _unless(line.all("cbc:LineExtensionAmount"), item.net)
        yield from _unless(line.all("cbc:TotalTaxAmount"), item.tax)
        yield from _unless(line.all("cac:TaxTotal", "cbc:TaxAmount"), item.tax)


def _unless(stated: list[Element], right: Decimal) -> Iterator[FieldError]:
    for element in stated:
        if Decimal(element.text) != right:
            yield problem(element.path, f"is {element.text}, but the lines come to {right}. {_REMEDY}")
