"""Routes: which of its targets a call goes to, in what order, and what is known of each.

single    one target
failover  the first that works; one that fails gets no calls until its health is good again
weighted  a share of the calls each; calls with the same idempotency key go the same way
shadow    the first answers; the others get the same calls, and their answers are compared
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.handles import mark_of
from erp.runtime.shadow import ShadowReport

if TYPE_CHECKING:
    from erp.runtime.ports import Route, Routes, RouteTarget

MAX_LIVE = 10_000
MAX_MIRRORED = 64
"""Mirrored calls under way at a time, of one route."""
_chance = random.SystemRandom()

FAULTS = frozenset(
    {
        ErrorCode.UNAVAILABLE,
        ErrorCode.TIMEOUT,
        ErrorCode.OUTCOME_UNKNOWN,
        ErrorCode.INTERNAL,
        ErrorCode.RATE_LIMITED,
        ErrorCode.UNAUTHENTICATED,
    }
)
"""Failures that another target may not have. Everything else is the answer."""

IsHealthy = Callable[["LiveTarget"], Awaitable[bool]]


@dataclass(slots=True, eq=False)
class LiveTarget:
    """One target, and how it has done in this process."""

    provider: str
    connection: str
    weight: int
    mark: str
    served: int = 0
    failed: int = 0
    failures_in_row: int = 0
    is_down: bool = False
    ask_at: float = 0.0
    """When its health is asked next, while it is down (monotonic clock)."""

    def succeeded(self) -> None:
        """Note an answer."""
        self.served += 1
        self.failures_in_row = 0

    def failed_by(self, error: ProviderError, route: Route) -> None:
        """Note a failure; after some in a row the target is down."""
        if error.code not in FAULTS:
            self.succeeded()
            return
        self.failed += 1
        self.failures_in_row += 1
        if not self.is_down and self.failures_in_row >= route.after_failures:
            self.is_down = True
            self.ask_at = time.monotonic() + route.retry_after_seconds


@dataclass(eq=False)
class LiveRoute:
    """A route with what this process knows of its targets."""

    route: Route
    targets: list[LiveTarget]
    shadow: ShadowReport = field(default_factory=ShadowReport)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Health questions and mirrored calls under way."""

    def with_mark(self, mark: str) -> LiveTarget:
        """Return the target that gave a handle.

        Raises:
            ProviderError: ``not_found``: the route does not lead there any more.
        """
        found = next((target for target in self.targets if target.mark == mark), None)
        if found is None:
            message = (
                f"The handle belongs to a connection that the route {self.route.name} does not lead to (any more)."
            )
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        return found

    def candidates(self, key: str | None, is_healthy: IsHealthy) -> Sequence[LiveTarget]:
        """Return the targets that a call may go to, the preferred one first."""
        if self.route.kind == "failover":
            return self._by_health(is_healthy)
        if self.route.kind == "weighted":
            return [self._by_weight(key)]
        return self.targets[:1]

    def _by_health(self, is_healthy: IsHealthy) -> list[LiveTarget]:
        for target in self.targets:
            if target.is_down and time.monotonic() >= target.ask_at:
                target.ask_at = time.monotonic() + self.route.retry_after_seconds
                self.start(self._ask(target, is_healthy))
        return sorted(self.targets, key=lambda target: target.is_down)

    async def _ask(self, target: LiveTarget, is_healthy: IsHealthy) -> None:
        if await is_healthy(target):
            target.is_down = False
            target.failures_in_row = 0

    def _by_weight(self, key: str | None) -> LiveTarget:
        """Choose by rendezvous hashing of the key, so that a change of weights moves as few keys as it must."""
        open_ = [target for target in self.targets if target.weight > 0]
        if key is None:
            return _chance.choices(open_, [target.weight for target in open_])[0]
        return min(open_, key=lambda target: _distance(key, target))

    def start(self, work: Awaitable[None]) -> None:
        """Do ``work`` beside the calls."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def _distance(key: str, target: LiveTarget) -> float:
    """An exponential variable with the weight as its rate: the least of several is a weighted choice."""
    import math

    digest = hashlib.sha256(f"{key}\0{target.mark}".encode()).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 1)
    return -math.log(uniform) / target.weight


class RouteBook:
    """Every route that this process has used, with the state of its targets."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._live: dict[tuple[str, str, str], LiveRoute] = {}

    async def find(self, tenant: str, domain: str, name: str) -> LiveRoute | None:
        """Return a route, or None. What is known of a target stays when the route changes around it."""
        stored = await self._routes.find(tenant, domain, name)
        key = (tenant, domain, name)
        live = self._live.get(key)
        if stored is None:
            if live is not None:
                self._end(self._live.pop(key))
            return None
        if live is not None and live.route.revision == stored.revision:
            return live
        known = {target.mark: target for target in live.targets} if live else {}
        if live is not None:
            self._end(live)
        elif len(self._live) >= MAX_LIVE:
            self._end(self._live.pop(next(iter(self._live))))
        made = LiveRoute(stored, [_live(target, known) for target in stored.targets])
        self._live[key] = made
        return made

    def _end(self, live: LiveRoute) -> None:
        for task in live.tasks:
            task.cancel()

    async def close(self) -> None:
        """Stop what is done beside calls."""
        tasks = [task for live in self._live.values() for task in live.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _live(target: RouteTarget, known: dict[str, LiveTarget]) -> LiveTarget:
    mark = mark_of(target.provider, target.connection)
    found = known.get(mark) or LiveTarget(target.provider, target.connection, target.weight, mark)
    found.weight = target.weight
    return found
