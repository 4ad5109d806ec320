"""What follows an order: event, integration, annotation, each tried until it is done.

The steps stand in the tenant's database, written in the transaction of the order itself, so that none
is lost with a process. An attempt is claimed by a conditional update, so that two processes never try
the same step at once; the claim of a process that died lapses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable

from erp.contracts.models.order import GetResult
from erp.runtime.spi import CallContext, ErrorCode, ProviderError
from erp.services.order import steps, store
from erp.services.order.agenda import Agenda, Key
from erp.services.order.schema import FIRST_STEPS
from erp.services.order.store import OpenStep, Settled
from erp.services.order.watch import Watch

ContextFor = Callable[[str], CallContext]

AT_ONCE = 32
"""Orders: most of the time of each is waiting, and what waits together shares commits."""
AT_ONCE_PER_TENANT = 24
"""Less than ``AT_ONCE``: a tenant whose integration hangs does not stop the others."""
MAX_ATTEMPTS = 8
BASE_SECONDS, CAP_SECONDS = 1.0, 60.0
ATTEMPT_SECONDS = 30.0
LEASE_SECONDS = 40.0
UNREADABLE_SECONDS = 10.0
SWEEP_SECONDS = 30.0
SWEPT_ORDERS = 1000
STOP_SECONDS = 10.0
HELD_SECONDS = 5.0
"""How long what was known of an order when it was written is acted on: it may have been cancelled since."""
MAX_HELD = 1000
"""Orders: what comes beside so many waits in the database alone."""
TOGETHER_SECONDS = 0.25
"""How long a step that has ended waits to be written down with others of its order."""

_log = logging.getLogger(__name__)
_jitter = random.SystemRandom()


class OrderFollowUp:
    """Works on open orders in the background: at once when nudged, and by sweeps of the databases that may have some."""

    def __init__(self, *, context_for: ContextFor, watch: Watch, sweep_seconds: float = SWEEP_SECONDS) -> None:
        self.watch = watch
        self._context_for = context_for
        self._sweep_seconds = sweep_seconds
        self._agenda = Agenda()
        self._working: dict[Key, asyncio.Task[None]] = {}
        self._of_tenant: Counter[str] = Counter()
        self._parked: defaultdict[str, deque[Key]] = defaultdict(deque)
        """Due orders whose tenant has all its places taken; each place that falls free lets one go on."""
        self._held: dict[Key, tuple[GetResult | None, float]] = {}
        """Orders whose first attempts were claimed when they were written, and when that was."""
        self._sweeps: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_stopped = False

    @property
    def lease_seconds(self) -> float:
        """For how long the first attempts of an order should be claimed as it is written; zero: not at all."""
        is_at_work = self._sweeps is not None and not self._is_stopped
        return LEASE_SECONDS if is_at_work and len(self._held) < MAX_HELD else 0.0

    def begin(self, tenant: str, order: GetResult) -> None:
        """Follow an order up whose first attempts were claimed as it was written: nothing of it is read again."""
        self.nudge(tenant, order.order_id)
        self._held[tenant, order.order_id] = order, time.monotonic()

    def nudge(self, tenant: str, order_id: str) -> None:
        """Look at an order now."""
        if (key := (tenant, order_id)) in self._held:
            self._held[key] = None, self._held[key][1]
        self._agenda.put((tenant, order_id), time.monotonic())
        self._wake.set()

    async def run(self) -> None:
        """Work until ``stop``."""
        self._sweeps = asyncio.create_task(self._sweep_now_and_then(), name="order sweeps")
        while not self._is_stopped:
            self._wake.clear()
            self._start_due()
            try:
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Start no more, let running attempts end within 10 s and stop the rest; their claims lapse."""
        self._is_stopped = True
        self._wake.set()
        if self._sweeps is not None:
            self._sweeps.cancel()
            await asyncio.gather(self._sweeps, return_exceptions=True)
        if self._working:
            _, late = await asyncio.wait(list(self._working.values()), timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._release()

    async def _release(self) -> None:
        """Let others begin at once what was claimed and is not begun; what cannot be given back lapses."""
        of_tenant: defaultdict[str, list[str]] = defaultdict(list)
        for tenant, order_id in self._held:
            of_tenant[tenant].append(order_id)
        self._held.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                for tenant, ids in of_tenant.items():
                    with contextlib.suppress(ProviderError):
                        await store.release(self._context_for(tenant), ids)

    # -- which order next ------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        while len(self._working) < AT_ONCE and (key := self._agenda.take(now)) is not None:
            if key in self._working or self._of_tenant[key[0]] >= AT_ONCE_PER_TENANT:
                self._parked[key[0]].append(key)
            else:
                self._start(key)

    def _start(self, key: Key) -> None:
        task = asyncio.create_task(self._work(key), name=f"order {key[1]}")
        self._working[key] = task
        self._of_tenant[key[0]] += 1
        task.add_done_callback(lambda _: self._ended(key))

    def _ended(self, key: Key) -> None:
        tenant = key[0]
        del self._working[key]
        self._of_tenant[tenant] -= 1
        if self._parked[tenant]:
            self._agenda.put(self._parked[tenant].popleft(), time.monotonic())
        if not self._of_tenant[tenant] and not self._parked[tenant]:
            del self._of_tenant[tenant], self._parked[tenant]
        self._wake.set()

    def _pause(self) -> float | None:
        due = self._agenda.next_due()
        if due is None or len(self._working) >= AT_ONCE:
            return None
        return max(due - time.monotonic(), 0.0)

    # -- sweeps ----------------------------------------------------------------------------------

    async def _sweep_now_and_then(self) -> None:
        while True:
            for tenant in await self._tenants_or_none():
                try:
                    await self._sweep(tenant)
                except Exception as error:  # noqa: BLE001  (one tenant must not end the sweeps of all)
                    _log.warning("open orders of %s cannot be read: %s", tenant, error)
            await asyncio.sleep(self._sweep_seconds)

    async def _tenants_or_none(self) -> list[str]:
        try:
            return await self.watch.tenants()
        except Exception as error:  # noqa: BLE001  (the next sweep tries again)
            _log.warning("tenants cannot be listed: %s", error)
            return []

    async def _sweep(self, tenant: str) -> None:
        now = time.monotonic()
        open_orders = await self._open_orders(tenant)
        for order_id, due_in in open_orders:
            key = (tenant, order_id)
            if key not in self._agenda and key not in self._working:
                self._agenda.put(key, now + due_in)
        self._wake.set()
        if not open_orders:
            await self.watch.nothing_open(tenant, looked_at=now)

    async def _open_orders(self, tenant: str) -> list[tuple[str, float]]:
        try:
            return await store.open_orders(self._context_for(tenant), SWEPT_ORDERS)
        except store.StatementRefusedError:
            # No order was ever taken in there; tables are not made in a database that needs none.
            return []
        except ProviderError as error:
            if error.code is ErrorCode.UNSUPPORTED:  # the tenant has no database any more
                return []
            raise

    # -- one order -------------------------------------------------------------------------------

    async def _work(self, key: Key) -> None:
        """Take the due steps of an order one after the other; come back later for the others."""
        tenant, order_id = key
        try:
            again = await self._take_due(tenant, order_id)
        except ProviderError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return
            _log.warning("order %s of %s cannot be followed up now: %s", order_id, tenant, error.message)
            again = _jitter.uniform(0, UNREADABLE_SECONDS)
        except Exception:  # noqa: BLE001  (one broken order must not stop the others)
            _log.exception("order %s of %s cannot be followed up", order_id, tenant)
            again = CAP_SECONDS
        if again is not None:
            self._agenda.put(key, time.monotonic() + again)

    async def _take_due(self, tenant: str, order_id: str) -> float | None:
        """Return the seconds until the next step is due; None when nothing is left to be done."""
        known, since = self._held.pop((tenant, order_id), (None, 0.0))
        try:
            if known is not None and time.monotonic() - since < HELD_SECONDS:
                claimed = [OpenStep(name=name, attempts=0, due_in=0.0) for name in FIRST_STEPS]
                return min((await self._take(tenant, known, claimed, are_claimed=True)).values(), default=None)
            if since:
                await store.release(self._context_for(tenant), [order_id])
        except BaseException:
            self._held[tenant, order_id] = None, since
            raise
        order, waiting = await store.load_with_open_steps(self._context_for(tenant), order_id)
        pauses: dict[str, float] = {}
        due = []
        for step in waiting:
            if step.due_in > 0:
                pauses[step.name] = step.due_in
            else:
                due.append(step)
        for steps_ in _rounds(due):
            if steps_[0].name == "cancellation" and "event" in pauses:
                # Nobody should hear of the end of an order before its beginning.
                pauses["cancellation"] = pauses["event"]
            else:
                pauses |= await self._take(tenant, order, steps_)
        return min(pauses.values(), default=None)

    async def _take(
        self, tenant: str, order: GetResult, due: list[OpenStep], *, are_claimed: bool = False
    ) -> dict[str, float]:
        """Try steps and write down how they went; return the seconds until those that need it are tried again."""
        ends_at = time.monotonic() + ATTEMPT_SECONDS
        claimed = due
        if not are_claimed:
            claimed = await store.claim(self._context_for(tenant), order.order_id, due, LEASE_SECONDS)
        pauses = {step.name: LEASE_SECONDS for step in due if step not in claimed}
        ended: asyncio.Queue[Settled] = asyncio.Queue()
        lanes = [asyncio.create_task(self._try_all(tenant, order, lane, ends_at, ended)) for lane in _lanes(claimed)]
        left = len(claimed)
        try:
            while left:
                settled = await _together(ended, left)
                await store.settle(self._context_for(tenant), order.order_id, settled)
                pauses |= {item.step.name: item.pause for item in settled if item.pause is not None}
                left -= len(settled)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return pauses

    async def _try_all(
        self, tenant: str, order: GetResult, lane: list[OpenStep], ends_at: float, ended: asyncio.Queue[Settled]
    ) -> None:
        for step in lane:
            context = self._context_for(tenant)
            context.deadline = min(context.deadline, ends_at)
            ended.put_nowait(await _tried(context, order, step))


def _rounds(due: list[OpenStep]) -> list[list[OpenStep]]:
    """Return what is tried together, in order.

    Steps at their first attempt are: it costs one commit instead of one each. Later each is alone, so that one
    that kills its process uses up no attempts of the others.
    """
    first = [step for step in due if not step.attempts and step.name != "cancellation"]
    return [*([first] if first else []), *([step] for step in due if step not in first)]


def _lanes(claimed: list[OpenStep]) -> list[list[OpenStep]]:
    """Return what is tried one after the other; nobody waits for the tenant's peer but who has to."""
    lanes = (
        [step for step in claimed if step.name == "integration"],
        [step for step in claimed if step.name != "integration"],
    )
    return [lane for lane in lanes if lane]


async def _together(ended: asyncio.Queue[Settled], most: int) -> list[Settled]:
    """Return what has ended at about the same time, to be written down together."""
    found = [await ended.get()]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TOGETHER_SECONDS):
            while len(found) < most:
                found.append(await ended.get())
    return found


