"""How an order is written: its id, its rows, and what a reader of them will see."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from erp.contracts.models.order import GetResult, Line, SubmitRequest
from erp.runtime.spi import UNSET
from erp.services.order.validation import PricedLine, PricedOrder

Statement = tuple[str, list[Any]]
"""SQL and its parameters."""

LINE_COLUMNS = "line_number, sku, description, quantity, unit_price, discount, tax_rate, net, tax"
_LINES_AT_ONCE = 50
"""Lines written by one statement: far from every engine's limit, and 1000 lines stay far from a batch's."""


def order_id(tenant: str, customer_reference: str) -> str:
    """Return the id of an order: the same reference is the same order, however often it is submitted."""
    digest = hashlib.blake2b(f"{tenant}\0{customer_reference}".encode(), digest_size=12, person=b"erp-order")
    return f"ord_{digest.hexdigest()}"


def fingerprint(request: SubmitRequest, order: PricedOrder) -> str:
    """Return what tells whether two submissions are the same order, however their amounts are written."""
    lines = [
        msgspec.structs.replace(
            item.line,
            line_number=item.number,
            quantity=item.line.quantity.normalize(),
            unit_price=item.line.unit_price.normalize(),
            discount=item.line.discount.normalize(),
            tax_rate=item.line.tax_rate.normalize(),
        )
        for item in order.lines
    ]
    same = msgspec.structs.replace(request, lines=lines, total=order.total)
    return hashlib.sha256(msgspec.json.encode(same, order="sorted")).hexdigest()


def now() -> str:
    """Return the present time in UTC, as text that sorts by time."""
    return after(0)


def after(seconds: float) -> str:
    """Return the time that many seconds from now, in UTC, as text that sorts by time."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return moment.isoformat(timespec="microseconds")


def as_written(id_: str, request: SubmitRequest, order: PricedOrder, submitted_at: str) -> GetResult:
    """Return what ``load`` would; but for its steps."""
    return GetResult(
        order_id=id_,
        customer_reference=request.customer_reference,
        customer=request.customer,
        status="submitted",
        currency=request.currency,
        order_date=request.order_date,
        requested_delivery_date=request.requested_delivery_date,
        submitted_at=datetime.datetime.fromisoformat(submitted_at),
        lines=[_line(item) for item in order.lines],
        net_total=order.net_total,
        tax_total=order.tax_total,
        total=order.total,
        note=request.note,
        steps=[],
    )


def _line(item: PricedLine) -> Line:
    line = item.line
    return Line(
        line_number=item.number,
        sku=line.sku,
        description=line.description,
        quantity=line.quantity,
        unit_price=line.unit_price,
        discount=line.discount,
        tax_rate=line.tax_rate,
        net=item.net,
        tax=item.tax,
    )


def order_row(id_: str, request: SubmitRequest, order: PricedOrder, submitted_at: str) -> Statement:
    """Return what writes the order itself."""
    customer = request.customer
    values = {
        "order_id": id_,
        "customer_reference": request.customer_reference,
        "fingerprint": fingerprint(request, order),
        "customer_id": customer.id,
        "customer_name": customer.name,
        "customer_email": _or_none(customer.email),
        "currency": request.currency,
        "order_date": request.order_date.isoformat(),
        "requested_delivery_date": _date_text(request.requested_delivery_date),
        "net_total": str(order.net_total),
        "tax_total": str(order.tax_total),
        "total": str(order.total),
        "note": _or_none(request.note),
        "status": "submitted",
        "submitted_at": submitted_at,
    }
    return _insert("orders", values)


def line_rows(id_: str, lines: Sequence[PricedLine]) -> list[Statement]:
    """Return what writes the lines of an order."""
    marks = f"({', '.join('?' * len(LINE_COLUMNS.split(',')))}, ?)"
    statements = []
    for start in range(0, len(lines), _LINES_AT_ONCE):
        written = lines[start : start + _LINES_AT_ONCE]
        sql = f"insert into order_lines ({LINE_COLUMNS}, order_id) values {', '.join([marks] * len(written))}"  # noqa: S608  (constants)
        statements.append((sql, [value for item in written for value in (*_line_values(item), id_)]))
    return statements


def _line_values(item: PricedLine) -> list[Any]:
    line = item.line
    amounts = (line.quantity, line.unit_price, line.discount, line.tax_rate, item.net, item.tax)
    return [item.number, line.sku, _or_none(line.description), *map(str, amounts)]


def step_rows(id_: str, names: Sequence[str], lease_seconds: float = 0.0) -> Statement:
    """Return what writes down that steps have to be taken; with a lease, their first attempts are claimed."""
    attempts = 1 if lease_seconds else 0
    due_at = after(lease_seconds)
    marks = ", ".join(["(?, ?, 'pending', ?, ?)"] * len(names))
    sql = f"insert into order_steps (order_id, name, status, attempts, due_at) values {marks}"  # noqa: S608  (constants)
    return sql, [value for name in names for value in (id_, name, attempts, due_at)]


def _insert(table: str, values: dict[str, Any]) -> Statement:
    marks = ", ".join("?" * len(values))
    return f"insert into {table} ({', '.join(values)}) values ({marks})", list(values.values())  # noqa: S608  (constants)


def _or_none(value: Any) -> Any:
    return None if value is UNSET else value


def _date_text(value: Any) -> str | None:
    return None if value is UNSET else value.isoformat()
