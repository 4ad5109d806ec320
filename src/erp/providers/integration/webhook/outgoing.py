"""Endpoints with their secrets: tables and vault changed together."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import msgspec
from msgspec import UNSET

from erp.contracts.models.integration import (
    CreateEndpointRequest,
    CreateEndpointResult,
    Endpoint,
    RotateEndpointSecretRequest,
    RotateEndpointSecretResult,
    UpdateEndpointRequest,
)
from erp.providers.integration.webhook import endpoints, tables
from erp.providers.integration.webhook.keys import Keys
from erp.runtime.spi import CallContext, ErrorCode, FieldError, ProviderError
from erp.vendor_clients.egress import EgressRefusedError
from erp.vendor_clients.group_commit import GroupCommit
from erp.vendor_clients.guarded_http import GuardedHttp
from erp.vendor_clients.standard_webhooks import InvalidSecretError, SigningKeys, generate_secret


class Outgoing:
    """The endpoints of one connection."""

    def __init__(self, store: GroupCommit, keys: Keys, http: GuardedHttp, clock: Callable[[], float]) -> None:
        self._store = store
        self._keys = keys
        self._http = http
        self._clock = clock

    async def create(self, request: CreateEndpointRequest) -> CreateEndpointResult:
        """Keep a further endpoint."""
        self._check_address(request.url)
        secret = _usable(request.secret)
        await self._store.run(endpoints.check_room)
        id_ = f"ep_{uuid.uuid4().hex}"
        version = await self._keys.add("endpoints", id_, secret)
        made = await self._store.run(lambda open_: endpoints.add(open_, id_, request, version, self._clock()))
        return CreateEndpointResult(endpoint=made, secret=secret)

    async def update(self, request: UpdateEndpointRequest, context: CallContext) -> Endpoint:
        """Change an endpoint."""
        if request.url is not UNSET:
            self._check_address(request.url)
        endpoint, is_disabled = await self._store.run(lambda open_: endpoints.change(open_, request, self._clock()))
        if is_disabled:
            context.emit("endpoint_disabled", {"endpoint": msgspec.to_builtins(endpoint), "reason": "requested"})
        return endpoint

    async def rotate(self, request: RotateEndpointSecretRequest) -> RotateEndpointSecretResult:
        """Give an endpoint a new secret."""
        await self._store.run(lambda open_: endpoints.row_of(open_, request.id))
        endpoints.refuse_configured(request.id)
        secret = _usable(request.secret)
        version = await self._keys.add("endpoints", request.id, secret)
        now = self._clock()
        until = now + request.grace_seconds
        made = await self._store.run(lambda open_: endpoints.rotate(open_, request.id, version, until, now))
        return RotateEndpointSecretResult(endpoint=made, secret=secret)

    async def delete(self, id_: str) -> bool:
        """Forget an endpoint and its secrets."""
        endpoints.refuse_configured(id_)
        was_there = await self._store.run(lambda open_: endpoints.remove(open_, id_))
        await self._keys.destroy("endpoints", id_)
        return was_there

    def _check_address(self, url: str) -> None:
        try:
            self._http.check_url(url)
        except EgressRefusedError as error:
            problem = FieldError("/params/url", str(error))
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error), errors=[problem]) from error


def _usable(secret: str | msgspec.UnsetType) -> str:
    if isinstance(secret, msgspec.UnsetType):
        return generate_secret()
    try:
        SigningKeys([secret])
    except InvalidSecretError as error:
        raise tables.invalid("/params/secret", str(error)) from error
    return secret
