"""The sample orders: what companies send, right and wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One submission and what it shows."""

    shows: str
    params: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def _order(reference: str, customer: str, lines: list[dict[str, str]], total: str, **more: Any) -> dict[str, Any]:
    return {
        "customer_reference": reference,
        "customer": {"id": customer, "name": more.pop("name", f"Customer {customer}")},
        "currency": "EUR",
        "order_date": "2026-11-23",
        "lines": lines,
        "total": total,
        **more,
    }


def _line(sku: str, quantity: str, unit_price: str, description: str, **more: str) -> dict[str, str]:
    return {"sku": sku, "quantity": quantity, "unit_price": unit_price, "description": description, **more}


def samples(run: str) -> list[Sample]:
    """Return the samples; ``run`` makes their references differ from those of earlier runs."""
    first = _rush_order(run)
    return [
        Sample("a rush order with personal data in its note", first),
        *_plain_orders(run),
        Sample("the first order again, by a nervous client", first),
        Sample("the same reference for another order", {**first, "note": "Another text."}),
        *_wrong_orders(run),
    ]


def _rush_order(run: str) -> dict[str, Any]:
    lines = [
        _line("BRG-6204", "12", "8.40", "Ball bearing", tax_rate="0.19"),
        _line("SEAL-30", "4", "2.15", "Shaft seal", tax_rate="0.19"),
    ]
    note = "Our production line stands still, please deliver today. Call Ada Byron at +49 170 1234567."
    return _order(f"PO-{run}-1", "C-1001", lines, "130.18", name="Ada Byron", note=note)


def _plain_orders(run: str) -> list[Sample]:
    office = [
        _line("PAPER-A4", "50", "3.99", "Copy paper", tax_rate="0.19", discount="10.00"),
        _line("BOOK-77", "3", "24.00", "Manual", tax_rate="0.07"),
    ]
    sensors = [_line("SENSOR-9", "3", "1250", "Pressure sensor")]
    steel = [_line("STEEL-1.5", "1.275", "1180.50", "Steel sheet, tons", tax_rate="0.19")]
    service = [_line("SRV-HOUR", "8", "95.00", "Maintenance by a technician, hours", tax_rate="0.19")]
    monthly = "Office supplies as every month, there is no hurry."
    stock = "Raw material for next month, standard delivery is fine."
    yearly = "Please send a technician for the yearly maintenance."
    return [
        Sample("several rates of tax and a discount", _order(f"PO-{run}-2", "C-1002", office, "302.55", note=monthly)),
        Sample("a currency without decimals", _order(f"PO-{run}-3", "C-1003", sensors, "3750", currency="JPY")),
        Sample("fractions of a unit", _order(f"PO-{run}-4", "C-1004", steel, "1791.12", note=stock)),
        Sample("a service to be sent", _order(f"PO-{run}-7", "C-1001", service, "904.40", note=yearly)),
    ]


def _wrong_orders(run: str) -> list[Sample]:
    lamps = [_line("SKU-1", "2", "19.90", "Lamp", tax_rate="0.19")]
    nothing = [_line("SKU-2", "0", "-1", "Nothing")]
    return [
        Sample("a total that is a cent off", _order(f"PO-{run}-5", "C-1005", lamps, "47.37")),
        Sample("several mistakes at once", _order(f"PO-{run}-6", "C-1006", nothing, "1", currency="XYZ")),
    ]
