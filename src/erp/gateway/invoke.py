"""``POST /providers/{domain}/{name}/{action}`` and ``POST /services/{service}/{action}``.

The path every call takes, so it is raw ASGI: no routing table, no request object, one pass over the
headers, one JSON decode straight into the action's type.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.gateway import accepted, answers, bodies, streams
from erp.gateway.endpoint import shutting_down, unforeseen
from erp.gateway.inbound import Inbound
from erp.runtime.call import Call

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from erp.gateway.credentials import Credentials
    from erp.runtime.action import Action, Area
    from erp.runtime.call import Answer
    from erp.runtime.calls import Calls
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.operations import OperationRunner

DEFAULT_CONNECTION = "default"

_log = logging.getLogger(__name__)


class InvokeRoute:
    """Turns one HTTP request into one call and its answer into one response."""

    def __init__(
        self, calls: Calls, catalog: ProviderCatalog, credentials: Credentials, operations: OperationRunner
    ) -> None:
        self._calls = calls
        self._operations = operations
        self._catalog = catalog
        self._credentials = credentials

    async def __call__(self, scope: Scope, receive: Receive, send: Send, segments: list[str]) -> None:
        """Serve the request whose path has been split into ``segments``."""
        started = time.perf_counter()
        inbound = Inbound(scope["headers"])
        call: Call | None = None
        try:
            inbound.check()
            call = await self._call(inbound, scope, receive, segments)
            if inbound.prefer is not None and inbound.respond_async:
                await accepted.send(scope, send, inbound, self._operations, call)
                return
            if call.action.streaming:
                await streams.serve(self._calls, call, inbound, receive, send)
                return
            answer = await self._calls.invoke(call)
        except ProviderError as error:
            await answers.send_problem(scope, send, inbound, error, call.action.deprecation_headers if call else ())
            return
        except asyncio.CancelledError:
            if call is None or not call.action.streaming:
                await answers.send_problem(scope, send, inbound, _cut_off(call))
            raise
        except Exception:  # noqa: BLE001  (whatever it was, the caller gets a problem)
            _log.exception("request %s failed before it became a call", inbound.request_id)
            await answers.send_problem(scope, send, inbound, unforeseen())
            return
        await self._send(scope, send, inbound, call, answer, started)

    async def _call(self, inbound: Inbound, scope: Scope, receive: Receive, segments: list[str]) -> Call:
        actor = await self._credentials.actor(inbound, scope)
        action, provider = self._target(segments)
        return Call(
            action=action,
            actor=actor,
            provider=provider,
            connection=inbound.connection or DEFAULT_CONNECTION,
            body=await bodies.read_json(inbound, receive),
            request_id=inbound.request_id,
            traceparent=inbound.traceparent,
            parent=inbound.parent,
            idempotency_key=inbound.idempotency_key,
            timeout_seconds=inbound.wait_seconds,
            user=inbound.user,
        )

    def _target(self, segments: list[str]) -> tuple[Action, str]:
        area: Area = "services" if segments[0] == "services" else "providers"
        if area == "services":
            action = self._catalog.action(area, segments[1], segments[2])
            return self._public(action), segments[1]
        if "-" not in segments[2]:  # else it is a route, and only the tenant knows
            self._catalog.provider(segments[1], segments[2])
        return self._public(self._catalog.action(area, segments[1], segments[3])), segments[2]

    def _public(self, action: Action) -> Action:
        if action.internal:
            message = f"{action.ref} can be used by the layer itself only, never through the gateway."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        return action

    async def _send(
        self, scope: Scope, send: Send, inbound: Inbound, call: Call, answer: Answer, started: float
    ) -> None:
        seconds = time.perf_counter() - started
        # Providers that a service calls at the same time add up to more than the whole.
        provider_ms = min(answer.provider_seconds, seconds) * 1000
        headers = answers.common_headers(inbound)
        headers.append(
            (
                b"server-timing",
                b"layer;dur=%.3f, provider;dur=%.3f" % (seconds * 1000 - provider_ms, provider_ms),
            )
        )
        bucket = self._calls.known_bucket(call.tenant)
        if bucket is not None:
            rate = call.actor.rate
            of_key = None if rate is None else self._calls.key_bucket(call.actor, rate)
            headers += answers.rate_headers(bucket, of_key)
        headers += call.action.deprecation_headers
        meta = (
            f'"meta":{{"request_id":"{inbound.request_id}","provider":"{answer.provider}",'
            f'"connection":"{answer.connection}","duration_ms":{seconds * 1000:.3f}'
        )
        tail = b',"replayed":true}}' if answer.replayed else b"}}"
        body = b'{"data":' + answer.data + b"," + meta.encode() + tail
        await answers.send(scope, send, 200, body, answers.JSON, headers)


def _cut_off(call: Call | None) -> ProviderError:
    """Describe a request that the server cancelled because its time to drain was over."""
    if call is not None and call.action.is_effectful and not call.action.idempotent:
        message = f"The layer is shutting down in the middle of {call.action.ref}, which may have taken effect."
        return ProviderError(ErrorCode.OUTCOME_UNKNOWN, message)
    return shutting_down()