async def _tried(context: CallContext, order: GetResult, step: OpenStep) -> Settled:
    """Try one step."""
    pause: float | None = None
    try:
        if step.attempts >= MAX_ATTEMPTS:
            status, detail = "failed", "No attempt came to an end: each time the process died first."
        else:
            status, detail = await steps.taken(step.name, context, order)
    except ProviderError as error:
        detail = f"{error.code.value}: {error.message}"
        status, pause = _after_failure(step.attempts + 1, error)
    except Exception as error:  # noqa: BLE001  (a broken step counts its attempts like any other)
        _log.exception("step %s of order %s of %s failed", step.name, order.order_id, context.tenant)
        detail = f"internal: {type(error).__name__}"
        status, pause = _after_failure(step.attempts + 1, ProviderError(ErrorCode.INTERNAL, detail))
    return Settled(step=step, status=status, detail=detail, pause=pause)


def _after_failure(attempts: int, error: ProviderError) -> tuple[str, float | None]:
    """Return the status after a failed attempt, and the pause before the next (full jitter)."""
    # The steps are safe to repeat, so an unknown outcome may be repeated too.
    may_help = error.retryable or error.code in {ErrorCode.OUTCOME_UNKNOWN, ErrorCode.INTERNAL}
    if attempts >= MAX_ATTEMPTS or not may_help:
        return "failed", None
    ceiling = min(CAP_SECONDS, BASE_SECONDS * 2.0 ** (attempts - 1))
    return "pending", max(_jitter.uniform(0, ceiling), error.retry_after_seconds or 0.0)
