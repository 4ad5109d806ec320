"""Delivers events from the outbox: in order per tenant and key, at least once, never one tenant at the cost of another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from erp.control_plane.outbox import DueEvent, Failure, Outbox
from erp.errors import ProviderError
from erp.runtime.ports import OutboxEvent

_log = logging.getLogger(__name__)
_jitter = random.SystemRandom()

Deliver = Callable[[OutboxEvent], Awaitable[None]]


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How eagerly and how long events are tried."""

    batch: int = 256
    per_tenant: int = 64
    keys_at_once: int = 8
    """Keys of one tenant delivered beside each other; the events of a key follow each other."""
    gather_seconds: float = 0.025
    """How long it waits after it was woken: events that follow each other closely share a claim and its commit."""
    poll_seconds: float = 1.0
    """How soon events are noticed that another process wrote."""
    deliver_seconds: float = 20.0
    lease_seconds: float = 60.0
    first_backoff_seconds: float = 0.5
    longest_backoff_seconds: float = 300.0
    max_attempts: int = 300
    """About half a day: a bus may be away that long."""
    purge_seconds: float = 60.0


class OutboxRelay:
    """Hands each due event to ``deliver``; what that raises is a failed attempt.

    Retries wait a random time up to a limit that doubles (full jitter); after ``max_attempts`` an
    event is dead: kept, but no longer in the way of those behind it.
    """

    def __init__(self, outbox: Outbox, deliver: Deliver, settings: RelaySettings | None = None) -> None:
        self._outbox = outbox
        self._deliver = deliver
        self._settings = settings or RelaySettings()
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._deliveries: dict[str, asyncio.Task[None]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._purge_at = time.monotonic() + self._settings.purge_seconds

    def nudge(self) -> None:
        """Say that events have arrived: they are claimed at once."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver until ``stop``."""
        self._runner = asyncio.current_task()
        try:
            while not self._is_stopping:
                self._woken.clear()
                wait = await self._round()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), wait)
                    await asyncio.sleep(self._settings.gather_seconds)
        finally:
            await self._end_deliveries()

    async def stop(self) -> None:
        """Claim nothing more, let deliveries under way end, and return. What is left stays in the outbox."""
        self._is_stopping = True
        self._woken.set()
        runner = self._runner
        if runner is not None and not runner.done():
            await asyncio.wait([runner])

    async def _end_deliveries(self) -> None:
        if self._deliveries:
            await asyncio.wait(list(self._deliveries.values()))

    async def _round(self) -> float:
        """Start deliveries of what is due; return how many seconds may pass before the next look."""
        settings = self._settings
        try:
            await self._purge()
            due_in = await self._outbox.next_due_seconds()
            if due_in is None or due_in > 0:
                return settings.poll_seconds if due_in is None else min(settings.poll_seconds, due_in)
            claimed = await self._outbox.claim(
                limit=settings.batch,
                per_tenant=settings.per_tenant,
                lease_seconds=settings.lease_seconds,
                without=self._deliveries.keys(),
            )
        except ProviderError:
            _log.warning("outbox cannot be read", exc_info=True)
            return settings.poll_seconds
        for tenant, events in claimed.items():
            self._start(tenant, events)
        return settings.poll_seconds

    async def _purge(self) -> None:
        if time.monotonic() >= self._purge_at:
            self._purge_at = time.monotonic() + self._settings.purge_seconds
            await self._outbox.purge()

    def _start(self, tenant: str, events: list[DueEvent]) -> None:
        task = asyncio.create_task(self._deliver_tenant(events), name=f"outbox delivery {tenant}")
        self._deliveries[tenant] = task
        task.add_done_callback(lambda _: self._ended(tenant))

    def _ended(self, tenant: str) -> None:
        del self._deliveries[tenant]
        self._woken.set()

    # -- one tenant ------------------------------------------------------------------------------

    async def _deliver_tenant(self, events: list[DueEvent]) -> None:
        round_ = _Round(lease_ends=time.monotonic() + self._settings.lease_seconds)
        lanes: dict[str, list[DueEvent]] = {}
        for due in events:
            lanes.setdefault(due.event.id if due.event.key is None else f"key:{due.event.key}", []).append(due)
        at_once = asyncio.Semaphore(self._settings.keys_at_once)
        await asyncio.gather(*(self._deliver_lane(lane, round_, at_once) for lane in lanes.values()))
        try:
            await self._outbox.settle(delivered=round_.delivered, failed=round_.failed, untried=round_.untried)
        except ProviderError:
            # The leases lapse and the events are delivered again: consumers deduplicate by id.
            _log.warning("outbox cannot be written", exc_info=True)

    async def _deliver_lane(self, lane: list[DueEvent], round_: _Round, at_once: asyncio.Semaphore) -> None:
        async with at_once:
            for number, due in enumerate(lane):
                if self._is_stopping or time.monotonic() + self._settings.deliver_seconds > round_.lease_ends:
                    round_.untried.extend(left.position for left in lane[number:])
                    return
                failure = await self._attempt(due)
                if failure is None:
                    round_.delivered.append(due.position)
                    continue
                round_.failed.append(failure)
                if failure.retry_after_seconds is not None:
                    round_.untried.extend(left.position for left in lane[number + 1 :])
                    return

    async def _attempt(self, due: DueEvent) -> Failure | None:
        try:
            async with asyncio.timeout(self._settings.deliver_seconds):
                await self._deliver(due.event)
        except Exception as error:  # noqa: BLE001  (whatever a bus raises, the event has to be tried again)
            reason = error.message if isinstance(error, ProviderError) else f"{type(error).__name__}: {error}"
            retry_after = self._backoff(due.attempts)
            _log.warning("event %s of %s not delivered: %s", due.event.id, due.event.tenant, reason)
            return Failure(position=due.position, reason=reason, retry_after_seconds=retry_after)
        return None

    def _backoff(self, attempts: int) -> float | None:
        """Return how long to wait after the attempt that followed ``attempts`` failed ones; None: give up."""
        settings = self._settings
        if attempts + 1 >= settings.max_attempts:
            return None
        limit = min(settings.longest_backoff_seconds, settings.first_backoff_seconds * 2.0**attempts)
        return _jitter.uniform(0.0, limit)


@dataclass(slots=True)
class _Round:
    """What became of one tenant's claimed events, by position."""

    lease_ends: float
    delivered: list[int] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    untried: list[int] = field(default_factory=list)
