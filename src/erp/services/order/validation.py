"""Checks an order as a whole and prices it, exactly.

Each line: net = quantity x unit price - discount, tax = net x rate, both rounded half up to the minor
unit of the currency. The total is the sum of the rounded lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext

from erp.contracts.models.order import NewLine, SubmitRequest
from erp.runtime.spi import UNSET, ErrorCode, FieldError, ProviderError
from erp.services.order.currencies import minor_unit

_EXACT = Context(prec=80)
"""Room for a quantity times a price times a rate, each with 21 digits."""


@dataclass(frozen=True, slots=True)
class PricedLine:
    """A line with what it comes to."""

    number: int
    line: NewLine
    net: Decimal
    tax: Decimal


@dataclass(frozen=True, slots=True)
class PricedOrder:
    """An order that is right."""

    lines: list[PricedLine]
    net_total: Decimal
    tax_total: Decimal

    @property
    def total(self) -> Decimal:
        """Net and tax together."""
        with localcontext(_EXACT):
            return self.net_total + self.tax_total


def priced(request: SubmitRequest) -> PricedOrder:
    """Return the order priced.

    Raises:
        ProviderError: ``invalid_argument`` with everything that is wrong, each at its JSON Pointer.
    """
    with localcontext(_EXACT):
        unit = minor_unit(request.currency)
        wrong = list(_problems(request, unit))
        are_lines_right = not any(error.pointer.startswith("/params/lines") for error in wrong)
        order = _added_up(request, unit) if unit is not None and are_lines_right else None
        if order is not None and 0 <= request.total != order.total:
            wrong.append(FieldError("/params/total", _difference(request, order)))
    if order is None or wrong:
        raise _refusal(wrong)
    return order


def _added_up(request: SubmitRequest, unit: Decimal) -> PricedOrder:
    lines = [_priced(number, line, unit) for number, line in enumerate(request.lines, start=1)]
    zero = Decimal(0) * unit
    return PricedOrder(lines, sum((item.net for item in lines), zero), sum((item.tax for item in lines), zero))


def _difference(request: SubmitRequest, order: PricedOrder) -> str:
    return f"is {request.total}, but the lines add up to {order.total} ({order.net_total} and {order.tax_total} tax)"


def _refusal(wrong: list[FieldError]) -> ProviderError:
    plural = "s" if len(wrong) > 1 else ""
    return ProviderError(ErrorCode.INVALID_ARGUMENT, f"The order has {len(wrong)} error{plural}.", errors=wrong)


def _problems(request: SubmitRequest, unit: Decimal | None) -> Iterator[FieldError]:
    if unit is None:
        yield FieldError("/params/currency", f"{request.currency} is not a currency of ISO 4217")
    if request.requested_delivery_date is not UNSET and request.requested_delivery_date < request.order_date:
        yield FieldError("/params/requested_delivery_date", "is before order_date")
    if request.total < 0:
        yield FieldError("/params/total", "is negative")
    seen: set[int] = set()
    for index, line in enumerate(request.lines):
        number = _number(index + 1, line)
        if number in seen:
            yield FieldError(f"/params/lines/{index}/line_number", f"{number} is the number of an earlier line too")
        seen.add(number)
        yield from (FieldError(f"/params/lines/{index}/{name}", text) for name, text in _line_problems(line, unit))


def _line_problems(line: NewLine, unit: Decimal | None) -> Iterator[tuple[str, str]]:
    if line.quantity <= 0:
        yield "quantity", "must be more than zero"
    if line.unit_price < 0:
        yield "unit_price", "must not be negative"
    if not 0 <= line.tax_rate <= 1:
        yield "tax_rate", "must be a share from 0 to 1, for example 0.19"
    if not 0 <= line.discount <= max(line.quantity * line.unit_price, Decimal(0)):
        yield "discount", "must be from zero to the price of the line"
    elif unit is not None and line.discount % unit != 0:
        yield "discount", f"must be a multiple of {unit}"


def _number(position: int, line: NewLine) -> int:
    return position if line.line_number is UNSET else line.line_number


def _priced(position: int, line: NewLine, unit: Decimal) -> PricedLine:
    net = (line.quantity * line.unit_price - line.discount).quantize(unit, ROUND_HALF_UP)
    tax = (net * line.tax_rate).quantize(unit, ROUND_HALF_UP)
    return PricedLine(_number(position, line), line, net, tax)
