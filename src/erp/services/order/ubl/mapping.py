"""Makes the parameters of ``submit`` from an order whose structure is right.

What would change an amount and has no place in them is refused, never left out.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

from erp.runtime.spi import FieldError
from erp.services.order.currencies import minor_unit
from erp.services.order.ubl.document import Element, problem
from erp.services.order.ubl.structure import date

MAX_LINES = 1000
_LARGEST = Decimal(10) ** 15
_EXACT = Context(prec=100)
PERCENT_DECIMALS = 4
"""As a share of one it has two more, and six are taken."""
_TRUE = {"true", "1"}
_IDENTIFICATIONS = ("cac:SellersItemIdentification", "cac:StandardItemIdentification", "cac:BuyersItemIdentification")
_NOT_IN_TOTALS = ("AllowanceTotalAmount", "ChargeTotalAmount", "PrepaidAmount", "PayableRoundingAmount")
_CUSTOMER = "/Order/cac:BuyerCustomerParty"
_TOTAL = "/Order/cac:AnticipatedMonetaryTotal"


@dataclass
class Mapped:
    """Parameters of ``submit``, where in the document each came from, and what is wrong with them."""

    params: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    """JSON Pointer below ``/params`` -> XPath."""
    problems: list[FieldError] = field(default_factory=list)

    def refuse(self, path: str, message: str) -> None:
        """Note what is wrong."""
        self.problems.append(problem(path, message))

    def put(self, pointer: str, value: Any, path: str) -> None:
        """Note a parameter; ``/lines/0/sku`` belongs to the first line."""
        self.places[pointer] = path
        *parents, name = pointer.split("/")[1:]
        target: Any = self.params
        for parent in parents:
            target = target[int(parent)] if isinstance(target, list) else target[parent]
        target[name] = value

    def text(self, pointer: str, element: Element, largest: int) -> None:
        """Note the text of an element."""
        if len(element.text) > largest:
            self.refuse(element.path, f"has {len(element.text)} characters, but {largest} are taken. Shorten it.")
        self.put(pointer, element.text, element.path)

    def amount(self, element: Element, decimals: int = 6) -> Decimal:
        """Return the number an element holds."""
        value = Decimal(element.text)
        exponent = value.normalize(_EXACT).as_tuple().exponent
        if abs(value) >= _LARGEST or (isinstance(exponent, int) and exponent < -decimals):
            self.refuse(element.path, f"has more than 15 digits before or {decimals} after the point. Round it.")
            return Decimal(0)
        return value


def mapped(order: Element) -> Mapped:
    """Map an order."""
    made = Mapped({"customer": {}, "lines": []})
    _head(made, order)
    _customer(made, order)
    _charges(made, order)
    _total(made, order)
    lines = order.all("cac:OrderLine", "cac:LineItem")
    if len(lines) > MAX_LINES:
        made.refuse("/Order/cac:OrderLine", f"is there {len(lines)} times; {MAX_LINES} are taken. Send several orders.")
        return made
    numbers = _numbers(lines)
    for index, (line, number) in enumerate(zip(lines, numbers, strict=True)):
        made.params["lines"].append({})
        made.put(f"/lines/{index}/line_number", number, f"{line.path}/cbc:ID")
        _line(made, f"/lines/{index}", line)
    return made


def _head(made: Mapped, order: Element) -> None:
    (number,), (issued,) = order.all("cbc:ID"), order.all("cbc:IssueDate")
    made.text("/customer_reference", number, 128)
    made.put("/order_date", _date(issued), issued.path)
    currency = order.first("cbc:DocumentCurrencyCode")
    if currency is None:
        made.refuse("/Order/cbc:DocumentCurrencyCode", "is missing. Name the currency of all amounts, for example EUR.")
    elif minor_unit(currency.text) is None:
        made.refuse(currency.path, f"is {currency.text[:40]!r}, which is no currency of ISO 4217. Write it like EUR.")
    else:
        made.put("/currency", currency.text, currency.path)
        _one_currency(made, order, currency.text)
    count = order.first("cbc:LineCountNumeric")
    lines = len(order.all("cac:OrderLine"))
    if count is not None and made.amount(count) != lines:
        made.refuse(
            count.path, f"is {count.text}, but there are {lines} order lines. Mend the count, or send them all."
        )
    notes = order.all("cbc:Note")
    if notes:
        made.put("/note", "\n".join(note.text for note in notes), notes[0].path)
    _requested_delivery(made, order)


def _date(element: Element) -> datetime.date | None:
    return date(element.text)


def _one_currency(made: Mapped, order: Element, currency: str) -> None:
    for element in order.walk():
        other = element.attributes.get("currencyID")
        if other not in {None, currency} and element.path:
            made.refuse(f"{element.path}/@currencyID", f"is {other}, but the order is in {currency}. Use one currency.")


def _requested_delivery(made: Mapped, order: Element) -> None:
    """The latest day of the requested period is the one the order asks for."""
    for delivery in order.all("cac:Delivery", "cac:RequestedDeliveryPeriod"):
        found = delivery.first("cbc:EndDate") or delivery.first("cbc:StartDate")
        if found is None:
            continue
        if made.params.setdefault("requested_delivery_date", _date(found)) != _date(found):
            made.refuse(found.path, "is another date than that of the first delivery. Send an order for each date.")
        made.places.setdefault("/requested_delivery_date", found.path)


def _customer(made: Mapped, order: Element) -> None:
    (buyer,) = order.all("cac:BuyerCustomerParty")
    identity = _first(
        buyer,
        ("cac:Party", "cac:PartyIdentification", "cbc:ID"),
        ("cac:Party", "cbc:EndpointID"),
        ("cbc:CustomerAssignedAccountID",),
        ("cbc:SupplierAssignedAccountID",),
    )
    name = _first(
        buyer, ("cac:Party", "cac:PartyName", "cbc:Name"), ("cac:Party", "cac:PartyLegalEntity", "cbc:RegistrationName")
    )
    if identity is None:
        made.refuse(f"{_CUSTOMER}/cac:Party/cac:PartyIdentification/cbc:ID", "is missing. Say who orders.")
    else:
        made.text("/customer/id", identity, 128)
    if name is None:
        made.refuse(f"{_CUSTOMER}/cac:Party/cac:PartyName/cbc:Name", "is missing. Name who orders.")
    else:
        made.text("/customer/name", name, 256)
    email = _first(buyer, ("cac:Party", "cac:Contact", "cbc:ElectronicMail"))
    if email is not None:
        made.text("/customer/email", email, 320)


def _first(element: Element, *paths: Sequence[str]) -> Element | None:
    return next((found for path in paths if (found := element.first(*path)) is not None), None)


def _charges(made: Mapped, order: Element) -> None:
    for found in order.all("cac:AllowanceCharge"):
        made.refuse(found.path, "applies to the whole order. Put allowances and charges on the lines they belong to.")


def _total(made: Mapped, order: Element) -> None:
    totals = order.first("cac:AnticipatedMonetaryTotal")
    if totals is None:
        made.refuse(_TOTAL, "is missing. Add it with cbc:PayableAmount: what all lines come to, with tax.")
        return
    for name in _NOT_IN_TOTALS:
        found = totals.first(f"cbc:{name}")
        if found is not None and made.amount(found) != 0:
            made.refuse(found.path, "is not zero, but the total of an order is that of its lines. Put it on a line.")
    (payable,) = totals.all("cbc:PayableAmount")
    made.put("/total", made.amount(payable), payable.path)


def _numbers(lines: list[Element]) -> list[int]:
    """Return the numbers of the lines; where one has a name instead of a number, all are counted."""
    names = [line.all("cbc:ID")[0].text for line in lines]
    if all(name.isascii() and name.isdigit() and len(name) <= 6 and 1 <= int(name) <= 100_000 for name in names):  # noqa: PLR2004  (the contract's)
        return [int(name) for name in names]
    return list(range(1, len(lines) + 1))


def _line(made: Mapped, at: str, line: Element) -> None:
    (item,) = line.all("cac:Item")
    sku = _first(item, *((name, "cbc:ID") for name in _IDENTIFICATIONS))
    if sku is None:
        made.refuse(f"{item.path}/cac:SellersItemIdentification/cbc:ID", "is missing. Say which article is ordered.")
    else:
        made.text(f"{at}/sku", sku, 128)
    described = _first(item, ("cbc:Name",), ("cbc:Description",))
    if described is not None:
        made.text(f"{at}/description", described, 1000)
    quantity = line.first("cbc:Quantity")
    if quantity is None:
        made.refuse(f"{line.path}/cbc:Quantity", "is missing. Say how much is ordered.")
    else:
        made.put(f"{at}/quantity", made.amount(quantity), quantity.path)
    for found in line.all("cac:SubLineItem"):
        made.refuse(found.path or f"{line.path}/cac:SubLineItem", "is not taken. Send each part as an order line.")
    _price(made, at, line)
    _discount(made, at, line)
    _tax_rate(made, at, line, item)


def _price(made: Mapped, at: str, line: Element) -> None:
    price = line.first("cac:Price", "cbc:PriceAmount")
    if price is None:
        made.refuse(f"{line.path}/cac:Price/cbc:PriceAmount", "is missing. Say what one unit costs, without tax.")
        return
    per = line.first("cac:Price", "cbc:BaseQuantity")
    amount, base = made.amount(price), Decimal(1) if per is None else made.amount(per)
    if per is not None and base <= 0:
        made.refuse(per.path, "must be more than zero.")
        return
    each = amount / base
    if each * base != amount or each != round(each, 6):
        path = price.path if per is None else per.path
        made.refuse(path, f"divides {amount} into prices with more than 6 decimals. Give the price of one unit.")
    made.put(f"{at}/unit_price", each, price.path)


def _discount(made: Mapped, at: str, line: Element) -> None:
    total, path = Decimal(0), line.path
    for found in line.all("cac:AllowanceCharge"):
        (indicator,), (amount,) = found.all("cbc:ChargeIndicator"), found.all("cbc:Amount")
        if indicator.text in _TRUE:
            made.refuse(indicator.path, "is true: charges are not taken. Send it as an order line with its own price.")
        total, path = total + made.amount(amount), amount.path
    made.put(f"{at}/discount", total, path)


def _tax_rate(made: Mapped, at: str, line: Element, item: Element) -> None:
    for found in line.all("cac:TaxTotal", "cbc:TaxIncludedIndicator"):
        if found.text in _TRUE:
            made.refuse(found.path, "is true: prices are taken without tax. Send net prices.")
    percents = item.all("cac:ClassifiedTaxCategory", "cbc:Percent")
    percents += line.all("cac:TaxTotal", "cac:TaxSubtotal", "cac:TaxCategory", "cbc:Percent")
    rates = [made.amount(percent, PERCENT_DECIMALS) for percent in percents]
    if len(set(rates)) > 1:
        made.refuse(percents[-1].path, "is another rate than an earlier one. A line has one rate; split it.")
    if percents:
        made.put(f"{at}/tax_rate", rates[0].scaleb(-2), percents[0].path)
