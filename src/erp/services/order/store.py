"""Orders in the tenant's database, reached through the pipeline like any other provider."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from erp.contracts.models.db import (
    ExecuteBatchRequest,
    ExecuteRequest,
    ExecuteResult,
    QueryRequest,
    QueryResult,
    Statement,
)
from erp.contracts.models.order import (
    Annotation,
    GetResult,
    ListRequest,
    ListResult,
    Step,
    SubmitRequest,
    Summary,
)
from erp.runtime.spi import UNSET, CallContext, ErrorCode, FieldError, ProviderError
from erp.services.order.schema import STEPS, TABLES
from erp.services.order.validation import PricedOrder

_ORDER = (
    "order_id, customer_reference, customer_id, customer_name, customer_email, status, currency, order_date,"
    " requested_delivery_date, submitted_at, net_total, tax_total, total, note, cancel_reason, category, urgency,"
    " annotation_note, annotation_model"
)
_SUMMARY = "order_id, customer_reference, customer_id, status, total, currency, order_date, submitted_at"
_LINE = "line_number, sku, description, quantity, unit_price, discount, tax_rate, net, tax"


def order_id(tenant: str, customer_reference: str) -> str:
    """Return the id of an order: the same reference is the same order, however often it is submitted."""
    digest = hashlib.blake2b(f"{tenant}\0{customer_reference}".encode(), digest_size=12, person=b"erp-order")
    return f"ord_{digest.hexdigest()}"


def fingerprint(request: SubmitRequest) -> str:
    """Return what tells whether two submissions are the same order."""
    text = msgspec.json.encode(request, order="sorted")
    return hashlib.sha256(text).hexdigest()


def now() -> str:
    """Return the present time in UTC, as text that sorts by time."""
    return after(0)


def after(seconds: float) -> str:
    """Return the time that many seconds from now, in UTC, as text that sorts by time."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return moment.isoformat(timespec="microseconds")


async def rows(context: CallContext, sql: str, *parameters: Any, max_rows: int = 1000) -> list[list[Any]]:
    """Run a query."""
    request = QueryRequest(sql=sql, parameters=list(parameters), max_rows=max_rows)
    result: QueryResult = await context.invoke("db", "query", request)
    return result.rows


async def change(context: CallContext, sql: str, *parameters: Any) -> int:
    """Run one change; return how many rows it affected."""
    result: ExecuteResult = await context.invoke("db", "execute", ExecuteRequest(sql=sql, parameters=list(parameters)))
    return result.rows_affected


