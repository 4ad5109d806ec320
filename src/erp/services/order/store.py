"""Orders in the tenant's database, reached through the pipeline like any other provider."""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Sequence
from typing import Any

import msgspec

from erp.contracts.models.db import (
    ExecuteBatchRequest,
    ExecuteBatchResult,
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
from erp.services.order.schema import FIRST_STEPS, STEPS, TABLES
from erp.services.order.validation import PricedOrder
from erp.services.order.written import LINE_COLUMNS, after, as_written, line_rows, now, order_id, order_row, step_rows

_ORDER = (
    "order_id, customer_reference, customer_id, customer_name, customer_email, status, currency, order_date,"
    " requested_delivery_date, submitted_at, net_total, tax_total, total, note, cancel_reason, category, urgency,"
    " annotation_note, annotation_model"
)
_SUMMARY = "order_id, customer_reference, customer_id, status, total, currency, order_date, submitted_at"
_ORDER_NAMES, _SUMMARY_NAMES, _LINE_NAMES = (
    [name.strip() for name in columns.split(",")] for columns in (_ORDER, _SUMMARY, LINE_COLUMNS)
)
_STEP = "name, status, attempts, detail, due_at"


class StatementRefusedError(ProviderError):
    """The tenant's database did not take a statement of the service, most likely for want of its tables."""

    def __init__(self, reason: str) -> None:
        message = f"The tenant's database refused a statement of the order service: {reason}"
        super().__init__(ErrorCode.FAILED_PRECONDITION, message)


class OpenStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step that is not settled."""

    name: str
    attempts: int
    """Attempts claimed so far; also the claim itself, as each attempt has another number."""
    due_in: float
    """Seconds; zero or less: now."""


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """How a claimed attempt of a step went."""

    step: OpenStep
    status: str
    detail: str
    pause: float | None
    """Seconds until it should be tried again; None: it should not."""


def _seconds_until(moment: str) -> float:
    return (datetime.datetime.fromisoformat(moment) - datetime.datetime.now(datetime.UTC)).total_seconds()


async def _call(context: CallContext, action: str, request: Any) -> Any:
    try:
        return await context.invoke("db", action, request)
    except ProviderError as error:
        # The caller gave no SQL: these codes and their pointers would mean nothing to them.
        if error.code in {ErrorCode.INVALID_ARGUMENT, ErrorCode.NOT_FOUND}:
            raise StatementRefusedError(error.message) from error
        raise


async def rows(context: CallContext, sql: str, *parameters: Any, max_rows: int = 1000) -> list[list[Any]]:
    """Run a query."""
    request = QueryRequest(sql=sql, parameters=list(parameters), max_rows=max_rows)
    result: QueryResult = await _call(context, "query", request)
    return result.rows


async def change(context: CallContext, sql: str, *parameters: Any) -> int:
    """Run one change; return how many rows it affected."""
    result: ExecuteResult = await _call(context, "execute", ExecuteRequest(sql=sql, parameters=list(parameters)))
    return result.rows_affected


async def batch(context: CallContext, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[int]:
    """Run several changes, all or none; return how many rows each affected."""
    request = ExecuteBatchRequest(
        statements=[Statement(sql=sql, parameters=list(values)) for sql, values in statements]
    )
    result: ExecuteBatchResult = await _call(context, "execute_batch", request)
    return [effect.rows_affected for effect in result.results]


async def create_tables(context: CallContext) -> None:
    """Make the tables where they do not exist."""
    statements = [(sql, ()) for sql in TABLES]
    try:
        await batch(context, statements)
    except ProviderError as error:
        # Another process made them between the engine's look and its own.
        if error.code is not ErrorCode.ALREADY_EXISTS:
            raise
        await batch(context, statements)


async def insert(
    context: CallContext, request: SubmitRequest, order: PricedOrder, *, lease_seconds: float = 0.0
) -> GetResult:
    """Write an order, its lines and what has to be done about it, all in one transaction; return it as written.

    With ``lease_seconds`` the caller has claimed the first attempts of all steps, as ``claim`` would.

    Raises:
        ProviderError: ``already_exists`` when there is an order with this customer reference.
    """
    id_ = order_id(context.tenant, request.customer_reference)
    submitted_at = now()
    statements = [order_row(id_, request, order, submitted_at)]
    statements += line_rows(id_, order.lines)
    statements.append(step_rows(id_, FIRST_STEPS, lease_seconds))
    await batch(context, statements)
    return as_written(id_, request, order, submitted_at)


async def recorded_fingerprint(context: CallContext, id_: str) -> str | None:
    """Return the fingerprint of a stored order."""
    found = await rows(context, "select fingerprint from orders where order_id = ?", id_)
    return found[0][0] if found else None


async def load(context: CallContext, id_: str) -> GetResult:
    """Return an order.

    Raises:
        ProviderError: ``not_found``.
    """
    return (await load_with_open_steps(context, id_))[0]


async def load_with_open_steps(context: CallContext, id_: str) -> tuple[GetResult, list[OpenStep]]:
    """Return an order and its steps that are not settled, in the order in which they are taken.

    Raises:
        ProviderError: ``not_found``.
    """
    # The steps first: what a step has written stands before the step is settled, so an order whose steps are read as
    # done is read with all that they did, though they were done between two of these queries.
    steps = await rows(context, f"select {_STEP} from order_steps where order_id = ?", id_)  # noqa: S608  (a constant)
    found = await rows(context, f"select {_ORDER} from orders where order_id = ?", id_)  # noqa: S608  (a constant)
    if not found:
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no order {id_[:64]!r}.")
    ordered = f"select {LINE_COLUMNS} from order_lines where order_id = ? order by line_number"  # noqa: S608  (a constant)
    lines = await rows(context, ordered, id_)
    steps.sort(key=lambda row: STEPS.index(row[0]))
    done = [
        Step(name=row[0], status=row[1], attempts=row[2], detail=UNSET if row[3] is None else row[3]) for row in steps
    ]
    waiting = [
        OpenStep(name=row[0], attempts=row[2], due_in=_seconds_until(row[4])) for row in steps if row[1] == "pending"
    ]
    return _order(dict(zip(_ORDER_NAMES, found[0], strict=True)), lines, done), waiting


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
    return _present(dict(zip(_LINE_NAMES, values, strict=True)))


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


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
    items = [msgspec.convert(dict(zip(_SUMMARY_NAMES, row, strict=True)), Summary) for row in shown]
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


async def open_orders(context: CallContext, limit: int) -> list[tuple[str, float]]:
    """Return orders about which something still has to be done, each with the seconds until it is due."""
    sql = (
        "select order_id, min(due_at) from order_steps where status = 'pending'"
        " group by order_id order by min(due_at), order_id limit ?"
    )
    return [(row[0], _seconds_until(row[1])) for row in await rows(context, sql, limit)]


async def claim(context: CallContext, id_: str, wanted: Sequence[OpenStep], lease_seconds: float) -> list[OpenStep]:
    """Take the right to the next attempt of steps; return those that nobody else has.

    It lapses after ``lease_seconds``: then the step is due again. ``release`` gives back what ``insert`` claimed.
    """
    sql = (
        "update order_steps set attempts = ?, due_at = ?"
        " where order_id = ? and name = ? and status = 'pending' and attempts = ? and due_at <= ?"
    )
    until, moment = after(lease_seconds), now()
    made = await batch(
        context, [(sql, (step.attempts + 1, until, id_, step.name, step.attempts, moment)) for step in wanted]
    )
    return [step for step, changed in zip(wanted, made, strict=True) if changed == 1]


async def release(context: CallContext, ids: Sequence[str]) -> None:
    """Make the steps of orders due whose first attempts were claimed when they were written, and not begun."""
    sql = "update order_steps set attempts = 0, due_at = ? where order_id = ? and status = 'pending' and attempts = 1"
    await batch(context, [(sql, (now(), id_)) for id_ in ids])


async def settle(context: CallContext, id_: str, settled: Sequence[Settled]) -> None:
    """Write down how claimed attempts went, but for those whose claim has lapsed and somebody else tries."""
    sql = (
        "update order_steps set status = ?, due_at = ?, detail = ?"
        " where order_id = ? and name = ? and status = 'pending' and attempts = ?"
    )
    values = [
        (item.status, after(item.pause or 0.0), item.detail, id_, item.step.name, item.step.attempts + 1)
        for item in settled
    ]
    await batch(context, [(sql, row) for row in values])


async def annotate(context: CallContext, id_: str, annotation: Annotation) -> None:
    """Write down what the model thinks of an order."""
    await change(
        context,
        "update orders set category = ?, urgency = ?, annotation_note = ?, annotation_model = ? where order_id = ?",
        *(annotation.category, annotation.urgency, annotation.note, annotation.model, id_),
    )


async def cancel(context: CallContext, id_: str, reason: str | None) -> None:
    """Cancel a submitted order and note that it has to be announced, in one transaction."""
    step, values = step_rows(id_, ["cancellation"])
    request = ExecuteBatchRequest(
        statements=[
            Statement(
                sql="update orders set status = 'cancelled', cancel_reason = ? where order_id = ? and status = 'submitted'",
                parameters=[reason, id_],
                expect_rows=1,
            ),
            Statement(sql=step, parameters=values),
        ]
    )
    await _call(context, "execute_batch", request)


async def reopen(context: CallContext, id_: str) -> int:
    """Make failed steps due again; return how many."""
    sql = "update order_steps set status = 'pending', attempts = 0, due_at = ? where order_id = ? and status = 'failed'"
    return await change(context, sql, now(), id_)
