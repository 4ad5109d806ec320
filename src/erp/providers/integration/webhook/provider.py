"""Webhooks in both directions: deliveries to any number of endpoints, receivers for what peers send."""

from __future__ import annotations

import datetime
import time
from typing import ClassVar

import msgspec

from erp.contracts.models import integration as contract
from erp.providers.integration.webhook import deliveries, endpoints, messages, received, receivers, tables
from erp.providers.integration.webhook.checks import Checks
from erp.providers.integration.webhook.dispatcher import Dispatcher
from erp.providers.integration.webhook.incoming import Incoming
from erp.providers.integration.webhook.keys import Keys
from erp.providers.integration.webhook.outgoing import Outgoing
from erp.providers.integration.webhook.schemes import SCHEMES, Scheme
from erp.providers.integration.webhook.sender import MEANING, Sender
from erp.runtime.spi import CallContext, Config, ErrorCode, ErrorTable, Health, OpenContext, ProviderError
from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.group_commit import GroupCommit
from erp.vendor_clients.guarded_http import GuardedHttp, HttpLimits
from erp.vendor_clients.standard_webhooks import InvalidSecretError, SigningKeys

MAX_ANSWER_BYTES = 65_536
FORGET_EVERY_SECONDS = 3600.0


class Webhooks:
    """Keeps every trigger before it answers, delivers at once and then by schedule, with one id over all attempts.

    A receiver that drops ids it has seen acts once, however often a call is repeated with its idempotency key.
    """

    translate: ClassVar[ErrorTable] = MEANING

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._config = config
        self._place = f"{context.tenant}\0{context.connection}"
        self._context = context
        self._url: str | None = config.get("url")
        self._timeout_seconds = float(config.get("timeout_seconds", 15))
        self._retention_seconds = float(config.get("retention_days", 30)) * 86_400
        self._store = GroupCommit(context.data_dir / tables.FILE, tables.SCHEMA, title="webhook store")
        self._keys = Keys(context)
        self._http: GuardedHttp | None = None
        self._forget_at = 0.0

    async def open(self) -> None:
        try:
            limits = HttpLimits(total_seconds=self._timeout_seconds, max_answer_bytes=MAX_ANSWER_BYTES)
            http = GuardedHttp(EgressRule.from_environment(), limits=limits)
            signing = self._configured_signing(http)
            known = {**SCHEMES, **msgspec.convert(self._config.get("schemes", {}), dict[str, Scheme])}
        except (EgressRefusedError, InvalidSecretError, ValueError) as error:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
        await self._store.open()
        await self._store.run(
            lambda open_: endpoints.configure(
                open_, self._url, self._config.get("event_types", []), self._config.get("max_per_second"), self._now()
            )
        )
        sender = Sender(http, self._keys, signing, self._now)
        self._outgoing = Outgoing(self._store, self._keys, http, self._now)
        self._incoming = Incoming(self._store, self._keys, self._context, known, self._now)
        self._dispatcher = Dispatcher(self._store, sender, self._context.remind, self._now, self._timeout_seconds)
        self._checks = Checks(
            self._store,
            http,
            sender,
            url=self._url,
            clock=self._now,
            timeout_seconds=self._timeout_seconds,
            place=self._place,
        )
        self._http = http

    def _configured_signing(self, http: GuardedHttp) -> SigningKeys | None:
        if self._url is None:
            return None
        http.check_url(self._url)
        secrets = [self._config[name] for name in ("secret", "previous_secret") if self._config.get(name)]
        if not secrets:
            message = "The configured url needs a secret: messages to it are signed. Configure secret beside url."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return SigningKeys(secrets)

    def _now(self) -> float:
        return tables.exact(time.time())

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()
        await self._store.close()

    def _require_open(self) -> None:
        if self._http is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The provider is not open.", retry_after_seconds=1.0)

    async def health(self) -> Health:
        self._require_open()
        return await self._checks.health()

    async def test(self, request: contract.TestRequest, context: CallContext) -> contract.TestResult:  # noqa: ARG002
        self._require_open()
        return await self._checks.test(context)

    async def work(self, context: CallContext) -> datetime.datetime | None:
        self._require_open()
        await self._forget()
        return await self._dispatcher.work(context)

    async def _forget(self) -> None:
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_EVERY_SECONDS
            before = self._now() - self._retention_seconds
            await self._store.run(lambda open_: tables.forget(open_, before))

    # -- outgoing --------------------------------------------------------------------------------

    async def trigger(self, request: contract.TriggerRequest, context: CallContext) -> contract.TriggerResult:
        self._require_open()
        await self._forget()
        new = messages.new_message(request, self._place, context, self._now())
        planned, settled = await self._dispatcher.deliver(new, context)
        return messages.result_of(new.id, planned, settled)

    async def describe(self, request: contract.DescribeRequest, context: CallContext) -> contract.DescribeResult:  # noqa: ARG002
        self._require_open()
        rows = await self._store.run(lambda open_: endpoints.enabled(open_, endpoints.MAX_ENDPOINTS))
        filters = [tables.names(row["event_types"]) for row in rows]
        names = {name for types in filters for name in types}
        return messages.names_page(names, request, any_trigger=any(not types for types in filters))

    async def create_endpoint(
        self,
        request: contract.CreateEndpointRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.CreateEndpointResult:
        self._require_open()
        return await self._outgoing.create(request)

    async def list_endpoints(
        self,
        request: contract.ListEndpointsRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.ListEndpointsResult:
        after = tables.after(request.cursor)
        return await self._store.run(lambda open_: endpoints.page(open_, after, request.limit, self._now()))

    async def update_endpoint(
        self, request: contract.UpdateEndpointRequest, context: CallContext
    ) -> contract.UpdateEndpointResult:
        self._require_open()
        return contract.UpdateEndpointResult(endpoint=await self._outgoing.update(request, context))

    async def rotate_endpoint_secret(
        self,
        request: contract.RotateEndpointSecretRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.RotateEndpointSecretResult:
        self._require_open()
        return await self._outgoing.rotate(request)

    async def delete_endpoint(
        self,
        request: contract.DeleteEndpointRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.DeleteEndpointResult:
        self._require_open()
        return contract.DeleteEndpointResult(deleted=await self._outgoing.delete(request.id))

    async def list_deliveries(
        self,
        request: contract.ListDeliveriesRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.ListDeliveriesResult:
        return await self._store.run(lambda open_: deliveries.page(open_, request))

    async def get_delivery(
        self,
        request: contract.GetDeliveryRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.GetDeliveryResult:
        return await self._store.run(lambda open_: deliveries.details(open_, request.id, request.endpoint))

    async def resend_delivery(
        self, request: contract.ResendDeliveryRequest, context: CallContext
    ) -> contract.ResendDeliveryResult:
        self._require_open()
        settled = await self._dispatcher.resend(request.id, request.endpoint, context)
        return contract.ResendDeliveryResult(attempt=settled.attempt)

    async def replay_deliveries(
        self,
        request: contract.ReplayDeliveriesRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.ReplayDeliveriesResult:
        self._require_open()
        now = self._now()
        scheduled = await self._store.run(lambda open_: deliveries.replay(open_, request, now))
        if scheduled:
            await self._dispatcher.plan_work(now)
        return contract.ReplayDeliveriesResult(scheduled=scheduled)

    # -- incoming --------------------------------------------------------------------------------

    async def create_receiver(
        self,
        request: contract.CreateReceiverRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.CreateReceiverResult:
        self._require_open()
        return await self._incoming.create(request)

    async def list_receivers(
        self,
        request: contract.ListReceiversRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.ListReceiversResult:
        after = tables.after(request.cursor)
        return await self._store.run(lambda open_: receivers.page(open_, after, request.limit, self._now()))

    async def update_receiver(
        self,
        request: contract.UpdateReceiverRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.UpdateReceiverResult:
        self._require_open()
        return contract.UpdateReceiverResult(receiver=await self._incoming.update(request))

    async def delete_receiver(
        self,
        request: contract.DeleteReceiverRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.DeleteReceiverResult:
        self._require_open()
        return contract.DeleteReceiverResult(deleted=await self._incoming.delete(request.id))

    async def receive(self, request: contract.ReceiveRequest, context: CallContext) -> contract.ReceiveResult:
        self._require_open()
        return await self._incoming.receive(request, context)

    async def list_received(
        self,
        request: contract.ListReceivedRequest,
        context: CallContext,  # noqa: ARG002
    ) -> contract.ListReceivedResult:
        return await self._store.run(lambda open_: received.page(open_, request))

    async def replay_received(
        self, request: contract.ReplayReceivedRequest, context: CallContext
    ) -> contract.ReplayReceivedResult:
        self._require_open()
        return contract.ReplayReceivedResult(published=await self._incoming.replay(request, context))
