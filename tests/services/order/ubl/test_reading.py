"""A document becomes the same request as any other order; what is not right about it is named by its XPath."""

from __future__ import annotations

import msgspec
import pytest
from tests.services.order.ubl.documents import ORDER, SMALL, changed, refused

from erp.contracts.models.order import SubmitDocumentRequest
from erp.services.order import ubl

pytestmark = pytest.mark.anyio

LINE = "/Order/cac:OrderLine[1]/cac:LineItem"


async def test_everything_an_order_has_a_place_for_is_taken_over() -> None:
    request, priced = await ubl.read(ORDER)
    assert msgspec.to_builtins(request) == {
        "customer_reference": "PO-77",
        "customer": {"id": "C-1", "name": "Ada Byron & Söhne", "email": "ada@example.com"},
        "currency": "EUR",
        "order_date": "2026-11-23",
        "requested_delivery_date": "2026-12-04",
        "lines": [
            {
                "line_number": 10,
                "sku": "SKU-1",
                "description": "Lamp",
                "quantity": "2",
                "unit_price": "19.90",
                "discount": "0",
                "tax_rate": "0.190",
            },
            {
                "line_number": 20,
                "sku": "4006381333931",
                "description": "Repair, hours",
                "quantity": "1.2",
                "unit_price": "100.0",
                "discount": "10.00",
                "tax_rate": "0.07",
            },
        ],
        "total": "165.06",
        "note": "Please deliver before noon.\nGate <3> & ring",
    }
    assert (str(priced.net_total), str(priced.tax_total)) == ("149.80", "15.26")


async def test_a_document_needs_no_more_than_what_an_order_needs() -> None:
    request, _ = await ubl.read(SMALL)
    assert msgspec.to_builtins(request) == {
        "customer_reference": "PO-1",
        "customer": {"id": "C-1", "name": "Ada Byron"},
        "currency": "EUR",
        "order_date": "2026-11-23",
        "lines": [{"line_number": 1, "sku": "SKU-1", "quantity": "2", "unit_price": "19.90"} | {"discount": "0", "tax_rate": "0"}],
        "total": "39.80",
    }  # fmt: skip


async def test_what_a_document_says_about_its_encoding_does_not_matter() -> None:
    said = '<?xml version="1.0" encoding="UTF-16"?>' + changed(SMALL, "Ada Byron", "Ada Zażółć")
    assert (await ubl.read(said))[0].customer.name == "Ada Zażółć"


async def test_lines_without_numbers_are_counted() -> None:
    document = changed(SMALL, "<cbc:ID>1</cbc:ID>", "<cbc:ID>first</cbc:ID>")
    assert (await ubl.read(document))[0].lines[0].line_number == 1


async def test_a_large_document_is_read_like_a_small_one() -> None:
    document = changed(SMALL, "<cbc:IssueDate>", f"<!--{' ' * ubl.LARGE_CHARACTERS}--><cbc:IssueDate>")
    assert (await ubl.read(document)) == (await ubl.read(SMALL))


BOMB = (
    '<!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1};" * 10}">' for n in range(1, 10)).replace("lol0", "lol")
    + "]>"
)


@pytest.mark.parametrize(
    "document",
    [
        "<!DOCTYPE Order>" + SMALL,
        BOMB + changed(SMALL, "Ada Byron", "&lol9;"),
        '<!DOCTYPE Order [<!ENTITY file SYSTEM "file:///etc/passwd">]>' + changed(SMALL, "Ada Byron", "&file;"),
        '<!DOCTYPE Order SYSTEM "http://127.0.0.1:9/order.dtd">' + SMALL,
        '<!DOCTYPE Order [<!ENTITY % all SYSTEM "http://127.0.0.1:9/x"> %all;]>' + SMALL,
    ],
)
async def test_a_document_type_is_refused_before_anything_it_defines(document: str) -> None:
    assert await refused(document) == [
        "has a document type declaration (<!DOCTYPE ...>), which could define entities. Remove it."
    ]


async def test_an_undefined_entity_is_not_well_formed() -> None:
    (message,) = await refused(changed(SMALL, "Ada Byron", "&file;"))
    assert message == "is not well-formed XML: undefined entity at line 7, column 30. Mend it there."


@pytest.mark.parametrize("document", ["", "{}", "PO-1", SMALL[:-9], SMALL + SMALL, SMALL + "\ud800", "\x00"])
async def test_what_is_no_xml_is_refused(document: str) -> None:
    (message,) = await refused(document)
    assert message.startswith("is not well-formed XML: ")


async def test_deep_nesting_is_refused() -> None:
    assert await refused("<a>" * 100_000) == ["is nested deeper than 32 levels. UBL never is."]


async def test_too_many_elements_are_refused() -> None:
    assert await refused(f"<a>{'<b/>' * 100_000}</a>") == [
        "has more than 100000 elements. Send the order in several documents."
    ]


def test_an_oversized_document_is_refused_by_the_contract() -> None:
    with pytest.raises(msgspec.ValidationError, match="length <= 2000000"):
        msgspec.convert({"document": "x" * 2_000_001}, SubmitDocumentRequest)


