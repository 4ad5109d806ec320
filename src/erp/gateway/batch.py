"""``POST /providers/batch``: several calls in one request, each through the whole pipeline."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, Problem, ProviderError
from erp.gateway import answers
from erp.runtime.call import Call

if TYPE_CHECKING:
    from erp.gateway.endpoint import Visit
    from erp.runtime.calls import Calls
    from erp.runtime.catalog import ProviderCatalog

AT_ONCE = 8

_encode = msgspec.json.Encoder(decimal_format="string").encode


class Batch:
    """Runs a bounded number of calls; what becomes of one does not concern the others unless the caller says so."""

    def __init__(self, calls: Calls, catalog: ProviderCatalog) -> None:
        self._calls = calls
        self._catalog = catalog

    async def run(self, visit: Visit) -> tuple[int, Any]:
        """Answer with one entry for each item, in their order: its result, its problem, or that it was left out."""
        body = await visit.body("runBatch")
        calls = self._prepared(visit, body["items"])
        started = time.perf_counter()
        if body.get("stop_on_error", False):
            entries = await self._in_order(calls)
        else:
            places = asyncio.Semaphore(AT_ONCE)
            entries = list(await asyncio.gather(*(self._entry(call, places) for call in calls)))
        duration = f"{(time.perf_counter() - started) * 1000:.3f}"
        text = b'{"items":[%b],"duration_ms":%b}' % (b",".join(entries), duration.encode())
        return 200, Response(text, headers=_headers(visit), media_type="application/json")

    def _prepared(self, visit: Visit, items: list[dict[str, Any]]) -> list[Call]:
        """Make the calls, or refuse the whole batch with everything that is wrong with it."""
        calls, errors = [], []
        for number, item in enumerate(items):
            try:
                calls.append(self._call(visit, number, item))
            except ProviderError as error:
                errors.append(FieldError(f"/items/{number}/target", error.message))
        if errors:
            message = f"The batch has {len(errors)} error{'s' * (len(errors) > 1)}; nothing was run."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=errors)
        return calls

    def _call(self, visit: Visit, number: int, item: dict[str, Any]) -> Call:
        domain, name, action_name = item["target"].split("/")
        if "-" not in name:  # else it is a route, and only the tenant knows
            self._catalog.provider(domain, name)
        action = self._catalog.action("providers", domain, action_name)
        if action.streaming or action.internal:
            why = "is a stream" if action.streaming else "can be used by the layer itself only"
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, f"{action.ref} {why}; leave it out of the batch.")
        inbound = visit.inbound
        key = item.get("idempotency_key")
        if key is None and inbound.idempotency_key is not None:
            key = f"{inbound.idempotency_key}:{number}"
        wait = inbound.wait_seconds
        metadata = {"metadata": item["metadata"]} if "metadata" in item else {}
        return Call(
            action=action,
            actor=visit.actor,
            provider=name,
            connection=item.get("connection", inbound.connection or "default"),
            body=_encode({"params": item.get("params", {}), **metadata}),
            request_id=f"{inbound.request_id}.{number}",
            traceparent=inbound.traceparent,
            parent=inbound.parent,
            idempotency_key=key,
            timeout_seconds=wait,
            deadline=math.inf if wait is None else time.monotonic() + wait,
            user=inbound.user,
        )

    async def _in_order(self, calls: list[Call]) -> list[bytes]:
        one = asyncio.Semaphore(1)
        entries: list[bytes] = []
        for number, call in enumerate(calls):
            entries.append(await self._entry(call, one))
            if not entries[-1].startswith(_SUCCEEDED):
                entries += [b'{"outcome":"skipped"}'] * (len(calls) - number - 1)
                break
        return entries

    async def _entry(self, call: Call, places: asyncio.Semaphore) -> bytes:
        async with places:
            started = time.perf_counter()
            if call.timeout_seconds is not None:
                call.timeout_seconds = max(call.deadline - time.monotonic(), 0.001)
            try:
                answer = await self._calls.invoke(call)
            except ProviderError as error:
                problem = Problem.of(error, correlation_id=call.request_id)
                return b'{"outcome":"failed","problem":' + _encode(problem) + b"}"
        meta = {
            "request_id": call.request_id,
            "provider": answer.provider,
            "connection": answer.connection,
            "duration_ms": round((time.perf_counter() - started) * 1000, 3),
            **({"replayed": True} if answer.replayed else {}),
        }
        return _SUCCEEDED + b',"data":' + answer.data + b',"meta":' + _encode(meta) + b"}"


_SUCCEEDED = b'{"outcome":"succeeded"'


def _headers(visit: Visit) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in answers.common_headers(visit.inbound)}
