"""An order is right as a whole, to the smallest unit of its currency, or all that is wrong is named."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest

from erp.contracts.models.order import Customer, NewLine, SubmitRequest
from erp.errors import ProviderError
from erp.services.order.currencies import minor_unit
from erp.services.order.validation import priced


def line(**facts: Any) -> NewLine:
    values = {
        name: Decimal(value) if isinstance(value, str) and name != "sku" else value for name, value in facts.items()
    }
    return NewLine(**({"sku": "S", "quantity": Decimal(1), "unit_price": Decimal(1)} | values))


def request(*lines: NewLine, total: str, currency: str = "EUR", **more: Any) -> SubmitRequest:
    return SubmitRequest(
        customer_reference="PO-1",
        customer=Customer(id="C", name="N"),
        currency=currency,
        order_date=datetime.date(2026, 11, 23),
        lines=list(lines),
        total=Decimal(total),
        **more,
    )


@pytest.mark.parametrize(
    ("_case", "order", "net", "tax"),
    [
        ("plain", request(line(quantity="2", unit_price="19.90", tax_rate="0.19"), total="47.36"), "39.80", "7.56"),
        ("half is rounded up", request(line(unit_price="0.50", tax_rate="0.05"), total="0.53"), "0.50", "0.03"),
        ("each line is rounded", request(*[line(unit_price="0.333333")] * 3, total="0.99"), "0.99", "0.00"),
        ("discount before tax", request(line(unit_price="10", discount="5", tax_rate="0.1"), total="5.5"), "5.00", "0.50"),
        ("no decimals", request(line(quantity="3", unit_price="33.4"), total="100", currency="JPY"), "100", "0"),
        ("three decimals", request(line(unit_price="1.2345"), total="1.235", currency="KWD"), "1.235", "0.000"),
        ("a total with more zeros", request(line(), total="1.0000"), "1.00", "0.00"),
        ("free of charge", request(line(unit_price="0"), total="0"), "0.00", "0.00"),
        ("large and exact", request(line(quantity="999999", unit_price="99999999.99"), total="99999899990000.01"),
         "99999899990000.01", "0.00"),
    ],
)  # fmt: skip
def test_an_order_is_priced_exactly(_case: str, order: SubmitRequest, net: str, tax: str) -> None:
    result = priced(order)
    assert (str(result.net_total), str(result.tax_total)) == (net, tax)
    assert result.total == Decimal(net) + Decimal(tax)


@pytest.mark.parametrize(
    ("_case", "order", "pointers"),
    [
        ("a cent off", request(line(), total="1.01"), ["/params/total"]),
        ("no such currency", request(line(), total="1", currency="XXX"), ["/params/currency"]),
        ("quantity of zero", request(line(quantity="0"), total="0"), ["/params/lines/0/quantity"]),
        ("negative price", request(line(unit_price="-1"), total="0"), ["/params/lines/0/unit_price"]),
        ("tax as percent", request(line(tax_rate="19"), total="20"), ["/params/lines/0/tax_rate"]),
        ("discount over the price", request(line(discount="2"), total="0"), ["/params/lines/0/discount"]),
        ("discount of half a cent", request(line(discount="0.005"), total="1"), ["/params/lines/0/discount"]),
        ("a number twice", request(line(line_number=1), line(line_number=1), total="2"), ["/params/lines/1/line_number"]),
        ("a given number that meets a counted one", request(line(line_number=2), line(), total="2"),
         ["/params/lines/1/line_number"]),
        ("delivered before it was ordered",
         request(line(), total="1", requested_delivery_date=datetime.date(2026, 11, 22)),
         ["/params/requested_delivery_date"]),
        ("negative total", request(line(), total="-1"), ["/params/total"]),
        ("everything at once", request(line(quantity="0", unit_price="-1"), line(tax_rate="2"), total="1", currency="ABC"),
         ["/params/currency", "/params/lines/0/quantity", "/params/lines/0/unit_price", "/params/lines/1/tax_rate"]),
    ],
)  # fmt: skip
def test_everything_wrong_is_named(_case: str, order: SubmitRequest, pointers: list[str]) -> None:
    with pytest.raises(ProviderError) as refused:
        priced(order)
    assert refused.value.code == "invalid_argument"
    assert [error.pointer for error in refused.value.errors] == pointers


def test_currencies_know_their_smallest_unit() -> None:
    assert [str(minor_unit(code)) for code in ("EUR", "JPY", "BHD", "CLF")] == ["0.01", "1", "0.001", "0.0001"]
    assert minor_unit("eur") is None
    assert minor_unit("XTS") is None