async def test_another_document_is_refused_by_its_name() -> None:
    invoice = SMALL.replace("xsd:Order-2", "xsd:Invoice-2").replace("Order xmlns", "Invoice xmlns")
    invoice = invoice.replace("</Order>", "</Invoice>")
    assert await refused(invoice) == [
        (
            "/{urn:oasis:names:specification:ubl:schema:xsd:Invoice-2}Invoice is not a UBL order. Send an <Order> of the"
            " namespace urn:oasis:names:specification:ubl:schema:xsd:Order-2."
        )
    ]


async def test_an_order_of_no_namespace_is_refused() -> None:
    (message,) = await refused(changed(SMALL, ' xmlns="urn:oasis:names:specification:ubl:schema:xsd:Order-2"', ""))
    assert message.startswith("/{}Order is not a UBL order.")


@pytest.mark.parametrize(
    ("before", "after", "messages"),
    [
        ("<cbc:ID>PO-1</cbc:ID>", "", ["/Order/cbc:ID is missing. Add it."]),
        ("<cac:SellerSupplierParty/>", "", ["/Order/cac:SellerSupplierParty is missing. Add it."]),
        (
            "<cbc:IssueDate>2026-11-23</cbc:IssueDate>",
            "<cbc:IssueDate>2026-02-30</cbc:IssueDate>",
            ["/Order/cbc:IssueDate is '2026-02-30', which is no date. Write it like 2026-11-23."],
        ),
        ("<cbc:ID>PO-1</cbc:ID>", "<cbc:ID> </cbc:ID>", ["/Order/cbc:ID is empty. Fill it in, or leave the element out."]),
        (
            "<cbc:ID>PO-1</cbc:ID>",
            "<cbc:ID>PO-1</cbc:ID><cbc:ID>PO-2</cbc:ID>",
            ["/Order/cbc:ID is there more than once. Keep one."],
        ),
        (
            "<cbc:ID>PO-1</cbc:ID>",
            "<cbc:CopyIndicator>maybe</cbc:CopyIndicator>",
            [
                "/Order/cbc:ID is missing. Add it.",
                "/Order/cbc:CopyIndicator is 'maybe'. Write true or false.",
            ],
        ),
        (
            "<cbc:ID>1</cbc:ID>",
            "<cbc:LineStatusCode>x</cbc:LineStatusCode><cbc:ID>1</cbc:ID>",
            [f"{LINE}/cbc:ID stands after cbc:LineStatusCode; in UBL 2.1 it stands before. Move it."],
        ),
        (
            "<cbc:Quantity>2</cbc:Quantity>",
            "<cbc:Quantity>2</cbc:Quantity><cbc:Colour>red</cbc:Colour>",
            [f"{LINE}/cbc:Colour is not part of UBL 2.1 at this place. Remove it, or mend its namespace."],
        ),
        (
            "<cbc:Quantity>2</cbc:Quantity>",
            "<Quantity>2</Quantity>",
            [f"{LINE}/Quantity is not part of UBL 2.1 at this place. Remove it, or mend its namespace."],
        ),
        (
            "<cac:SellerSupplierParty/>",
            "loose <cac:SellerSupplierParty/>",
            ["/Order has text between its elements. Remove it."],
        ),
        (
            "<cbc:Quantity>2</cbc:Quantity>",
            "<cbc:Quantity>2<b/></cbc:Quantity>",
            [f"{LINE}/cbc:Quantity holds elements, but must hold text. Remove them."],
        ),
        (
            'currencyID="EUR">39.80',
            ">39.80",
            [
                ("/Order/cac:AnticipatedMonetaryTotal/cbc:PayableAmount/@currencyID"
                " is missing or no currency of ISO 4217. Write it like EUR.")
            ],
        ),
    ],
)  # fmt: skip
async def test_a_breach_of_the_schema_is_named(before: str, after: str, messages: list[str]) -> None:
    assert await refused(changed(SMALL, before, after)) == messages


@pytest.mark.parametrize("number", ["1,5", "1e3", "NaN", "Infinity", "0x10", "1_000", "٢", "two", "--1", "."])
async def test_what_is_no_decimal_is_refused(number: str) -> None:
    document = changed(SMALL, "<cbc:Quantity>2<", f"<cbc:Quantity>{number}<")
    assert await refused(document) == [
        f"{LINE}/cbc:Quantity is {number!r}, which is no decimal number. Write it like 19.90."
    ]


@pytest.mark.parametrize("number", ["1000000000000000", "0.0000001", "9" * 200])
async def test_a_decimal_with_too_many_digits_is_refused(number: str) -> None:
    document = changed(SMALL, "<cbc:Quantity>2<", f"<cbc:Quantity>{number}<")
    assert (await refused(document))[0].startswith(f"{LINE}/cbc:Quantity has more than 15 digits before or 6 after")


@pytest.mark.parametrize("number", ["2", "+2", "2.", "2.000000000", "02", " 2 "])
async def test_every_way_to_write_a_decimal_is_read(number: str) -> None:
    request, _ = await ubl.read(changed(SMALL, "<cbc:Quantity>2<", f"<cbc:Quantity>{number}<"))
    assert request.lines[0].quantity == 2


async def test_only_the_first_of_many_errors_are_shown() -> None:
    messages = await refused(changed(SMALL, "<cac:SellerSupplierParty/>", "<x/>" * 80))
    assert len(messages) == 51
    assert messages[-1] == "has 31 more errors. Mend these first."
