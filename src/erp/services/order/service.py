"""Order intake: checked as a whole, written in one transaction, followed up until all is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erp.contracts.models.order import (
    CancelRequest,
    CancelResult,
    GetRequest,
    GetResult,
    ListRequest,
    ListResult,
    RetryRequest,
    RetryResult,
    SubmitRequest,
    SubmitResult,
)
from erp.runtime.spi import UNSET, CallContext, ErrorCode, ProviderError
from erp.services.order import store
from erp.services.order.validation import priced

if TYPE_CHECKING:
    from erp.services.order.follow_up import OrderFollowUp


class OrderService:
    """The actions of the order contract."""

    def __init__(self, follow_up: OrderFollowUp) -> None:
        self._follow_up = follow_up
        self._ready: set[str] = set()

    async def _prepare(self, context: CallContext) -> None:
        """Make the tables once per tenant and process."""
        if context.tenant not in self._ready:
            await store.create_tables(context)
            self._ready.add(context.tenant)

    async def submit(self, request: SubmitRequest, context: CallContext) -> SubmitResult:
        order = priced(request)
        await self._prepare(context)
        created = True
        try:
            id_ = await store.insert(context, request, order)
        except ProviderError as error:
            if error.code is not ErrorCode.ALREADY_EXISTS:
                raise
            id_ = store.order_id(context.tenant, request.customer_reference)
            if await store.recorded_fingerprint(context, id_) != store.fingerprint(request):
                message = f"There is another order with the customer reference {request.customer_reference!r}."
                raise ProviderError(ErrorCode.ALREADY_EXISTS, message) from None
            created = False
        self._follow_up.nudge(context.tenant, id_)
        return SubmitResult(
            order_id=id_,
            status="submitted" if created else (await store.load(context, id_)).status,
            net_total=order.net_total,
            tax_total=order.tax_total,
            total=order.total,
            currency=request.currency,
            created=created,
        )

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:
        await self._prepare(context)
        return await store.load(context, request.order_id)

    async def list(self, request: ListRequest, context: CallContext) -> ListResult:
        await self._prepare(context)
        return await store.page(context, request)

    async def cancel(self, request: CancelRequest, context: CallContext) -> CancelResult:
        await self._prepare(context)
        order = await store.load(context, request.order_id)
        cancelled = order.status == "submitted"
        if cancelled:
            try:
                await store.cancel(context, order.order_id, None if request.reason is UNSET else request.reason)
            except ProviderError as error:
                if error.code not in {ErrorCode.FAILED_PRECONDITION, ErrorCode.ALREADY_EXISTS}:
                    raise
                cancelled = False
        self._follow_up.nudge(context.tenant, order.order_id)
        return CancelResult(order_id=order.order_id, status="cancelled", cancelled=cancelled)

    async def retry(self, request: RetryRequest, context: CallContext) -> RetryResult:
        await self._prepare(context)
        order = await store.load(context, request.order_id)
        retried = await store.reopen(context, order.order_id)
        self._follow_up.nudge(context.tenant, order.order_id)
        return RetryResult(order_id=order.order_id, retried=retried)
