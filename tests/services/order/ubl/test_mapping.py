"""What would change an amount is right, or refused; nothing is left out silently."""

from __future__ import annotations

import pytest
from tests.services.order.ubl.documents import ORDER, SMALL, changed, refused

from erp.services.order import ubl

pytestmark = pytest.mark.anyio

LINE = "/Order/cac:OrderLine[1]/cac:LineItem"
TOTAL = "/Order/cac:AnticipatedMonetaryTotal"
PRICE = '<cbc:PriceAmount currencyID="EUR">19.90</cbc:PriceAmount>'
PAYABLE = '<cbc:PayableAmount currencyID="EUR">39.80</cbc:PayableAmount>'


def charge(indicator: str) -> str:
    return (
        f"<cac:AllowanceCharge><cbc:ChargeIndicator>{indicator}</cbc:ChargeIndicator>"
        '<cbc:Amount currencyID="EUR">1.00</cbc:Amount></cac:AllowanceCharge>'
    )


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "<cbc:DocumentCurrencyCode>EUR</cbc:DocumentCurrencyCode>",
            "",
            "/Order/cbc:DocumentCurrencyCode is missing. Name the currency of all amounts, for example EUR.",
        ),
        (
            'currencyID="EUR">19.90',
            'currencyID="USD">19.90',
            f"{LINE}/cac:Price/cbc:PriceAmount/@currencyID is USD, but the order is in EUR. Use one currency.",
        ),
        (
            f"<cac:AnticipatedMonetaryTotal>{PAYABLE}</cac:AnticipatedMonetaryTotal>",
            "",
            f"{TOTAL} is missing. Add it with cbc:PayableAmount: what all lines come to, with tax.",
        ),
        (
            PAYABLE,
            f'<cbc:PrepaidAmount currencyID="EUR">5.00</cbc:PrepaidAmount>{PAYABLE}',
            f"{TOTAL}/cbc:PrepaidAmount is not zero, but the total of an order is that of its lines. Put it on a line.",
        ),
        (
            "<cac:SellerSupplierParty/>",
            "<cac:SellerSupplierParty/>" + charge("false"),
            (
                "/Order/cac:AllowanceCharge[1] applies to the whole order."
                " Put allowances and charges on the lines they belong to."
            ),
        ),
        (
            f"<cac:Price>{PRICE}",
            f"{charge('true')}<cac:Price>{PRICE}",
            (
                f"{LINE}/cac:AllowanceCharge[1]/cbc:ChargeIndicator is true: charges are not taken."
                " Send it as an order line with its own price."
            ),
        ),
        (
            PRICE,
            PRICE + "<cbc:BaseQuantity>3</cbc:BaseQuantity>",
            (
                f"{LINE}/cac:Price/cbc:BaseQuantity divides 19.90 into prices with more than 6 decimals."
                " Give the price of one unit."
            ),
        ),
        (
            PRICE,
            PRICE + "<cbc:BaseQuantity>0</cbc:BaseQuantity>",
            f"{LINE}/cac:Price/cbc:BaseQuantity must be more than zero.",
        ),
        (
            f"<cac:Price>{PRICE}</cac:Price>",
            "",
            f"{LINE}/cac:Price/cbc:PriceAmount is missing. Say what one unit costs, without tax.",
        ),
        ("<cbc:Quantity>2</cbc:Quantity>", "", f"{LINE}/cbc:Quantity is missing. Say how much is ordered."),
        (
            "<cac:SellersItemIdentification><cbc:ID>SKU-1</cbc:ID></cac:SellersItemIdentification>",
            "",
            f"{LINE}/cac:Item/cac:SellersItemIdentification/cbc:ID is missing. Say which article is ordered.",
        ),
        (
            "<cac:PartyIdentification><cbc:ID>C-1</cbc:ID></cac:PartyIdentification>",
            "",
            "/Order/cac:BuyerCustomerParty/cac:Party/cac:PartyIdentification/cbc:ID is missing. Say who orders.",
        ),
        (
            "<cac:PartyName><cbc:Name>Ada Byron</cbc:Name></cac:PartyName>",
            "",
            "/Order/cac:BuyerCustomerParty/cac:Party/cac:PartyName/cbc:Name is missing. Name who orders.",
        ),
        (
            "<cbc:DocumentCurrencyCode>EUR</cbc:DocumentCurrencyCode>",
            "<cbc:DocumentCurrencyCode>EUR</cbc:DocumentCurrencyCode><cbc:LineCountNumeric>2</cbc:LineCountNumeric>",
            "/Order/cbc:LineCountNumeric is 2, but there are 1 order lines. Mend the count, or send them all.",
        ),
        (
            "<cbc:ID>PO-1</cbc:ID>",
            f"<cbc:ID>{'P' * 129}</cbc:ID>",
            "/Order/cbc:ID has 129 characters, but 128 are taken. Shorten it.",
        ),
        (
            "</cac:Item>",
            (
                "</cac:Item><cac:TaxTotal><cbc:TaxAmount currencyID='EUR'>0</cbc:TaxAmount>"
                "<cbc:TaxIncludedIndicator>true</cbc:TaxIncludedIndicator></cac:TaxTotal>"
            ),
            f"{LINE}/cac:TaxTotal[1]/cbc:TaxIncludedIndicator is true: prices are taken without tax. Send net prices.",
        ),
    ],
)
async def test_what_the_order_has_no_place_for_or_lacks_is_named(before: str, after: str, message: str) -> None:
    assert await refused(changed(SMALL, before, after)) == [message]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            '<b:PayableAmount currencyID="EUR">165.06',
            '<b:PayableAmount currencyID="EUR">165.07',
            f"{TOTAL}/cbc:PayableAmount is 165.07, but the lines add up to 165.06 (149.80 and 15.26 tax). Mend it.",
        ),
        (
            '<b:TaxInclusiveAmount currencyID="EUR">165.06',
            '<b:TaxInclusiveAmount currencyID="EUR">165.05',
            f"{TOTAL}/cbc:TaxInclusiveAmount is 165.05, but the lines come to 165.06. Mend the amount, or leave it out.",
        ),
        (
            '<b:LineExtensionAmount currencyID="EUR">39.80',
            '<b:LineExtensionAmount currencyID="EUR">39.81',
            f"{LINE}/cbc:LineExtensionAmount is 39.81, but the lines come to 39.80. Mend the amount, or leave it out.",
        ),
        (
            '<b:TaxAmount currencyID="EUR">15.26',
            '<b:TaxAmount currencyID="EUR">15.27',
            "/Order/cac:TaxTotal[1]/cbc:TaxAmount is 15.27, but the lines come to 15.26. Mend the amount, or leave it out.",
        ),
        (
            '<b:Quantity unitCode="HUR">1.2',
            '<b:Quantity unitCode="HUR">-1.2',
            "/Order/cac:OrderLine[2]/cac:LineItem/cbc:Quantity must be more than zero. Mend it.",
        ),
        (
            "<b:ID>20</b:ID>",
            "<b:ID>10</b:ID>",
            "/Order/cac:OrderLine[2]/cac:LineItem/cbc:ID 10 is the number of an earlier line too. Mend it.",
        ),
        (
            "<b:DocumentCurrencyCode>EUR",
            "<b:DocumentCurrencyCode>euro",
            "/Order/cbc:DocumentCurrencyCode is 'euro', which is no currency of ISO 4217. Write it like EUR.",
        ),
        (
            "ada@example.com",
            "ada at example.com",
            ("/Order/cac:BuyerCustomerParty/cac:Party/cac:Contact/cbc:ElectronicMail is refused:"
            " Expected `str` matching regex '^[^@\\\\s]+@[^@\\\\s]+$'. Mend it."),
        ),
        (
            "<b:EndDate>2026-12-04",
            "<b:EndDate>2026-11-04",
            "/Order/cac:Delivery[1]/cac:RequestedDeliveryPeriod/cbc:EndDate is before order_date. Mend it.",
        ),
    ],
)  # fmt: skip
async def test_what_does_not_add_up_is_named_with_what_it_should_be(before: str, after: str, message: str) -> None:
    assert message in await refused(changed(ORDER, before, after))


