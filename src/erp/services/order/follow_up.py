"""What follows an order: event, integration, annotation, each tried until it is done.

The steps stand in the tenant's database, written in the transaction of the order itself, so that none
is lost with a process. Each is safe to repeat: events carry a fixed id, the integration an idempotency
key, and an annotation only overwrites itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from erp.contracts.models.integration import TriggerRequest, TriggerResult
from erp.contracts.models.order import GetResult, Step
from erp.runtime.spi import UNSET, CallContext, ErrorCode, ProviderError
from erp.services.order import store
from erp.services.order.annotation import annotation

ContextFor = Callable[[str], CallContext]
Tenants = Callable[[], Awaitable[list[str]]]
Key = tuple[str, str]

AT_ONCE = 8
MAX_ATTEMPTS = 8
BASE_SECONDS, CAP_SECONDS = 1.0, 60.0
SWEEP_SECONDS = 30.0
SWEPT_ORDERS = 1000

_log = logging.getLogger(__name__)
_jitter = random.SystemRandom()


class OrderFollowUp:
    """Works on open orders in the background: at once when nudged, and by sweeps of the tenants' databases."""

    def __init__(self, *, context_for: ContextFor, tenants: Tenants, sweep_seconds: float = SWEEP_SECONDS) -> None:
        self._context_for = context_for
        self._tenants = tenants
        self._sweep_seconds = sweep_seconds
        self._due: dict[Key, float] = {}
        self._working: dict[Key, asyncio.Task[None]] = {}
        self._sweeps: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_stopped = False

    def nudge(self, tenant: str, order_id: str) -> None:
        """Look at an order now."""
        self._due[tenant, order_id] = time.monotonic()
        self._wake.set()

    async def run(self) -> None:
        """Work until ``stop``."""
        self._sweeps = asyncio.create_task(self._sweep_now_and_then(), name="order sweeps")
        while not self._is_stopped:
            self._wake.clear()
            self._start_due()
            try:
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Let running steps end, start no more."""
        self._is_stopped = True
        self._wake.set()
        if self._sweeps is not None:
            self._sweeps.cancel()
            await asyncio.gather(self._sweeps, return_exceptions=True)
        await asyncio.gather(*self._working.values(), return_exceptions=True)

    def _start_due(self) -> None:
        now = time.monotonic()
        ready = [key for key, due in self._due.items() if due <= now and key not in self._working]
        for key in ready[: AT_ONCE - len(self._working)]:
            del self._due[key]
            task = asyncio.create_task(self._work(*key), name=f"order {key[1]}")
            self._working[key] = task
            task.add_done_callback(lambda _, key=key: self._ended(key))  # type: ignore[misc]

    def _ended(self, key: Key) -> None:
        del self._working[key]
        self._wake.set()

    def _pause(self) -> float | None:
        waiting = [due for key, due in self._due.items() if key not in self._working]
        if not waiting or len(self._working) >= AT_ONCE:
            return None
        return max(min(waiting) - time.monotonic(), 0.0)

    async def _sweep_now_and_then(self) -> None:
        while True:
            for tenant in await self._tenants_or_none():
                try:
                    await self._sweep(tenant)
                except ProviderError as error:
                    _log.warning("open orders of %s cannot be read: %s", tenant, error.message)
            await asyncio.sleep(self._sweep_seconds)

    async def _tenants_or_none(self) -> list[str]:
        try:
            return await self._tenants()
        except ProviderError as error:
            _log.warning("tenants cannot be listed: %s", error.message)
            return []

    async def _sweep(self, tenant: str) -> None:
        context = self._context_for(tenant)
        await store.create_tables(context)
        for order_id in await store.open_orders(context, SWEPT_ORDERS):
            self._due.setdefault((tenant, order_id), time.monotonic())
        self._wake.set()

    async def _work(self, tenant: str, order_id: str) -> None:
        """Take the open steps of an order one after the other; come back later for what did not work."""
        again: float | None = None
        try:
            order = await store.load(self._context_for(tenant), order_id)
            for step in order.steps:
                if step.status == "pending":
                    pause = await self._take(self._context_for(tenant), order, step)
                    again = pause if again is None or (pause is not None and pause < again) else again
        except ProviderError as error:
            _log.warning("order %s of %s cannot be followed up now: %s", order_id, tenant, error.message)
            again = _pause_after(1)
        except Exception:  # noqa: BLE001  (one broken order must not stop the others)
            _log.exception("order %s of %s cannot be followed up", order_id, tenant)
            again = CAP_SECONDS
        if again is not None:
            self._due.setdefault((tenant, order_id), time.monotonic() + again)

    async def _take(self, context: CallContext, order: GetResult, step: Step) -> float | None:
        """Try one step and write down how it went; return the seconds until it should be tried again."""
        attempts = step.attempts + 1
        pause: float | None = None
        try:
            status, detail = await _STEPS[step.name](context, order)
        except ProviderError as error:
            detail = f"{error.code.value}: {error.message}"
            if error.code is ErrorCode.UNSUPPORTED:
                status = "skipped"
            elif attempts >= MAX_ATTEMPTS or not _may_help(error):
                status = "failed"
            else:
                status, pause = "pending", _pause_after(attempts, error.retry_after_seconds)
        due = store.after(pause or 0)
        await store.settle(context, order.order_id, step.name, status, attempts, due=due, detail=detail)
        return pause


def _may_help(error: ProviderError) -> bool:
    """Whether trying again can help: the steps are safe to repeat, so an unknown outcome may be repeated too."""
    return error.retryable or error.code in {ErrorCode.OUTCOME_UNKNOWN, ErrorCode.INTERNAL}


def _pause_after(attempts: int, asked_seconds: float | None = None) -> float:
    ceiling = min(CAP_SECONDS, BASE_SECONDS * 2 ** (attempts - 1))
    return max(_jitter.uniform(0, ceiling), asked_seconds or 0.0)


async def _announce(context: CallContext, order: GetResult) -> tuple[str, str]:
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


async def _integrate(context: CallContext, order: GetResult) -> tuple[str, str]:
    request = TriggerRequest(name="order.submitted", payload=_payload(order))
    key = f"order:{order.order_id}:integration"
    result: TriggerResult = await context.invoke("integration", "trigger", request, idempotency_key=key)
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


async def _annotate(context: CallContext, order: GetResult) -> tuple[str, str]:
    made = await annotation(context, order)
    await store.annotate(context, order.order_id, made)
    return "done", f"{made.category}, {made.urgency} ({made.model})"


async def _announce_cancellation(context: CallContext, order: GetResult) -> tuple[str, str]:
    data = {"order_id": order.order_id}
    if order.cancel_reason is not UNSET:
        data["reason"] = order.cancel_reason
    await context.publish("cancelled", data, key=order.order_id, id=f"order.cancelled:{order.order_id}")
    return "done", "order.cancelled"


_STEPS: dict[str, Callable[[CallContext, GetResult], Awaitable[tuple[str, str]]]] = {
    "event": _announce,
    "integration": _integrate,
    "annotation": _annotate,
    "cancellation": _announce_cancellation,
}
