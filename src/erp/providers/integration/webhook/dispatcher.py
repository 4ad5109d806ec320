"""Makes the attempts that are due, within a call and in the background, and announces what came of them."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable

from erp.providers.integration.webhook import deliveries, outcomes, tables
from erp.providers.integration.webhook.deliveries import NewMessage, Planned, Task
from erp.providers.integration.webhook.outcomes import Settled
from erp.providers.integration.webhook.sender import Sender
from erp.runtime.spi import CallContext, ErrorCode, ProviderError, Remind
from erp.vendor_clients.group_commit import GroupCommit

LEASE_SECONDS = 75.0
"""Longer than an attempt may take: what is due again after it was lost with its process."""
WAITING_SECONDS = 1.0
"""After a trigger whose endpoints take no more at present: their rate is used up, or there are very many."""
MARGIN_SECONDS = 1.0
"""Left of the time of a call to record what came of its attempts."""
LANES = 16
"""Endpoints served at once in the background."""
LANE_BATCH = 8
"""Attempts at once at one endpoint."""
WORK_SHARE = 0.6
"""Of the time of one piece of background work: nothing new is begun later."""


class Dispatcher:
    """Attempts deliveries; every attempt is leased in the store, so that no two processes make the same one."""

    def __init__(
        self, store: GroupCommit, sender: Sender, remind: Remind, clock: Callable[[], float], timeout_seconds: float
    ) -> None:
        self._store = store
        self._sender = sender
        self._remind = remind
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._reminded = 0.0

    async def deliver(self, new: NewMessage, context: CallContext) -> tuple[Planned, list[Settled]]:
        """Store a message, attempt it at once where it may be, and have the rest attempted later."""
        now = self._clock()
        planned = await self._store.run(lambda open_: deliveries.plan(open_, new, now, now + LEASE_SECONDS))
        if any(status == "pending" for _, status in planned.waiting):
            await self.plan_work(now + WAITING_SECONDS)
        elif planned.tasks:
            # Set before the first attempt, so that a process killed in it loses nothing.
            await self.plan_work(now + LEASE_SECONDS)
        settled = await self._attempt_all(planned.tasks, context)
        again = [item.due_at for item in settled if item.due_at is not None]
        if again:
            await self.plan_work(min(again))
        return planned, settled

    async def resend(self, id_: str, endpoint: str, context: CallContext) -> Settled:
        """Attempt one delivery now.

        Raises:
            ProviderError: ``not_found``; ``failed_precondition`` when the endpoint is disabled.
        """
        task = await self._store.run(lambda open_: deliveries.resend(open_, id_, endpoint, self._clock()))
        settled = await self._attempt_all([task], context)
        if not settled:
            message = "The delivery was deleted meanwhile."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        return settled[0]

    async def work(self, context: CallContext) -> datetime.datetime | None:
        """Attempt what is due; answer when there is more."""
        until = time.monotonic() + context.remaining_seconds() * WORK_SHARE
        endpoints = await self._store.run(lambda open_: deliveries.due_endpoints(open_, self._clock(), LANES))
        await asyncio.gather(*(self._lane(endpoint, until, context) for endpoint in endpoints))
        due = await self._store.run(lambda open_: deliveries.next_due(open_, self._clock()))
        self._reminded = due or 0.0
        return None if due is None else tables.instant(max(due, self._clock()))

    async def _lane(self, endpoint: int, until: float, context: CallContext) -> None:
        """Attempt what is due at one endpoint, so that a slow one holds up no other."""
        while time.monotonic() < until:
            now = self._clock()
            tasks = await self._store.run(
                lambda open_, now=now: deliveries.claim(open_, endpoint, now, now + LEASE_SECONDS, LANE_BATCH)  # type: ignore[misc]
            )
            if not tasks:
                return
            await self._attempt_all(tasks, context)

    async def plan_work(self, due: float) -> None:
        """Have ``work`` run at ``due`` or soon after; costs nothing when it is to run earlier anyway."""
        if self._clock() < self._reminded <= due:
            return
        await self._remind(tables.instant(due))
        self._reminded = due

    async def _attempt_all(self, tasks: list[Task], context: CallContext) -> list[Settled]:
        found = await asyncio.gather(*(self._attempt(task, context) for task in tasks))
        return [item for item in found if item is not None]

    async def _attempt(self, task: Task, context: CallContext) -> Settled | None:
        seconds = min(self._timeout_seconds, context.remaining_seconds() - MARGIN_SECONDS)
        outcome = await self._sender.attempt(task, max(seconds, 0.05))
        now = self._clock()
        settled = await self._store.run(lambda open_: outcomes.settle(open_, task, outcome, now))
        if settled is not None:
            for name, id_, data in settled.events:
                context.emit(name, data, key=settled.endpoint, id=id_)
        return settled
