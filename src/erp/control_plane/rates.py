"""Rate limits of tenants, API keys and connections that several processes share: tokens are leased from the database in small numbers.

A token bucket per owner (a tenant, a key, a connection) lives in one row. A process takes as many tokens as it may use up in a fraction
of a second, hands them out from memory, and lets go of what is left when that time is over. A token may so be used a moment after it was
taken; the bucket holds as many fewer as come in meanwhile, so that the limit is never exceeded.
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
    """Implements ``ports.Rates``, on a table whose primary key names the owner of a bucket: in as many parts as the key has columns."""

    def __init__(self, database: Database, table: sa.Table = rates, *, clock: Callable[[], int] = moments.now) -> None:
        self._database = database
        self._table = table
        self._clock = clock
        self._held: dict[str | tuple[str, str], _Held] = {}

    async def take(self, owner: str | tuple[str, str], settings: Rate) -> float:
        held = self._held.setdefault(owner, _Held())
        if self._handed_out(held, settings):
            return 0.0
        async with held.lock:
            if self._handed_out(held, settings):
                return 0.0
            wait = held.empty_until - time.monotonic()
            if wait > 0 and held.settings == settings:
                return wait
            asked_at = time.monotonic()
            names = (owner,) if isinstance(owner, str) else owner
            granted, wait = await self._database.count(partial(_lease, self._table, names, settings, self._clock()))
            held.settings, held.tokens, held.until = settings, max(granted - 1, 0), asked_at + _seconds(settings)
            held.empty_until = time.monotonic() + wait if not granted else 0.0
            return wait

    def _handed_out(self, held: _Held, settings: Rate) -> bool:
        if held.tokens < 1 or held.settings != settings or time.monotonic() >= held.until:
            return False
        held.tokens -= 1
        return True


def _lease(
    table: sa.Table, names: tuple[str, ...], settings: Rate, now: int, connection: sa.Connection
) -> tuple[int, float]:
    """Return how many tokens were granted, and without any how many seconds to wait for one."""
    block, burst = _block(settings)
    per_second = settings.requests / settings.period_seconds
    key = {column.name: name for column, name in zip(table.primary_key.columns, names, strict=True)}
    mine = sa.and_(*(table.c[column] == name for column, name in key.items()))
    connection.execute(insert_new(connection.dialect, table), {**key, "tokens": burst, "stamp": now})
    row = connection.execute(sa.select(table).where(mine).with_for_update()).one()
    elapsed = max(now - row.stamp, 0) / moments.MICROSECONDS
    tokens = min(burst, row.tokens + int(elapsed * per_second * MILLION))
    granted = min(tokens // MILLION, block)
    values = {"tokens": tokens - granted * MILLION, "stamp": max(now, row.stamp)}
    connection.execute(sa.update(table).where(mine).values(values))
    return granted, 0.0 if granted else (MILLION - tokens) / MILLION / per_second


def _seconds(settings: Rate) -> float:
    """How long tokens that were taken at once can be used: while as many come in."""
    return _block(settings)[0] * settings.period_seconds / settings.requests


def _block(settings: Rate) -> tuple[int, int]:
    """Return how many tokens are taken at once, and how many millionths the bucket then holds.

    The last of them may be used only when as many more have come in.
    """
    burst = settings.burst or settings.requests
    comes_in = int(settings.requests / settings.period_seconds * LEASE_SECONDS)
    block = max(1, min(comes_in, burst // 2))
    return block, (burst - block if comes_in and burst > 1 else burst) * MILLION
