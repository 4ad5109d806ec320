"""Limits by scope and unit: reserved before a call, settled after it. Implements ``spending.Budgets``.

What a call may use is added to the usage and kept as a *hold* in one transaction; settling puts what it really used in
its place. So no limit is exceeded by one, in any number of processes, as long as calls use no more than they reserved.
Holds live while their process renews them; those of a killed process are given back when somebody needs them.

Everybody who waits at the same moment shares one transaction, as in the journal. A tenant without such limits costs a
look into a dictionary.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.budget_rows import REQUESTS, TENANT, Held, Ledger, Limit, Settlement, counted, parts
from erp.control_plane.database import Database
from erp.control_plane.revisions import Revisions, Topic
from erp.control_plane.tables import quota_holds
from erp.errors import FieldError, ProviderError

HOLD_SECONDS = 30.0
RENEW_SECONDS = 10.0
BATCH = 500

_SCOPE = re.compile(
    r"tenant|actor:[!-~]{1,200}|provider:[a-z][a-z0-9_]*/[a-z][a-z0-9_-]*|action:[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*"
)
_UNIT = re.compile(r"requests|bytes|tokens|money:[A-Z]{3}")


def scope(text: str) -> str:
    """Return ``text`` when it names a scope.

    Raises:
        ProviderError: ``invalid_argument``.
    """
    if _SCOPE.fullmatch(text):
        return text
    remedy = "Use tenant, actor:ID, provider:DOMAIN/NAME or action:GROUP.NAME."
    raise ProviderError(
        ErrorCode.INVALID_ARGUMENT, "There is no such scope of a quota.", errors=[FieldError("/scope", remedy)]
    )


def unit(text: str) -> str:
    """Return ``text`` when it names a unit.

    Raises:
        ProviderError: ``invalid_argument``.
    """
    if _UNIT.fullmatch(text):
        return text
    remedy = "Use requests, bytes, tokens or money:CURRENCY (ISO 4217)."
    raise ProviderError(
        ErrorCode.INVALID_ARGUMENT, "There is no such unit of a quota.", errors=[FieldError("/unit", remedy)]
    )


@dataclass(slots=True)
class _Wanted:
    """A reservation that waits for its transaction."""

    tenant: str
    scopes: frozenset[str]
    units: Mapping[str, int]
    done: asyncio.Future[Held | Limit]


@dataclass(slots=True)
class _Queue:
    """What the next transaction writes."""

    wanted: list[_Wanted] = field(default_factory=list)
    settled: list[Settlement] = field(default_factory=list)
    writer: asyncio.Task[None] | None = None


class StoredBudgets:
    """The budgets of all tenants."""

    def __init__(self, database: Database, revisions: Revisions, *, clock: Callable[[], int] = moments.now) -> None:
        self._database = database
        self._revisions = revisions
        self._clock = clock
        self._owner = os.urandom(8).hex()
        self._known: dict[str, tuple[Limit, ...]] = {}
        self._loading: dict[str, asyncio.Task[tuple[Limit, ...]]] = {}
        self._generation = 0
        self._queue = _Queue()
        self._live: set[str] = set()
        self._renewing: asyncio.Task[None] | None = None
        revisions.watch(Topic.QUOTAS, self._forget)

    def _forget(self) -> None:
        self._generation += 1
        self._known.clear()
        self._loading.clear()

    def are_absent(self, tenant: str) -> bool:
        return self._known.get(tenant) == () and time.monotonic() < self._revisions.trusted_until

    async def reserve(self, tenant: str, scopes: Sequence[str], units: Mapping[str, int]) -> Held | None:
        limits = await self._limits(tenant)
        if not any(limit.scope in scopes and counted(limit.unit, units) is not None for limit in limits):
            return None
        wanted = _Wanted(tenant, frozenset(scopes), units, asyncio.get_running_loop().create_future())
        self._queue.wanted.append(wanted)
        self._nudge()
        try:
            outcome = await asyncio.shield(wanted.done)
        except asyncio.CancelledError:
            wanted.done.add_done_callback(self._let_go)
            raise
        if isinstance(outcome, Limit):
            raise self._exhausted(outcome)
        return outcome

    def settle(self, held: Held, units: Mapping[str, int]) -> None:
        self._live.discard(held.id)
        self._queue.settled.append(Settlement(held, units))
        self._nudge()

    async def flush(self) -> None:
        """Return when everything that was settled is written, or cannot be written now."""
        while self._queue.writer is not None:
            await asyncio.shield(self._queue.writer)

    async def close(self) -> None:
        """Write what was settled. Safe twice."""
        if self._queue.settled:
            self._nudge()
        await self.flush()
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
            self._renewing = None

    def _let_go(self, done: asyncio.Future[Held | Limit]) -> None:
        """Give back what was reserved for a call that was cancelled meanwhile."""
        if not done.cancelled() and done.exception() is None and isinstance(outcome := done.result(), Held):
            self.settle(outcome, {})

    def _exhausted(self, limit: Limit) -> ProviderError:
        seconds = max((limit.ends_at(self._clock()) - self._clock()) / moments.MICROSECONDS, 0.001)
        message = f"The quota of {limit.units} {limit.unit} per {limit.period} ({limit.scope}) does not hold this call."
        return ProviderError(ErrorCode.QUOTA_EXHAUSTED, message, retry_after_seconds=seconds)

    async def _limits(self, tenant: str) -> tuple[Limit, ...]:
        if time.monotonic() >= self._revisions.trusted_until:
            await self._revisions.refresh()
        known = self._known.get(tenant)
        if known is not None:
            return known
        loading = self._loading.get(tenant)
        if loading is None:
            loading = self._loading[tenant] = asyncio.create_task(self._load(tenant), name="budgets of a tenant")
            loading.add_done_callback(lambda task: self._loaded(tenant, task))
        return await asyncio.shield(loading)

    async def _load(self, tenant: str) -> tuple[Limit, ...]:
        """Read the limits of ``tenant``; many callers share one question."""
        generation = self._generation
        limits = await self._database.run(lambda connection: Ledger.limits(connection, [tenant])[tenant])
        if generation == self._generation:
            self._known[tenant] = limits
        return limits

    def _loaded(self, tenant: str, task: asyncio.Task[tuple[Limit, ...]]) -> None:
        if self._loading.get(tenant) is task:
            del self._loading[tenant]
        if not task.cancelled():
            task.exception()  # Retrieved here in case every caller went away.

    # -- transactions ----------------------------------------------------------------------------

    def _nudge(self) -> None:
        if self._queue.writer is None:
            self._queue.writer = asyncio.create_task(self._write(), name="budgets")

    async def _write(self) -> None:
        queue = self._queue
        try:
            while queue.wanted or queue.settled:
                wanted, queue.wanted = queue.wanted[:BATCH], queue.wanted[BATCH:]
                settled, queue.settled = queue.settled[:BATCH], queue.settled[BATCH:]
                if not await self._written(wanted, settled) and not queue.wanted:
                    return
        finally:
            queue.writer = None

    async def _written(self, wanted: list[_Wanted], settled: list[Settlement]) -> bool:
        """Write one batch; False when the database does not take it: what was settled stays for the next one."""
        try:
            outcomes = await self._database.transact(partial(self._apply, wanted, settled, self._clock()))
        except Exception as error:  # noqa: BLE001  (whoever waits is told)
            self._queue.settled = settled + self._queue.settled
            for item in wanted:
                item.done.set_exception(error)
                item.done.exception()
            return False
        for item, outcome in zip(wanted, outcomes, strict=True):
            if isinstance(outcome, Held):
                self._live.add(outcome.id)
            item.done.set_result(outcome)
        if self._live and self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="budget holds")
        return True

    def _apply(
        self, wanted: list[_Wanted], settled: list[Settlement], now: int, connection: sa.Connection
    ) -> list[Held | Limit]:
        tenants = sorted({item.tenant for item in wanted} | {item.held.tenant for item in settled})
        expires_at = now + int(HOLD_SECONDS * moments.MICROSECONDS)
        ledger = Ledger(connection, tenants, now, self._owner, expires_at)
        for item in settled:
            ledger.settle(item)
        outcomes = [ledger.reserve(item.tenant, item.scopes, item.units) for item in wanted]
        ledger.write()
        return outcomes

    async def _renew(self) -> None:
        """Prolong the holds of this process for as long as it has any."""
        while self._live:
            await asyncio.sleep(RENEW_SECONDS)
            expires_at = self._clock() + int(HOLD_SECONDS * moments.MICROSECONDS)
            renew = sa.update(quota_holds).where(quota_holds.c.owner == self._owner).values(expires_at=expires_at)
            with contextlib.suppress(ProviderError):
                await self._database.transact(lambda connection, renew=renew: connection.execute(renew))  # type: ignore[misc]
        self._renewing = None


__all__ = ["REQUESTS", "TENANT", "StoredBudgets", "parts", "scope", "unit"]
