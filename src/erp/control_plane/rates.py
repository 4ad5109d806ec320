"""Rate limits of tenants and of API keys that several processes share: tokens are leased from the database in small numbers.

A token bucket per owner (a tenant, a key) lives in one row. A process takes as many tokens as it may use up in a fraction of a second,
hands them out from memory, and lets go of what is left when that time is over: the limit is never exceeded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import rates

if TYPE_CHECKING:
    from erp.runtime.call_policy import Rate

LEASE_SECONDS = 0.25
MILLION = 1_000_000
"""Tokens are kept in millionths."""


@dataclass(slots=True)
class _Held:
    """Tokens that this process may hand out."""

    settings: Rate | None = None
    tokens: int = 0
    until: float = 0.0
    empty_until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class SharedRates:
    """Implements ``ports.Rates``, on a table whose primary key names the owner of a bucket."""

    def __init__(self, database: Database, table: sa.Table = rates, *, clock: Callable[[], int] = moments.now) -> None:
        self._database = database
        self._table = table
        self._clock = clock
        self._held: dict[str, _Held] = {}

    async def take(self, owner: str, settings: Rate) -> float:
        held = self._held.setdefault(owner, _Held())
        if self._handed_out(held, settings):
            return 0.0
        async with held.lock:
            if self._handed_out(held, settings):
                return 0.0
            wait = held.empty_until - time.monotonic()
            if wait > 0 and held.settings == settings:
                return wait
            granted, wait = await self._database.transact(partial(_lease, self._table, owner, settings, self._clock()))
            now = time.monotonic()
            held.settings, held.tokens, held.until = settings, max(granted - 1, 0), now + LEASE_SECONDS
            held.empty_until = now + wait if not granted else 0.0
            return wait

    def _handed_out(self, held: _Held, settings: Rate) -> bool:
        if held.tokens < 1 or held.settings != settings or time.monotonic() >= held.until:
            return False
        held.tokens -= 1
        return True


def _lease(table: sa.Table, owner: str, settings: Rate, now: int, connection: sa.Connection) -> tuple[int, float]:
    """Return how many tokens were granted, and without any how many seconds to wait for one."""
    burst = (settings.burst or settings.requests) * MILLION
    per_second = settings.requests / settings.period_seconds
    (key,) = table.primary_key.columns
    connection.execute(insert_new(connection.dialect, table), {key.name: owner, "tokens": burst, "stamp": now})
    row = connection.execute(sa.select(table).where(key == owner).with_for_update()).one()
    elapsed = max(now - row.stamp, 0) / moments.MICROSECONDS
    tokens = min(burst, row.tokens + int(elapsed * per_second * MILLION))
    granted = min(tokens // MILLION, max(1, int(per_second * LEASE_SECONDS)))
    values = {"tokens": tokens - granted * MILLION, "stamp": max(now, row.stamp)}
    connection.execute(sa.update(table).where(key == owner).values(values))
    return granted, 0.0 if granted else (MILLION - tokens) / MILLION / per_second
