"""Runs the work that providers plan for themselves: retries over days, lifecycle rules, leases that end.

A provider asks with ``OpenContext.remind``; the reminder is durable, so that the work is done even
when the provider was closed or the process died meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import random
import time
from typing import TYPE_CHECKING

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import effects
from erp.runtime.context import CallContext
from erp.runtime.ports import AuditEntry, Completion
from erp.runtime.service_calls import service_actor
from erp.runtime.spi import Worker
from erp.telemetry.ids import continued, new_request_id

if TYPE_CHECKING:
    from erp.runtime.plan import PlanBook
    from erp.runtime.pool import OpenProvider, ProviderPool
    from erp.runtime.ports import Journal, Reminder, Reminders

_log = logging.getLogger(__name__)
_jitter = random.SystemRandom()

ACTOR = "caretaker"


class CaretakerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How eagerly work is looked for. Times in seconds."""

    poll_seconds: float = 5.0
    """How soon reminders are noticed that another process set."""
    at_once: int = 16
    work_seconds: float = 60.0
    lease_seconds: float = 90.0
    """Longer than work may take: nobody else begins it before it was cancelled here."""
    retry_seconds: float = 30.0
    """After work that failed; half of it is random."""
    absent_seconds: float = 600.0
    """While the provider itself is not there."""


class Caretaker:
    """Calls ``work`` of every connection whose time has come, one at a time per connection."""

    def __init__(
        self,
        *,
        reminders: Reminders,
        plans: PlanBook,
        pool: ProviderPool,
        journal: Journal,
        settings: CaretakerSettings | None = None,
    ) -> None:
        self._reminders = reminders
        self._plans = plans
        self._pool = pool
        self._journal = journal
        self._settings = settings or CaretakerSettings()
        self._woken = asyncio.Event()
        self._working: set[asyncio.Task[None]] = set()

    def nudge(self) -> None:
        """Say that a reminder was set."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled; what is under way then is cancelled too and comes again after its lease."""
        try:
            while True:
                self._woken.clear()
                wait = await self._round()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), wait)
        finally:
            for task in self._working:
                task.cancel()
            await asyncio.gather(*self._working, return_exceptions=True)

    async def _round(self) -> float:
        """Begin what is due; return how many seconds may pass before the next look."""
        settings = self._settings
        free = settings.at_once - len(self._working)
        try:
            if free > 0:
                for reminder in await self._reminders.claim(limit=free, lease_seconds=settings.lease_seconds):
                    self._begin(reminder)
            due_in = await self._reminders.next_due_seconds()
        except ProviderError:
            _log.warning("reminders cannot be read", exc_info=True)
            return settings.poll_seconds
        if due_in is None or len(self._working) >= settings.at_once:
            return settings.poll_seconds
        return min(due_in, settings.poll_seconds)

    def _begin(self, reminder: Reminder) -> None:
        task = asyncio.create_task(self._serve(reminder), name=f"work of {reminder.domain}/{reminder.provider}")
        self._working.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._woken.set()

    async def _serve(self, reminder: Reminder) -> None:
        try:
            due = await self._work(reminder)
        except Exception as error:  # noqa: BLE001  (a provider may raise anything; its work has to come again)
            due = self._after_failure(reminder, error)
        with contextlib.suppress(ProviderError):  # the lease lapses and the work comes again
            await self._reminders.settle(reminder, due)

    def _after_failure(self, reminder: Reminder, error: Exception) -> datetime.datetime | None:
        """Return when to try again: never when the connection is gone, late when its provider is, which may come back."""
        ref = f"{reminder.domain}/{reminder.provider}"
        if ref not in self._plans.catalog.providers:
            return _in(self._settings.absent_seconds)
        if isinstance(error, ProviderError) and error.code is ErrorCode.NOT_FOUND:
            return None
        _log.warning("work of %s failed", ref, exc_info=error)
        return _in(self._settings.retry_seconds)

    async def _work(self, reminder: Reminder) -> datetime.datetime | None:
        place = (reminder.tenant, reminder.domain, reminder.provider, reminder.connection)
        opened = await self._pool.acquire(await self._plans.connection(*place))
        if not isinstance(opened.provider, Worker):
            return None
        context = self._context(reminder)
        opened.enter()
        try:
            async with asyncio.timeout(self._settings.work_seconds):
                return await opened.provider.work(context)
        finally:
            opened.leave()
            # What was done before a failure has happened: its events are true.
            await self._announce(opened, context)

    def _context(self, reminder: Reminder) -> CallContext:
        return CallContext(
            tenant=reminder.tenant,
            actor=service_actor(ACTOR, reminder.tenant),
            request_id=new_request_id(),
            deadline=time.monotonic() + self._settings.work_seconds,
            connection=reminder.connection,
            traceparent=continued(None),
        )

    async def _announce(self, opened: OpenProvider, context: CallContext) -> None:
        if not context.emitted:
            return
        manifest, traceparent = opened.manifest, context.traceparent or ""
        events = [
            effects.provider_event(
                manifest.domain, manifest.name, context.tenant, event, f"{context.request_id}-{number}", traceparent
            )
            for number, event in enumerate(context.emitted)
        ]
        audit = AuditEntry(
            tenant=context.tenant,
            actor=context.actor.id,
            action=f"{manifest.domain}.work",
            target=manifest.ref,
            outcome="ok",
            reason="planned by the provider",
            request_id=context.request_id,
            time=effects.now(),
            effect="write",
            traceparent=context.traceparent,
        )
        await asyncio.shield(self._journal.complete(Completion(audit=audit, events=events)))


def _in(seconds: float) -> datetime.datetime:
    jitter = _jitter.uniform(0.5, 1.0)
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds * jitter)
