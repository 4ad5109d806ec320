"""An order is right as a whole, to the last cent, or refused with everything that is wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from erp.contracts.models.order import NewLine, SubmitRequest
from erp.errors import ProviderError
from erp.services.order.currencies import minor_unit
from erp.services.order.validation import priced


def made(*lines: dict[str, Any], total: str, currency: str = "EUR", **changes: Any) -> SubmitRequest:
    params = {
        "customer_reference": "PO-1",
        "customer": {"id": "C-1", "name": "Ada"},
        "currency": currency,
        "order_date": "2026-11-23",
        "lines": [{"sku": "S", "quantity": "1", "unit_price": "1", **line} for line in lines],
        "total": total,
        **changes,
    }
    return msgspec.convert(params, SubmitRequest)


def refused(request: SubmitRequest) -> dict[str, str]:
    with pytest.raises(ProviderError) as caught:
        priced(request)
    assert caught.value.code == "invalid_argument"
    return {error.pointer: error.message for error in caught.value.errors}


@pytest.mark.parametrize(
    ("currency", "line", "net", "tax"),
    [
        ("EUR", {"quantity": "2", "unit_price": "19.90", "tax_rate": "0.19"}, "39.80", "7.56"),
        ("EUR", {"quantity": "3", "unit_price": "0.335"}, "1.01", "0.00"),
        ("EUR", {"unit_price": "0.10", "tax_rate": "0.05"}, "0.10", "0.01"),
        ("EUR", {"unit_price": "10", "discount": "10"}, "0.00", "0.00"),
        ("JPY", {"quantity": "1.5", "unit_price": "333", "tax_rate": "0.1"}, "500", "50"),
        ("KWD", {"quantity": "0.001", "unit_price": "1.5", "tax_rate": "0"}, "0.002", "0.000"),
    ],
)
def test_lines_are_rounded_half_up_to_the_minor_unit(currency: str, line: dict[str, str], net: str, tax: str) -> None:
    total = Decimal(net) + Decimal(tax)

    order = priced(made(line, currency=currency, total=str(total)))

    assert (str(order.lines[0].net), str(order.lines[0].tax), str(order.total)) == (net, tax, str(total))


def test_the_total_is_the_sum_of_rounded_lines_and_not_the_rounded_sum() -> None:
    third = {"unit_price": "0.335"}
    assert str(priced(made(third, third, third, total="1.02")).total) == "1.02"
    assert refused(made(third, third, third, total="1.01")) == {
        "/params/total": "is 1.01, but the lines add up to 1.02 (1.02 and 0.00 tax)"
    }


def test_the_largest_amounts_of_the_contract_are_reckoned_exactly() -> None:
    order = priced(made({"quantity": "999999999999999", "unit_price": "1"}, total="999999999999999"))
    assert order.total == Decimal("999999999999999.00")

    huge = {"quantity": "999999999999999.999999", "unit_price": "999999999999999.999999", "tax_rate": "0.999999"}
    assert list(refused(made(huge, total="1"))) == ["/params/total"]


def test_everything_wrong_is_told_at_once_each_at_its_place() -> None:
    wrong = made(
        {"quantity": "0"},
        {"quantity": "-1", "unit_price": "-1", "line_number": 1},
        {"tax_rate": "19", "discount": "0.001"},
        {"discount": "1.01"},
        total="-1",
        currency="EUX",
        requested_delivery_date="2026-11-22",
    )

    assert refused(wrong) == {
        "/params/currency": "EUX is not a currency of ISO 4217",
        "/params/requested_delivery_date": "is before order_date",
        "/params/total": "is negative",
        "/params/lines/0/quantity": "must be more than zero",
        "/params/lines/1/line_number": "1 is the number of an earlier line too",
        "/params/lines/1/quantity": "must be more than zero",
        "/params/lines/1/unit_price": "must not be negative",
        "/params/lines/2/tax_rate": "must be a share from 0 to 1, for example 0.19",
        "/params/lines/3/discount": "must be from zero to the price of the line",
    }


def test_a_wrong_total_is_told_beside_a_wrong_date() -> None:
    wrong = made({}, total="2", requested_delivery_date="2026-11-22")
    assert list(refused(wrong)) == ["/params/requested_delivery_date", "/params/total"]


def test_a_discount_finer_than_the_currency_is_refused() -> None:
    assert refused(made({"discount": "0.001"}, total="1")) == {"/params/lines/0/discount": "must be a multiple of 0.01"}


def test_delivery_on_the_day_of_the_order_is_right() -> None:
    assert priced(made({}, total="1.0", requested_delivery_date="2026-11-23")).total == 1


def test_lines_without_a_number_are_counted() -> None:
    order = priced(made({}, {"line_number": 20}, {}, total="3"))
    assert [line.number for line in order.lines] == [1, 20, 3]
    assert isinstance(order.lines[0].line, NewLine)


@pytest.mark.parametrize(
    ("currency", "unit"), [("EUR", "0.01"), ("JPY", "1"), ("TND", "0.001"), ("CLF", "0.0001"), ("XAD", "0.01")]
)
def test_each_currency_has_its_minor_unit(currency: str, unit: str) -> None:
    assert str(minor_unit(currency)) == unit


@pytest.mark.parametrize("code", ["XAU", "XXX", "XTS", "HRK", "BGN", "ANG", "eur", ""])
def test_codes_without_a_minor_unit_and_withdrawn_ones_are_no_currencies(code: str) -> None:
    assert minor_unit(code) is None