async def batch(context: CallContext, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """Run several changes, all or none."""
    request = ExecuteBatchRequest(
        statements=[Statement(sql=sql, parameters=list(values)) for sql, values in statements]
    )
    await context.invoke("db", "execute_batch", request)


async def create_tables(context: CallContext) -> None:
    """Make the tables where they do not exist."""
    await batch(context, [(sql, ()) for sql in TABLES])


async def insert(context: CallContext, request: SubmitRequest, order: PricedOrder) -> str:
    """Write an order, its lines and what has to be done about it, all in one transaction; return its id.

    Raises:
        ProviderError: ``already_exists`` when there is an order with this customer reference.
    """
    id_ = order_id(context.tenant, request.customer_reference)
    statements = [_order_row(id_, request, order)]
    statements += [_line_row(id_, item) for item in order.lines]
    statements += [_step_row(id_, name) for name in STEPS[:3]]
    await batch(context, statements)
    return id_


def _order_row(id_: str, request: SubmitRequest, order: PricedOrder) -> tuple[str, list[Any]]:
    customer = request.customer
    values = {
        "order_id": id_,
        "customer_reference": request.customer_reference,
        "fingerprint": fingerprint(request),
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
        "submitted_at": now(),
    }
    return _insert("orders", values)


def _line_row(id_: str, item: Any) -> tuple[str, list[Any]]:
    line = item.line
    values = {
        "order_id": id_,
        "line_number": item.number,
        "sku": line.sku,
        "description": _or_none(line.description),
        "quantity": str(line.quantity),
        "unit_price": str(line.unit_price),
        "discount": str(line.discount),
        "tax_rate": str(line.tax_rate),
        "net": str(item.net),
        "tax": str(item.tax),
    }
    return _insert("order_lines", values)


def _step_row(id_: str, name: str) -> tuple[str, list[Any]]:
    values = {"order_id": id_, "name": name, "status": "pending", "attempts": 0, "due_at": now()}
    return _insert("order_steps", values)


def _insert(table: str, values: dict[str, Any]) -> tuple[str, list[Any]]:
    marks = ", ".join("?" * len(values))
    return f"insert into {table} ({', '.join(values)}) values ({marks})", list(values.values())  # noqa: S608  (constants)


def _or_none(value: Any) -> Any:
    return None if value is UNSET else value


def _date_text(value: Any) -> str | None:
    return None if value is UNSET else value.isoformat()


async def recorded_fingerprint(context: CallContext, id_: str) -> str | None:
    """Return the fingerprint of a stored order."""
    found = await rows(context, "select fingerprint from orders where order_id = ?", id_)
    return found[0][0] if found else None


async def load(context: CallContext, id_: str) -> GetResult:
    """Return an order.

    Raises:
        ProviderError: ``not_found``.
    """
    found = await rows(context, f"select {_ORDER} from orders where order_id = ?", id_)  # noqa: S608  (a constant)
    if not found:
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no order {id_[:64]!r}.")
    ordered = f"select {_LINE} from order_lines where order_id = ? order by line_number"  # noqa: S608  (a constant)
    lines = await rows(context, ordered, id_)
    return _order(dict(zip(_names(_ORDER), found[0], strict=True)), lines, await steps(context, id_))


def _order(row: dict[str, Any], lines: list[list[Any]], done: list[Step]) -> GetResult:
    customer = {"id": row.pop("customer_id"), "name": row.pop("customer_name"), "email": row.pop("customer_email")}
    note, model = row.pop("annotation_note"), row.pop("annotation_model")
    judged = {"category": row.pop("category"), "urgency": row.pop("urgency"), "note": note, "model": model}
    present = {name: value for name, value in row.items() if value is not None}
    result: GetResult = msgspec.convert(
        present | {"customer": _present(customer), "lines": [_line(values) for values in lines], "steps": []}, GetResult
    )
    result.steps = done
    if model is not None:
        result.annotation = Annotation(**judged)
    return result


def _line(values: list[Any]) -> dict[str, Any]:
    return _present(dict(zip(_names(_LINE), values, strict=True)))


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _names(columns: str) -> list[str]:
    return [name.strip() for name in columns.split(",")]


async def steps(context: CallContext, id_: str) -> list[Step]:
    """Return what has been done about an order."""
    sql = "select name, status, attempts, detail from order_steps where order_id = ?"
    found = {row[0]: row for row in await rows(context, sql, id_)}
    return [
        Step(name=name, status=row[1], attempts=row[2], detail=UNSET if row[3] is None else row[3])  # type: ignore[arg-type]
        for name in STEPS
        if (row := found.get(name)) is not None
    ]


async def page(context: CallContext, request: ListRequest) -> ListResult:
    """Return orders, newest first."""
    conditions, values = ["1 = 1"], []
    for column, value in (("status", request.status), ("customer_id", request.customer_id)):
        if value is not UNSET:
            conditions.append(f"{column} = ?")
            values.append(value)
    if request.cursor is not UNSET:
        conditions.append("(submitted_at < ? or (submitted_at = ? and order_id < ?))")
        moment, id_ = _cursor(request.cursor)
        values += [moment, moment, id_]
    sql = f"select {_SUMMARY} from orders where {' and '.join(conditions)} order by submitted_at desc, order_id desc limit ?"  # noqa: S608
    found = await rows(context, sql, *values, request.limit + 1)
    shown = found[: request.limit]
    items = [msgspec.convert(dict(zip(_names(_SUMMARY), row, strict=True)), Summary) for row in shown]
    result = ListResult(items=items)
    if len(found) > request.limit:
        result.next_cursor = base64.urlsafe_b64encode(f"{shown[-1][7]} {shown[-1][0]}".encode()).decode()
    return result


def _cursor(text: str) -> tuple[str, str]:
    try:
        moment, _, id_ = base64.b64decode(text.encode(), altchars=b"-_", validate=True).decode().partition(" ")
    except (binascii.Error, ValueError):
        moment, id_ = "", ""
    if not id_:
        error = FieldError("/params/cursor", "Use next_cursor of the page before, unchanged.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The cursor is not valid.", errors=[error])
    return moment, id_


async def open_orders(context: CallContext, limit: int) -> list[str]:
    """Return orders about which something still has to be done."""
    sql = "select distinct order_id from order_steps where status = 'pending' order by order_id limit ?"
    return [row[0] for row in await rows(context, sql, limit)]


async def settle(
    context: CallContext, id_: str, name: str, status: str, attempts: int, *, due: str, detail: str | None
) -> None:
    """Write down how a step went, unless somebody else did."""
    await change(
        context,
        "update order_steps set status = ?, attempts = ?, due_at = ?, detail = ?"
        " where order_id = ? and name = ? and status = 'pending'",
        *(status, attempts, due, detail, id_, name),
    )


async def annotate(context: CallContext, id_: str, annotation: Annotation) -> None:
    """Write down what the model thinks of an order."""
    await change(
        context,
        "update orders set category = ?, urgency = ?, annotation_note = ?, annotation_model = ? where order_id = ?",
        *(annotation.category, annotation.urgency, annotation.note, annotation.model, id_),
    )


async def cancel(context: CallContext, id_: str, reason: str | None) -> None:
    """Cancel a submitted order and note that it has to be announced, in one transaction."""
    request = ExecuteBatchRequest(
        statements=[
            Statement(
                sql="update orders set status = 'cancelled', cancel_reason = ? where order_id = ? and status = 'submitted'",
                parameters=[reason, id_],
                expect_rows=1,
            ),
            Statement(sql=_step_row(id_, "cancellation")[0], parameters=_step_row(id_, "cancellation")[1]),
        ]
    )
    await context.invoke("db", "execute_batch", request)


async def reopen(context: CallContext, id_: str) -> int:
    """Make failed steps due again; return how many."""
    sql = "update order_steps set status = 'pending', attempts = 0, due_at = ? where order_id = ? and status = 'failed'"
    return await change(context, sql, now(), id_)
