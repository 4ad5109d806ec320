"""Runs calls that nobody waits for: accepted durably, begun again after a crash, cancelled when asked.

What protects a call from running twice is what protects every call: its idempotency key. An operation whose caller
gave none has one of its own, so that a second process cannot repeat an effect of the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, Problem, ProviderError
from erp.runtime.call import Call
from erp.runtime.configuring import wish_of
from erp.runtime.operation import Operation, Order, Outcome, Progress

if TYPE_CHECKING:
    from erp.runtime.call import Answer
    from erp.runtime.calls import Calls
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.configuring import Configuring, Wish
    from erp.runtime.ports import Connection, Operations

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder(decimal_format="string").encode

Report = Callable[[float, str | None], None]
Rights = Callable[[Operation, Report], Awaitable[Any]]


class OperationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How operations are run. Times in seconds."""

    poll_seconds: float = 1.0
    """How soon operations and cancellations are noticed that another process accepted."""
    at_once: int = 64
    per_tenant: int = 16
    lease_seconds: float = 30.0
    """How long after the death of its process an operation begins again."""
    longest_seconds: float = 3600.0
    """How long an operation may take."""
    drain_seconds: float = 5.0
    """How long running ones may still take when the layer stops."""
    purge_seconds: float = 600.0


class OperationRunner:
    """Takes on accepted calls and runs them through the pipeline."""

    def __init__(
        self,
        calls: Calls,
        operations: Operations,
        catalog: ProviderCatalog,
        configuring: Configuring,
        settings: OperationSettings | None = None,
    ) -> None:
        self._calls = calls
        self._operations = operations
        self._catalog = catalog
        self._configuring = configuring
        self.rights: Rights | None = None
        """What fulfils the rights of persons."""
        self._settings = settings or OperationSettings()
        self._owner = secrets.token_hex(8)
        self._running: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._cancelling: set[str] = set()
        self._progress: dict[str, Progress] = {}
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()
        self._is_stopping = False
        self._renew_at = 0.0
        self._purge_at = time.monotonic() + self._settings.purge_seconds

    # -- what callers do -------------------------------------------------------------------------

    async def accept(self, call: Call) -> Operation:
        """Check a call as if it were run now, and keep it to be run.

        Raises:
            ProviderError: what the call would be refused with before it reaches its provider, and when too many wait.
        """
        if call.action.streaming:
            error = FieldError("/headers/Prefer", "Leave respond-async out: a stream is read while it is made.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, f"{call.action.ref} is a stream.", errors=[error])
        await self._calls.check(call)
        target = f"{call.action.area}/{call.action.ref}/{call.provider}#{call.connection}"
        fingerprint = _digest(call.body, target)
        return await self._operations.accept(f"op_{secrets.token_hex(12)}", _order(call), fingerprint)

    async def accept_wish(self, wish: Wish, order: Order) -> Operation:
        """Keep a configuration that shall be taken into use.

        Raises:
            ProviderError: ``conflict`` while another one for the same connection is under way.
        """
        body = msgspec.json.encode(wish)
        wanted = msgspec.structs.replace(order, body=body.decode(), subject=subject_of(wish.connection))
        return await self._operations.accept(f"op_{secrets.token_hex(12)}", wanted, _digest(body, order.name))

    async def accept_right(self, order: Order) -> Operation:
        """Keep the wish of a person; one at a time about each.

        Raises:
            ProviderError: ``conflict`` while another one about the same person is under way.
        """
        fingerprint = _digest(order.body.encode(), order.name)
        return await self._operations.accept(f"op_{secrets.token_hex(12)}", order, fingerprint)

    async def cancel(self, tenant: str, id: str) -> Operation | None:  # noqa: A002
        """Want the end of an operation; None: there is none."""
        found = await self._operations.cancel(tenant, id)
        if found is not None and found.state == "cancelled" and found.order.area == "connections":
            await self._configuring.withdraw(wish_of(found.order))
        return found

    async def wait(self, tenant: str, id: str, seconds: float) -> Operation | None:  # noqa: A002
        """Return an operation when it has ended or ``seconds`` have passed; None: there is none."""
        ends = time.monotonic() + seconds
        while True:
            changed = self._changed
            found = await self._operations.find(tenant, id)
            left = ends - time.monotonic()
            if found is None or found.ended_at is not None or left <= 0:
                return found
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), min(left, self._settings.poll_seconds))

    def nudge(self) -> None:
        """Say that an operation was accepted, or its end wanted."""
        self._renew_at = 0.0
        self._woken.set()

    # -- the loop --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run operations until ``stop``."""
        while not self._is_stopping:
            self._woken.clear()
            try:
                await self._round()
            except ProviderError:
                _log.warning("operations cannot be read", exc_info=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._settings.poll_seconds)

    async def stop(self) -> None:
        """Begin nothing more, give what runs a moment, and let the rest wait for another process."""
        self._is_stopping = True
        self._woken.set()
        tasks = [task for _, task in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.drain_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _round(self) -> None:
        settings = self._settings
        if self._running and time.monotonic() >= self._renew_at:
            self._renew_at = time.monotonic() + min(settings.lease_seconds / 3, settings.poll_seconds)
            await self._renew()
        free = settings.at_once - len(self._running)
        if free > 0 and not self._is_stopping:
            counts = Counter(tenant for tenant, _ in self._running.values())
            full = [tenant for tenant, count in counts.items() if count >= settings.per_tenant]
            # All that is claimed may be of the tenant that has most running already.
            most = max((count for count in counts.values() if count < settings.per_tenant), default=0)
            limit = min(free, settings.per_tenant - most)
            claimed = await self._operations.claim(
                self._owner, limit=limit, lease_seconds=settings.lease_seconds, without=full
            )
            for operation in claimed:
                self._begin(operation)
            if len(claimed) == limit:
                self._woken.set()
        if time.monotonic() >= self._purge_at:
            self._purge_at = time.monotonic() + settings.purge_seconds
            await self._operations.purge()

    async def _renew(self) -> None:
        """Keep the leases, pass progress on, and cancel what shall end."""
        reported, self._progress = self._progress, {}
        for id_, progress in reported.items():
            await self._operations.report(self._owner, id_, progress)
        for id_ in await self._operations.renew(self._owner, list(self._running), self._settings.lease_seconds):
            if id_ in self._running:
                self._cancelling.add(id_)
                self._running[id_][1].cancel()

    def _begin(self, operation: Operation) -> None:
        task = asyncio.create_task(self._serve(operation), name=f"operation {operation.id}")
        self._running[operation.id] = (operation.tenant, task)
        task.add_done_callback(lambda _: self._ended(operation.id))

    def _ended(self, id_: str) -> None:
        del self._running[id_]
        self._cancelling.discard(id_)
        self._progress.pop(id_, None)
        self._woken.set()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- one operation ---------------------------------------------------------------------------

    async def _serve(self, operation: Operation) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await self._outcome(operation)
        except asyncio.CancelledError:
            if operation.id in self._cancelling:
                outcome = _cancelled(operation)
        try:
            await asyncio.shield(self._operations.settle(self._owner, operation.id, outcome))
        except ProviderError:
            # The lease lapses, the call runs again with its key and finds its stored answer.
            _log.warning("the end of operation %s cannot be stored", operation.id, exc_info=True)

    async def _outcome(self, operation: Operation) -> Outcome:
        try:
            result = await self._result(operation)
        except ProviderError as error:
            return Outcome(state="failed", problem=_problem(operation, error))
        except Exception as error:  # noqa: BLE001  (the operation ends, whatever it was)
            _log.exception("operation %s failed", operation.id)
            unforeseen = ProviderError(ErrorCode.INTERNAL, "The layer failed in a way it did not foresee.")
            unforeseen.__cause__ = error
            return Outcome(state="failed", problem=_problem(operation, unforeseen))
        return Outcome(state="succeeded", result=result.decode())

    async def _result(self, operation: Operation) -> bytes:
        started = time.perf_counter()
        if operation.order.area == "connections":
            stored = await self._configuring.run(operation.order)
            return b'{"data":' + _encode({"revision": stored.revision}) + b"}"
        if operation.order.area == "privacy":
            assert self.rights is not None  # noqa: S101  (who accepts such operations has set it)
            fulfilled = await self.rights(operation, partial(self._report, operation.id))
            return b'{"data":' + _encode(fulfilled) + b"}"
        answer = await self._calls.invoke(self._call(operation))
        return _result(operation, answer, time.perf_counter() - started)

    def _call(self, operation: Operation) -> Call:
        order = operation.order
        assert order.area in {"providers", "services"}  # noqa: S101  (the others are no calls)
        return Call(
            action=self._catalog.action(order.area, order.group, order.name),
            actor=order.actor,
            provider=order.provider,
            connection=order.connection,
            body=order.body.encode(),
            request_id=order.request_id,
            traceparent=order.traceparent,
            idempotency_key=order.idempotency_key or f"operation:{operation.id}",
            user=order.user,
            patience_seconds=self._settings.longest_seconds,
            is_admitted=True,
            on_report=partial(self._report, operation.id),
        )

    def _report(self, id_: str, fraction: float, message: str | None) -> None:
        self._progress[id_] = Progress(min(max(fraction, 0.0), 1.0), message)


def subject_of(connection: Connection) -> str:
    """Name a connection as the subject of operations."""
    return f"{connection.tenant}/{connection.domain}/{connection.provider}#{connection.name}"


def _digest(body: bytes, target: str) -> bytes:
    digest = hashlib.blake2b(body, digest_size=16, person=b"erp-operation")
    digest.update(target.encode())
    return digest.digest()


def _order(call: Call) -> Order:
    return Order(
        area=call.action.area,
        group=call.action.group,
        name=call.action.name,
        provider=call.provider,
        connection=call.connection,
        actor=call.actor,
        body=call.body.decode(),
        request_id=call.request_id,
        traceparent=call.traceparent,
        idempotency_key=call.idempotency_key,
        user=call.user,
    )


def _result(operation: Operation, answer: Answer, seconds: float) -> bytes:
    meta = {
        "request_id": operation.order.request_id,
        "provider": answer.provider,
        "connection": answer.connection,
        "duration_ms": round(seconds * 1000, 3),
        **({"replayed": True} if answer.replayed else {}),
    }
    return b'{"data":' + answer.data + b',"meta":' + _encode(meta) + b"}"


def _problem(operation: Operation, error: ProviderError) -> str:
    return _encode(Problem.of(error, correlation_id=operation.order.request_id)).decode()


def _cancelled(operation: Operation) -> Outcome:
    error = ProviderError(ErrorCode.CANCELLED, "The operation was cancelled while it ran; it may have taken effect.")
    return Outcome(state="cancelled", problem=_problem(operation, error))
