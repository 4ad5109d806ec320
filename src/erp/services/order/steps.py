"""The steps that follow an order. Each is safe to repeat: a fixed event id, an idempotency key, or a plain overwrite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from erp.contracts.models.integration import TriggerRequest, TriggerResult
from erp.contracts.models.order import GetResult
from erp.runtime.spi import UNSET, CallContext, ErrorCode, ProviderError
from erp.services.order import store
from erp.services.order.annotation import annotation

Outcome = tuple[str, str]
"""Status of the step from now on, and what came of it."""

_NOT_FOR_CANCELLED = frozenset({"integration", "annotation"})


async def taken(name: str, context: CallContext, order: GetResult) -> Outcome:
    """Take a step of an order.

    Raises:
        ProviderError: it did not work.
    """
    if order.status == "cancelled" and name in _NOT_FOR_CANCELLED:
        return "skipped", "The order was cancelled before."
    try:
        return await _STEPS[name](context, order)
    except ProviderError as error:
        if error.code is ErrorCode.UNSUPPORTED:
            return "skipped", error.message
        raise


async def _announce(context: CallContext, order: GetResult) -> Outcome:
    data = {
        "order_id": order.order_id,
        "customer_reference": order.customer_reference,
        "customer_id": order.customer.id,
        "total": str(order.total),
        "currency": order.currency,
        "order_date": order.order_date.isoformat(),
        "lines": len(order.lines),
    }
    await context.publish("submitted", data, key=order.order_id, id=f"order.submitted:{order.order_id}")
    return "done", "order.submitted"


async def _integrate(context: CallContext, order: GetResult) -> Outcome:
    request = TriggerRequest(name="order.submitted", payload=_payload(order))
    key = f"order:{order.order_id}:integration"
    result: TriggerResult = await context.invoke("integration", "trigger", request, idempotency_key=key)
    if result.status == "failed":
        # The key is used up: repeating the call would only repeat this answer.
        return "failed", "The peer failed." if result.problem is UNSET else result.problem.message
    return ("skipped" if result.status == "skipped" else "done"), result.id


def _payload(order: GetResult) -> dict[str, object]:
    return {
        "order_id": order.order_id,
        "customer_reference": order.customer_reference,
        "customer_id": order.customer.id,
        "currency": order.currency,
        "total": str(order.total),
        "order_date": order.order_date.isoformat(),
        "lines": [
            {"sku": line.sku, "quantity": str(line.quantity), "net": str(line.net), "tax": str(line.tax)}
            for line in order.lines
        ],
    }


async def _annotate(context: CallContext, order: GetResult) -> Outcome:
    made = await annotation(context, order)
    await store.annotate(context, order.order_id, made)
    data = {"order_id": order.order_id, "category": made.category, "urgency": made.urgency, "model": made.model}
    await context.publish("annotated", data, key=order.order_id, id=f"order.annotated:{order.order_id}")
    return "done", f"{made.category}, {made.urgency} ({made.model})"


async def _announce_cancellation(context: CallContext, order: GetResult) -> Outcome:
    data = {"order_id": order.order_id}
    if order.cancel_reason is not UNSET:
        data["reason"] = order.cancel_reason
    await context.publish("cancelled", data, key=order.order_id, id=f"order.cancelled:{order.order_id}")
    return "done", "order.cancelled"


_STEPS: dict[str, Callable[[CallContext, GetResult], Awaitable[Outcome]]] = {
    "event": _announce,
    "integration": _integrate,
    "annotation": _annotate,
    "cancellation": _announce_cancellation,
}
