"""Limits per minute, hour, day or month, and the calls of a whole tenant. Implements ``ports.Quotas``.

Every limit is set, listed and removed here. Those of all calls of a tenant, which every call meets, are kept here
too; those of other scopes and units are kept by ``budgets``.

A process leases blocks of units from the database and hands them out from memory. A block is taken
by one conditional update (``used + n <= limit``), so a limit is never exceeded by one, in any
number of processes; what is left of blocks is given back at close. After a crash it is lost until
the period ends: a quota errs on the side of less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import budgets, moments
from erp.control_plane.database import Database
from erp.control_plane.expected import expect
from erp.control_plane.periods import PERIODS, Period, bounds
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import quota_usage, quotas
from erp.control_plane.tenants import require
from erp.errors import FieldError, ProviderError

BLOCKS_PER_LIMIT = 100
LARGEST_BLOCK = 1000
EXHAUSTED_SECONDS = 0.5
MAX_UNITS = 2**53


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A limit and what is used of it in the present period."""

    tenant: str
    scope: str = budgets.TENANT
    unit: str = budgets.REQUESTS
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

    async def set(
        self,
        tenant: str,
        period: str,
        limit: int,
        *,
        scope: str = budgets.TENANT,
        unit: str = budgets.REQUESTS,
        revision: str | None = None,
    ) -> Quota:
        """Set how many units ``tenant`` may use in a ``period``.

        Args:
            tenant: whose quota it is.
            period: one of ``PERIODS``.
            limit: units in each period; money in minor units of its currency.
            scope: ``tenant``, ``actor:ID``, ``provider:DOMAIN/NAME`` or ``action:GROUP.NAME``.
            unit: ``requests``, ``bytes``, ``tokens`` or ``money:CURRENCY``.
            revision: the one the quota must have now; empty: it must not exist; None: any or none.

        Raises:
            ProviderError: ``invalid_argument``, ``not_found`` when the tenant does not exist, ``conflict``.
        """
        name = _Name(tenant, budgets.scope(scope), budgets.unit(unit), _period(period))
        if not 0 <= limit <= MAX_UNITS:
            problem = FieldError("/limit", f"Use a number from 0 to {MAX_UNITS}.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The limit is not valid.", errors=[problem])
        await self._database.transact(counted(partial(_set, name, limit, revision), Topic.QUOTAS))
        self._revisions.announce(Topic.QUOTAS)
        wanted = (name.scope, name.unit, name.period)
        return next(quota for quota in await self.list(tenant) if (quota.scope, quota.unit, quota.period) == wanted)

    async def delete(
        self,
        tenant: str,
        period: str,
        *,
        scope: str = budgets.TENANT,
        unit: str = budgets.REQUESTS,
        revision: str | None = None,
    ) -> bool:
        """Remove a limit; False when there was none.

        Raises:
            ProviderError: ``conflict`` when a ``revision`` is given and the quota has another.
        """
        name = _Name(tenant, budgets.scope(scope), budgets.unit(unit), _period(period))
        remove = counted(partial(_delete, name, revision), Topic.QUOTAS)
        is_removed = await self._database.transact(remove)
        self._revisions.announce(Topic.QUOTAS)
        return is_removed

    async def list(self, tenant: str) -> list[Quota]:
        """Return the quotas of ``tenant``: those of all its calls first, then by scope and unit; shortest period first."""
        now = self._clock()
        account = self._accounts.get(tenant)
        unused = {(lease.period, lease.starts_at): lease.left for lease in account.leases} if account else {}
        rows = await self._database.run(partial(_used, tenant))
        found = []
        for name, limit, usage in sorted(rows, key=_order):
            starts_at, ends_at = bounds(name.period, now)
            used = usage.get(starts_at, 0)
            if name.is_of_all_calls:
                used -= unused.get((name.period, starts_at), 0)
            found.append(
                Quota(
                    tenant=tenant,
                    scope=name.scope,
                    unit=name.unit,
                    period=name.period,
                    revision=str(limit),
                    limit=limit,
                    used=-(-used // budgets.parts(name.unit)),
                    resets_at=moments.text(ends_at),
                )
            )
        return found

    async def close(self) -> None:
        """Give back what was leased and not used. Safe twice."""
        left = {tenant: account.leases for tenant, account in self._accounts.items() if account.leases}
        self._accounts.clear()
        if left:
            await self._database.transact(partial(_give_back, left))


def _period(text: str) -> Period:
    if text not in PERIODS:
        problem = FieldError("/period", f"Use one of {', '.join(PERIODS)}.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "There is no such period.", errors=[problem])
    return text


def _lease(period: Period, limit: int, now: int) -> _Lease:
    starts_at, ends_at = bounds(period, now)
    return _Lease(period, limit, starts_at, ends_at)


class _Name(NamedTuple):
    """What names a quota."""

    tenant: str
    scope: str
    unit: str
    period: Period

    @property
    def is_of_all_calls(self) -> bool:
        """Whether every call of the tenant takes one unit of it."""
        return (self.scope, self.unit) == (budgets.TENANT, budgets.REQUESTS)

    def where(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """Its rows in ``table``."""
        columns = table.c
        mine = sa.and_(columns.tenant == self.tenant, columns.scope == self.scope)
        return sa.and_(mine, columns.unit == self.unit, columns.period == self.period)


def _order(row: tuple[_Name, int, dict[int, int]]) -> tuple[bool, str, str, int]:
    name = row[0]
    return not name.is_of_all_calls, name.scope, name.unit, PERIODS.index(name.period)


def _all_calls(tenant: str, period: Period) -> _Name:
    return _Name(tenant, budgets.TENANT, budgets.REQUESTS, period)


def _limits(tenant: str, connection: sa.Connection) -> list[tuple[Period, int]]:
    """Return the limits of all calls."""
    columns = quotas.c
    mine = sa.and_(columns.tenant == tenant, columns.scope == budgets.TENANT, columns.unit == budgets.REQUESTS)
    found = {row.period: row.units for row in connection.execute(sa.select(quotas).where(mine))}
    return [(period, found[period]) for period in PERIODS if period in found]


def _used(tenant: str, connection: sa.Connection) -> list[tuple[_Name, int, dict[int, int]]]:
    """Return every limit with what is used by the starts of its periods."""
    usage: dict[_Name, dict[int, int]] = {}
    for row in connection.execute(sa.select(quota_usage).where(quota_usage.c.tenant == tenant)):
        usage.setdefault(_Name(tenant, row.scope, row.unit, row.period), {})[row.period_start] = row.used
    limits = connection.execute(sa.select(quotas).where(quotas.c.tenant == tenant))
    names = ((_Name(tenant, row.scope, row.unit, row.period), row.units) for row in limits)
    return [(name, limit, usage.get(name, {})) for name, limit in names]


def _expect(name: _Name, wanted: str | None, connection: sa.Connection) -> None:
    units = connection.execute(sa.select(quotas.c.units).where(name.where(quotas)).with_for_update()).scalar()
    expect("quota", wanted, None if units is None else str(units))


def _delete(name: _Name, wanted: str | None, connection: sa.Connection) -> bool:
    _expect(name, wanted, connection)
    return connection.execute(sa.delete(quotas).where(name.where(quotas))).rowcount > 0


def _set(name: _Name, limit: int, wanted: str | None, connection: sa.Connection) -> None:
    require(connection, name.tenant, alone=True)
    _expect(name, wanted, connection)
    if not connection.execute(sa.update(quotas).where(name.where(quotas)).values(units=limit)).rowcount:
        connection.execute(sa.insert(quotas).values(**name._asdict(), units=limit))


def _take_block(tenant: str, lease: _Lease, block: int, needed: int, connection: sa.Connection) -> int:
    """Take ``block`` units, or at least those ``needed``; return how many were taken."""
    _begin_period(tenant, lease, connection)
    table = quota_usage.c
    limit = sa.select(quotas.c.units).where(_all_calls(tenant, lease.period).where(quotas))
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
    name = _all_calls(tenant, lease.period)
    row = {**name._asdict(), "period_start": lease.starts_at, "used": 0}
    if connection.execute(insert_new(connection.dialect, quota_usage), row).rowcount > 0:
        past = quota_usage.c.period_start < lease.starts_at - (lease.ends_at - lease.starts_at)
        connection.execute(sa.delete(quota_usage).where(name.where(quota_usage), past))


def _give_back(accounts: dict[str, list[_Lease]], connection: sa.Connection) -> None:
    for tenant, leases in sorted(accounts.items()):
        for lease in leases:
            if lease.left:
                used = quota_usage.c.used - lease.left
                connection.execute(sa.update(quota_usage).where(_is(tenant, lease)).values(used=used))


def _is(tenant: str, lease: _Lease) -> sa.ColumnElement[bool]:
    mine = _all_calls(tenant, lease.period).where(quota_usage)
    return sa.and_(mine, quota_usage.c.period_start == lease.starts_at)
