"""Units a tenant may use per minute, hour, day or month. Implements ``ports.Quotas``.

A process leases blocks of units from the database and hands them out from memory. A block is taken
by one conditional update (``used + n <= limit``), so a limit is never exceeded by one, in any
number of processes; what is left of blocks is given back at close. After a crash it is lost until
the period ends: a quota errs on the side of less.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.expected import expect
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import quota_usage, quotas
from erp.control_plane.tenants import require
from erp.errors import FieldError, ProviderError

Period = Literal["minute", "hour", "day", "month"]
PERIODS: tuple[Period, ...] = ("minute", "hour", "day", "month")

BLOCKS_PER_LIMIT = 100
LARGEST_BLOCK = 1000
EXHAUSTED_SECONDS = 0.5
MAX_UNITS = 2**53


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A limit and what is used of it in the present period."""

    tenant: str
    period: Period
    revision: str
    """Changes with every change of the limit."""
    limit: int
    used: int
    resets_at: str


@dataclass(slots=True)
class _Lease:
    """Units of one period that this process may hand out."""

    period: Period
    limit: int
    starts_at: int
    ends_at: int
    left: int = 0
    exhausted_until: float = 0.0
    """Monotonic time before which the database need not be asked again."""


@dataclass(slots=True)
class _Account:
    """What this process knows about a tenant's quotas."""

    leases: list[_Lease] = field(default_factory=list)
    generation: int = -1
    """Of the limits it was loaded from."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class LeasedQuotas:
    """The quotas of all tenants."""

    def __init__(self, database: Database, revisions: Revisions, *, clock: Callable[[], int] = moments.now) -> None:
        self._database = database
        self._revisions = revisions
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._generation = 0
        revisions.watch(Topic.QUOTAS, self._forget)

    async def reserve(self, tenant: str, units: int = 1) -> None:
        if time.monotonic() >= self._revisions.trusted_until:
            await self._revisions.refresh()
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = _Account()
        if account.generation != self._generation:
            await self._load(tenant, account)
        if account.leases and not self._take(account, units):
            await self._reserve_slowly(tenant, account, units)

    def _take(self, account: _Account, units: int) -> bool:
        """Hand out ``units`` of every lease, or of none."""
        now = self._clock()
        if any(lease.left < units or not lease.starts_at <= now < lease.ends_at for lease in account.leases):
            return False
        for lease in account.leases:
            lease.left -= units
        return True

    async def _reserve_slowly(self, tenant: str, account: _Account, units: int) -> None:
        async with account.lock:
            while not self._take(account, units):
                self._renew(account)
                for lease in account.leases:
                    if lease.left < units:
                        await self._extend(tenant, lease, units)

    def _renew(self, account: _Account) -> None:
        """Put the present period in the place of one that has ended, or not begun: the clock was set back."""
        now = self._clock()
        account.leases = [
            lease if lease.starts_at <= now < lease.ends_at else _lease(lease.period, lease.limit, now)
            for lease in account.leases
        ]

    async def _extend(self, tenant: str, lease: _Lease, units: int) -> None:
        if time.monotonic() < lease.exhausted_until:
            raise self._exhausted(lease)
        block = max(units, min(LARGEST_BLOCK, lease.limit // BLOCKS_PER_LIMIT))
        taken = await self._database.transact(partial(_take_block, tenant, lease, block, units - lease.left))
        lease.left += taken
        if not taken:
            if units == 1:
                lease.exhausted_until = time.monotonic() + EXHAUSTED_SECONDS
            raise self._exhausted(lease)

    def _exhausted(self, lease: _Lease) -> ProviderError:
        seconds = max((lease.ends_at - self._clock()) / moments.MICROSECONDS, 0.001)
        message = f"The quota of {lease.limit} units per {lease.period} is used up."
        return ProviderError(ErrorCode.QUOTA_EXHAUSTED, message, retry_after_seconds=seconds)

    # -- limits ----------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._generation += 1
        for tenant, account in list(self._accounts.items()):
            if not account.leases and not account.lock.locked():
                del self._accounts[tenant]

    async def _load(self, tenant: str, account: _Account) -> None:
        """Read the limits of ``tenant``, giving back what was leased under the old ones."""
        async with account.lock:
            while account.generation != self._generation:
                generation = self._generation
                leases, account.leases = account.leases, []
                if leases:
                    await self._database.transact(partial(_give_back, {tenant: leases}))
                limits = await self._database.run(partial(_limits, tenant))
                now = self._clock()
                account.leases = [_lease(period, limit, now) for period, limit in limits]
                account.generation = generation

    async def set(self, tenant: str, period: str, limit: int, *, revision: str | None = None) -> Quota:
        """Set how many units ``tenant`` may use in a ``period``.

        Args:
            tenant: whose quota it is.
            period: one of ``PERIODS``.
            limit: units in each period.
            revision: the one the quota must have now; empty: it must not exist; None: any or none.

        Raises:
            ProviderError: ``invalid_argument``, ``not_found`` when the tenant does not exist, ``conflict``.
        """
        found = _period(period)
        if not 0 <= limit <= MAX_UNITS:
            problem = FieldError("/limit", f"Use a number from 0 to {MAX_UNITS}.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The limit is not valid.", errors=[problem])
        await self._database.transact(counted(partial(_set, tenant, found, limit, revision), Topic.QUOTAS))
        self._revisions.announce(Topic.QUOTAS)
        return next(quota for quota in await self.list(tenant) if quota.period == period)

    async def delete(self, tenant: str, period: str, *, revision: str | None = None) -> bool:
        """Remove a limit; False when there was none.

        Raises:
            ProviderError: ``conflict`` when a ``revision`` is given and the quota has another.
        """
        remove = counted(partial(_delete, tenant, _period(period), revision), Topic.QUOTAS)
        is_removed = await self._database.transact(remove)
        self._revisions.announce(Topic.QUOTAS)
        return is_removed

    async def list(self, tenant: str) -> list[Quota]:
        """Return the quotas of ``tenant``, shortest period first."""
        now = self._clock()
        account = self._accounts.get(tenant)
        unused = {(lease.period, lease.starts_at): lease.left for lease in account.leases} if account else {}
        limits = await self._database.run(partial(_limits, tenant))
        usage = await self._database.run(partial(_usage, tenant))
        found = []
        for period, limit in limits:
            starts_at, ends_at = bounds(period, now)
            used = usage.get((period, starts_at), 0) - unused.get((period, starts_at), 0)
            resets_at = moments.text(ends_at)
            found.append(
                Quota(
                    tenant=tenant,
                    period=period,
                    revision=str(limit),
                    limit=limit,
                    used=used,
                    resets_at=resets_at,
                )
            )
        return found

    async def close(self) -> None:
        """Give back what was leased and not used. Safe twice."""
        left = {tenant: account.leases for tenant, account in self._accounts.items() if account.leases}
        self._accounts.clear()
        if left:
            await self._database.transact(partial(_give_back, left))


def bounds(period: Period, moment: int) -> tuple[int, int]:
    """Return the moments at which the ``period`` around ``moment`` begins and ends (UTC)."""
    at = datetime.datetime.fromtimestamp(moment / moments.MICROSECONDS, datetime.UTC).replace(second=0, microsecond=0)
    if period == "minute":
        return moments.of(at), moments.of(at + datetime.timedelta(minutes=1))
    at = at.replace(minute=0)
    if period == "hour":
        return moments.of(at), moments.of(at + datetime.timedelta(hours=1))
    at = at.replace(hour=0)
    if period == "day":
        return moments.of(at), moments.of(at + datetime.timedelta(days=1))
    at = at.replace(day=1)
    return moments.of(at), moments.of((at + datetime.timedelta(days=32)).replace(day=1))


def _period(text: str) -> Period:
    if text not in PERIODS:
        problem = FieldError("/period", f"Use one of {', '.join(PERIODS)}.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "There is no such period.", errors=[problem])
    return text


def _lease(period: Period, limit: int, now: int) -> _Lease:
    starts_at, ends_at = bounds(period, now)
    return _Lease(period, limit, starts_at, ends_at)


def _limits(tenant: str, connection: sa.Connection) -> list[tuple[Period, int]]:
    rows = connection.execute(sa.select(quotas.c.period, quotas.c.units).where(quotas.c.tenant == tenant))
    found = {row.period: row.units for row in rows}
    return [(period, found[period]) for period in PERIODS if period in found]


def _usage(tenant: str, connection: sa.Connection) -> dict[tuple[str, int], int]:
    table = quota_usage.c
    rows = connection.execute(sa.select(table.period, table.period_start, table.used).where(table.tenant == tenant))
    return {(period, starts_at): used for period, starts_at, used in rows}


def _expect(tenant: str, period: Period, wanted: str | None, connection: sa.Connection) -> None:
    table = quotas.c
    statement = sa.select(table.units).where(table.tenant == tenant, table.period == period).with_for_update()
    units = connection.execute(statement).scalar()
    expect("quota", wanted, None if units is None else str(units))


def _delete(tenant: str, period: Period, wanted: str | None, connection: sa.Connection) -> bool:
    _expect(tenant, period, wanted, connection)
    table = quotas.c
    statement = sa.delete(quotas).where(table.tenant == tenant, table.period == period)
    return connection.execute(statement).rowcount > 0


def _set(tenant: str, period: Period, limit: int, wanted: str | None, connection: sa.Connection) -> None:
    require(connection, tenant, alone=True)
    _expect(tenant, period, wanted, connection)
    table = quotas.c
    mine = sa.update(quotas).where(table.tenant == tenant, table.period == period).values(units=limit)
    if not connection.execute(mine).rowcount:
        connection.execute(sa.insert(quotas).values(tenant=tenant, period=period, units=limit))


def _take_block(tenant: str, lease: _Lease, block: int, needed: int, connection: sa.Connection) -> int:
    """Take ``block`` units, or at least those ``needed``; return how many were taken."""
    _begin_period(tenant, lease, connection)
    table = quota_usage.c
    limit = sa.select(quotas.c.units).where(quotas.c.tenant == tenant, quotas.c.period == lease.period)
    for units in (block, needed):
        take = (
            sa.update(quota_usage)
            .where(_is(tenant, lease), table.used + units <= limit.scalar_subquery())
            .values(used=table.used + units)
        )
        if connection.execute(take).rowcount:
            return units
    return 0


def _begin_period(tenant: str, lease: _Lease, connection: sa.Connection) -> None:
    row = {"tenant": tenant, "period": lease.period, "period_start": lease.starts_at, "used": 0}
    if connection.execute(insert_new(connection.dialect, quota_usage), row).rowcount > 0:
        table = quota_usage.c
        past = table.period_start < lease.starts_at - (lease.ends_at - lease.starts_at)
        mine = sa.and_(table.tenant == tenant, table.period == lease.period)
        connection.execute(sa.delete(quota_usage).where(mine, past))


def _give_back(accounts: dict[str, list[_Lease]], connection: sa.Connection) -> None:
    for tenant, leases in sorted(accounts.items()):
        for lease in leases:
            if lease.left:
                used = quota_usage.c.used - lease.left
                connection.execute(sa.update(quota_usage).where(_is(tenant, lease)).values(used=used))


def _is(tenant: str, lease: _Lease) -> sa.ColumnElement[bool]:
    table = quota_usage.c
    return sa.and_(table.tenant == tenant, table.period == lease.period, table.period_start == lease.starts_at)