async def test_a_currency_that_is_none_is_refused() -> None:
    assert await refused(SMALL.replace("EUR", "XYZ")) == [
        "/Order/cbc:DocumentCurrencyCode is 'XYZ', which is no currency of ISO 4217. Write it like EUR."
    ]


async def test_two_rates_on_one_line_are_refused() -> None:
    document = changed(
        ORDER,
        "<cac:BuyersItemIdentification><b:ID>B-7</b:ID></cac:BuyersItemIdentification>\n"
        '        <cac:StandardItemIdentification><b:ID schemeID="0160">4006381333931</b:ID></cac:StandardItemIdentification>',
        "<cac:BuyersItemIdentification><b:ID>B-7</b:ID></cac:BuyersItemIdentification>"
        "<cac:ClassifiedTaxCategory><b:Percent>19</b:Percent><cac:TaxScheme/></cac:ClassifiedTaxCategory>",
    )
    assert await refused(document) == [
        (
            "/Order/cac:OrderLine[2]/cac:LineItem/cac:TaxTotal[1]/cac:TaxSubtotal[1]/cac:TaxCategory/cbc:Percent"
            " is another rate than an earlier one. A line has one rate; split it."
        )
    ]


async def test_more_lines_than_an_order_has_are_refused() -> None:
    start, end = SMALL.index("<cac:OrderLine>"), SMALL.index("</Order>")
    document = SMALL[:start] + SMALL[start:end] * 1001 + SMALL[end:]
    assert await refused(document) == ["/Order/cac:OrderLine is there 1001 times; 1000 are taken. Send several orders."]


async def test_a_thousand_lines_are_read() -> None:
    start, end = SMALL.index("<cac:OrderLine>"), SMALL.index("</Order>")
    lines = "".join(SMALL[start:end].replace("<cbc:ID>1<", f"<cbc:ID>{number}<") for number in range(1, 1001))
    document = SMALL[:start].replace("39.80", "39800.00") + lines + SMALL[end:]
    request, priced = await ubl.read(document)
    assert (len(request.lines), str(priced.total)) == (1000, "39800.00")
