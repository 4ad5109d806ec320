"""Order intake: checked as a whole, written in one transaction, followed up until all is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from erp.contracts.models.order import (
    CancelRequest,
    CancelResult,
    GetRequest,
    GetResult,
    ListRequest,
    ListResult,
    RetryRequest,
    RetryResult,
    SubmitDocumentRequest,
    SubmitDocumentResult,
    SubmitRequest,
    SubmitResult,
)
from erp.runtime.spi import UNSET, CallContext, ErrorCode, FieldError, ProviderError
from erp.services.order import store, ubl, written
from erp.services.order.validation import PricedOrder, priced

if TYPE_CHECKING:
    from erp.services.order.follow_up import OrderFollowUp

T = TypeVar("T")


class OrderService:
    """The actions of the order contract."""

    def __init__(self, follow_up: OrderFollowUp) -> None:
        self._follow_up = follow_up
        self._ready: set[str] = set()

    async def submit(self, request: SubmitRequest, context: CallContext) -> SubmitResult:
        return await self._take_in(request, priced(request), context)

    async def submit_document(self, request: SubmitDocumentRequest, context: CallContext) -> SubmitDocumentResult:
        order, as_priced = await ubl.read(request.document)
        taken = await self._take_in(order, as_priced, context)
        return SubmitDocumentResult(
            order_id=taken.order_id,
            customer_reference=order.customer_reference,
            status=taken.status,
            net_total=taken.net_total,
            tax_total=taken.tax_total,
            total=taken.total,
            currency=taken.currency,
            created=taken.created,
        )

    async def _take_in(self, request: SubmitRequest, order: PricedOrder, context: CallContext) -> SubmitResult:
        lease_seconds = self._follow_up.lease_seconds
        async with self._follow_up.watch.over(context.tenant):
            recorded = await self._with_tables(context, lambda: _record(context, request, order, lease_seconds))
        id_ = written.order_id(context.tenant, request.customer_reference)
        created = recorded is not None
        status = "submitted" if created else (await store.load(context, id_)).status
        if recorded is not None and lease_seconds:
            self._follow_up.begin(context.tenant, recorded)
        else:
            self._follow_up.nudge(context.tenant, id_)
        return SubmitResult(
            order_id=id_,
            status=status,
            net_total=order.net_total,
            tax_total=order.tax_total,
            total=order.total,
            currency=request.currency,
            created=created,
        )

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:
        return await self._with_tables(context, lambda: store.load(context, request.order_id))

    async def list(self, request: ListRequest, context: CallContext) -> ListResult:
        return await self._with_tables(context, lambda: store.page(context, request))

    async def cancel(self, request: CancelRequest, context: CallContext) -> CancelResult:
        order = await self._with_tables(context, lambda: store.load(context, request.order_id))
        async with self._follow_up.watch.over(context.tenant):
            cancelled = order.status == "submitted" and await _cancel(context, request)
        self._follow_up.nudge(context.tenant, order.order_id)
        return CancelResult(order_id=order.order_id, status="cancelled", cancelled=cancelled)

    async def retry(self, request: RetryRequest, context: CallContext) -> RetryResult:
        order = await self._with_tables(context, lambda: store.load(context, request.order_id))
        async with self._follow_up.watch.over(context.tenant):
            retried = await store.reopen(context, order.order_id)
        self._follow_up.nudge(context.tenant, order.order_id)
        return RetryResult(order_id=order.order_id, retried=retried)

    async def _with_tables(self, context: CallContext, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work`` on tables that are there: the tenant may have chosen another database since they were made."""
        was_ready = context.tenant in self._ready
        if not was_ready:
            await self._make_tables(context)
        try:
            return await work()
        except store.StatementRefusedError:
            if not was_ready:
                raise
        await self._make_tables(context)
        return await work()

    async def _make_tables(self, context: CallContext) -> None:
        """Make them; have a look into the database too, which may have come back with open orders."""
        self._ready.discard(context.tenant)
        async with self._follow_up.watch.over(context.tenant):
            await store.create_tables(context)
        self._ready.add(context.tenant)


async def _record(
    context: CallContext, request: SubmitRequest, order: PricedOrder, lease_seconds: float
) -> GetResult | None:
    """Write an order and return it; return None when this very order stands there already."""
    try:
        return await store.insert(context, request, order, lease_seconds=lease_seconds)
    except ProviderError as error:
        if error.code not in {ErrorCode.ALREADY_EXISTS, ErrorCode.OUTCOME_UNKNOWN}:
            raise
        id_ = written.order_id(context.tenant, request.customer_reference)
        recorded = await store.recorded_fingerprint(context, id_)
        if recorded is None and error.code is ErrorCode.OUTCOME_UNKNOWN:
            raise
        if recorded != written.fingerprint(request, order):
            raise _taken(request.customer_reference) from None
        return await store.load(context, id_) if error.code is ErrorCode.OUTCOME_UNKNOWN else None


def _taken(reference: str) -> ProviderError:
    problem = FieldError("/params/customer_reference", "belongs to another order")
    message = f"There is another order with the customer reference {reference!r}."
    return ProviderError(ErrorCode.ALREADY_EXISTS, message, errors=[problem])


async def _cancel(context: CallContext, request: CancelRequest) -> bool:
    """Cancel a submitted order; return False when somebody else just did."""
    try:
        await store.cancel(context, request.order_id, None if request.reason is UNSET else request.reason)
    except ProviderError as error:
        if error.code not in {ErrorCode.FAILED_PRECONDITION, ErrorCode.ALREADY_EXISTS}:
            raise
        if (await store.load(context, request.order_id)).status != "cancelled":
            raise
        return False
    return True
