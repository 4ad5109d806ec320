"""Protections of one connection: bulkhead, circuit breaker, token bucket, retry pauses."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

if TYPE_CHECKING:
    from erp.runtime.call_policy import Breaker, Bulkhead, Rate, Retry
    from erp.runtime.sharing import Places

_jitter = random.SystemRandom()


class BulkheadGate:
    """Lets ``max_concurrency`` calls in, queues ``max_queue`` more, refuses the rest at once."""

    __slots__ = ("__weakref__", "_running", "_waiting", "limits")

    def __init__(self, limits: Bulkhead) -> None:
        self.limits = limits
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def running(self) -> int:
        """Calls inside now."""
        return self._running

    def try_enter(self) -> bool:
        """Enter without waiting; False when the caller has to ``wait_to_enter``."""
        if self._running >= self.limits.max_concurrency:
            return False
        self._running += 1
        return True

    async def wait_to_enter(self) -> None:
        """Queue for a place.

        Raises:
            ProviderError: ``unavailable`` with a pause when the queue is full.
        """
        if len(self._waiting) >= self.limits.max_queue:
            raise ProviderError(
                ErrorCode.UNAVAILABLE,
                "Too many calls are waiting for this connection.",
                retry_after_seconds=1.0,
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(place)
            raise

    def leave(self) -> None:
        """Give the place to the next in the queue, or free it: nobody waits for it, or there are fewer places now."""
        while self._waiting and self._running <= self.limits.max_concurrency:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._running -= 1

    @property
    def waiting(self) -> int:
        """Calls queued for a place now."""
        return len(self._waiting)


class SharedGate:
    """A bulkhead before places that other bulkheads, also of other processes, have a part of."""

    __slots__ = ("_gate", "_places")

    def __init__(self, gate: BulkheadGate, places: Places) -> None:
        self._gate = gate
        self._places = places

    @property
    def limits(self) -> Bulkhead:
        """Of this process."""
        return self._gate.limits

    @property
    def running(self) -> int:
        """Calls of this process inside now, or next to enter."""
        return self._gate.running

    @property
    def waiting(self) -> int:
        """Calls queued in this process for a place now."""
        return self._gate.waiting

    def try_enter(self) -> bool:
        """Enter without waiting; False when the caller has to ``wait_to_enter``."""
        if not self._gate.try_enter():
            return False
        if self._places.try_enter():
            return True
        self._gate.leave()
        return False

    async def wait_to_enter(self) -> None:
        """Queue for a place.

        Raises:
            ProviderError: ``unavailable`` when the queue is full, or nobody can say how many places there are.
        """
        if not self._gate.try_enter():
            await self._gate.wait_to_enter()
        if self._places.try_enter():
            return
        try:
            await self._places.wait_to_enter()
        except BaseException:
            self._gate.leave()
            raise

    def leave(self) -> None:
        """Give the place to the next in the queue, or free it."""
        self._places.leave()
        self._gate.leave()


class CircuitBreaker:
    """Refuses calls to a connection that keeps failing, then lets one probe through."""

    __slots__ = ("_failures", "_opened_at", "_probing", "settings")

    def __init__(self, settings: Breaker) -> None:
        self.settings = settings
        self._failures: deque[float] = deque(maxlen=settings.failure_threshold)
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half_open``."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._open_for() >= self.settings.open_seconds else "open"

    def _open_for(self) -> float:
        return time.monotonic() - (self._opened_at or 0.0)

    def check(self) -> None:
        """Pass, become the probe, or raise ``unavailable`` with the seconds until the next probe."""
        if self._opened_at is None:
            return
        left = self.settings.open_seconds - self._open_for()
        if left <= 0 and not self._probing:
            self._probing = True
            return
        raise ProviderError(
            ErrorCode.UNAVAILABLE,
            "The connection failed repeatedly; calls are paused until it answers a probe.",
            retry_after_seconds=max(left, 0.1),
        )

    def succeeded(self) -> None:
        """Note a good answer: a probe closes the breaker."""
        if self._failures or self._opened_at is not None:
            self._failures.clear()
            self._opened_at = None
            self._probing = False

    def failed(self) -> None:
        """Note a failure of the peer (not of the caller)."""
        now = time.monotonic()
        if self._opened_at is not None:
            self._opened_at, self._probing = now, False
            return
        self._failures.append(now)
        full = len(self._failures) == self.settings.failure_threshold
        if full and now - self._failures[0] <= self.settings.window_seconds:
            self._opened_at = now

    def abandoned(self) -> None:
        """Note that a probe ended without saying anything about the peer (cancelled)."""
        self._probing = False


class TokenBucket:
    """A rate limit: tokens refill continuously, each call takes one."""

    __slots__ = ("_stamp", "_tokens", "burst", "rate", "settings")

    def __init__(self, settings: Rate) -> None:
        self.settings = settings
        self.burst = float(settings.burst or settings.requests)
        self.rate = settings.requests / settings.period_seconds
        self._tokens = self.burst
        self._stamp = time.monotonic()

    def take(self) -> float:
        """Take one token. Return 0.0, or the seconds to wait when there is none."""
        now = time.monotonic()
        tokens = min(self.burst, self._tokens + (now - self._stamp) * self.rate)
        self._stamp = now
        if tokens < 1.0:
            self._tokens = tokens
            return (1.0 - tokens) / self.rate
        self._tokens = tokens - 1.0
        return 0.0

    @property
    def remaining(self) -> int:
        """Calls that may be made at once."""
        return int(self._tokens)


def retry_pause(retry: Retry, attempt: int, asked_seconds: float | None = None) -> float:
    """Seconds to wait before attempt ``attempt`` + 1 (full jitter), at least what the peer asked for."""
    ceiling = min(retry.cap_seconds, retry.base_seconds * 2**attempt)
    return max(_jitter.uniform(0.0, ceiling), asked_seconds or 0.0)
