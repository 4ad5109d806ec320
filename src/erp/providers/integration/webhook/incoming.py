"""Receiving: verify, record once, announce."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from erp.contracts.models.integration import (
    CreateReceiverRequest,
    CreateReceiverResult,
    ReceivedMessage,
    Receiver,
    ReceiveRequest,
    ReceiveResult,
    ReplayReceivedRequest,
    UpdateReceiverRequest,
)
from erp.providers.integration.webhook import received, receivers, schemes, tables
from erp.providers.integration.webhook.keys import Keys
from erp.providers.integration.webhook.receivers import Change, NewReceiver, Place
from erp.providers.integration.webhook.schemes import Facts, RefusedError, Scheme
from erp.runtime.spi import CallContext, ErrorCode, OpenContext, ProviderError
from erp.vendor_clients.group_commit import GroupCommit
from erp.vendor_clients.standard_webhooks import InvalidSecretError


class Incoming:
    """The receivers of one connection."""

    def __init__(
        self,
        store: GroupCommit,
        keys: Keys,
        context: OpenContext,
        known: Mapping[str, Scheme],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``known``: the schemes by name."""
        self._store = store
        self._keys = keys
        self._links = context.links
        self._known = known
        self._clock = clock

    def _path(self, claim: str) -> str:
        return self._links.make("webhooks", {"receiver": claim})

    async def create(self, request: CreateReceiverRequest) -> CreateReceiverResult:
        """Open a receiver with a secret of its own, where its scheme has one."""
        scheme = self._scheme(request.scheme)
        await self._store.run(lambda open_: receivers.check_name(open_, request.name))
        secret = schemes.new_secret(scheme) if request.secret is UNSET else _usable(scheme, request.secret)
        id_ = f"rcv_{uuid.uuid4().hex}"
        version = None if secret is None else await self._keys.add("receivers", id_, secret)
        new = NewReceiver(id_, request.name, request.scheme, self._path(receivers.claim_of(id_, 1)), version)
        made = await self._store.run(lambda open_: receivers.add(open_, new, self._clock()))
        return CreateReceiverResult(receiver=made, secret=UNSET if secret is None else secret)

    def _scheme(self, name: str) -> Scheme:
        scheme = self._known.get(name)
        if scheme is None:
            message = f"There is no scheme {name!r}. Use one of {', '.join(sorted(self._known))}, or configure it."
            raise tables.invalid("/params/scheme", message)
        return scheme

    async def update(self, request: UpdateReceiverRequest) -> Receiver:
        """Change a receiver; a previous secret counts until its time is over."""
        now = self._clock()
        row = await self._store.run(lambda open_: receivers.row_of(open_, request.id))
        version = None
        if request.secret is not UNSET:
            secret = _usable(self._scheme(row["scheme"]), request.secret)
            version = await self._keys.add("receivers", request.id, secret)
        wanted = Change(
            enabled=None if request.enabled is UNSET else request.enabled,
            new_path=self._path if request.new_path else None,
            secret_version=version,
            previous_until=now + request.grace_seconds,
        )
        return await self._store.run(lambda open_: receivers.change(open_, request.id, wanted, now))

    async def delete(self, id_: str) -> bool:
        """Close a receiver."""
        was_there = await self._store.run(lambda open_: receivers.remove(open_, id_))
        await self._keys.destroy("receivers", id_)
        return was_there

    async def receive(self, request: ReceiveRequest, context: CallContext) -> ReceiveResult:
        """Verify a request and announce its message, once however often it comes."""
        now = self._clock()
        place = await self._store.run(lambda open_: receivers.place_of(open_, request.receiver, now))
        facts = await self._verified(place, request, now)
        payload = received.payload_of(request)
        is_new, message = await self._store.run(lambda open_: received.record(open_, place, facts, payload, now))
        if message is not None:
            _announce(context, place.id, message, f"{place.id}:{message.id}")
        return ReceiveResult(messages=[message] if is_new and message is not None else [], reply_status=204)

    async def _verified(self, place: Place, request: ReceiveRequest, now: float) -> Facts:
        try:
            scheme = self._known.get(place.scheme)
            if scheme is None:
                raise RefusedError(f"The scheme {place.scheme} is no longer configured.")  # noqa: TRY301
            secrets = await self._keys.all("receivers", place.id, place.versions)
            return schemes.read(scheme, secrets, request.headers, request.body or request.query.encode(), now)
        except RefusedError as refusal:
            reason, id_ = str(refusal), f"ref_{uuid.uuid4().hex}"
            await self._store.run(lambda open_: received.refuse(open_, place.seq, reason, id_, now))
            raise ProviderError(ErrorCode.UNAUTHENTICATED, reason) from refusal

    async def replay(self, request: ReplayReceivedRequest, context: CallContext) -> int:
        """Announce the messages of a period again; a repeated call with its key announces them once."""
        now = self._clock()
        found = await self._store.run(lambda open_: received.of_period(open_, request, now))
        replay = context.idempotency_key or context.request_id
        for message in found:
            _announce(context, request.receiver, message, f"{request.receiver}:{message.id}:{replay}")
        return len(found)


def _announce(context: CallContext, receiver: str, message: ReceivedMessage, id_: str) -> None:
    data: dict[str, Any] = {"receiver": receiver, "message": msgspec.to_builtins(message)}
    context.emit("received", data, id=id_)


def _usable(scheme: Scheme, secret: str) -> str:
    try:
        schemes.check_secret(scheme, secret)
    except InvalidSecretError as error:
        raise tables.invalid("/params/secret", str(error)) from error
    return secret
