"""Limits per minute, hour, day or month, and the calls of a whole tenant. Implements ``ports.Quotas``.

Every limit is set, listed and removed here. Those of all calls of a tenant, which every call meets, are counted here
too; those of other scopes and units are counted by ``budgets``.

The unit of a call is counted before the call is tried, in a transaction that everybody shares who waits at the same
moment. So a limit is never exceeded by one, in any number of processes, and a process holds nothing that it could take
with it when it is killed. A tenant without such limits costs a look into a dictionary.
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
from erp.control_plane.quota_rows import Admission, Tally, Window
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.tables import quota_usage, quotas
from erp.control_plane.tenants import require
from erp.errors import FieldError, ProviderError

BATCH = 1000
"""Calls that one transaction counts at most."""
QUIET_TURNS = 2
"""Turns of the event loop in which nobody came: what has arrived meanwhile is read in one and run in the next."""
REMEMBERED = 100_000
"""Tenants whose limits are remembered."""
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
class _Wanted:
    """A call that waits until its units are counted."""

    tenant: str
    units: int
    done: asyncio.Future[Window | None]
    """The limit that does not hold it; None: it may be made."""


@dataclass(slots=True)
class _Known:
    """What this process has seen of the limits since they changed last."""

    windows: dict[str, tuple[Window, ...]] = field(default_factory=dict)
    full: dict[str, Window] = field(default_factory=dict)
    """Limits that have nothing left: nothing is given back, so the database need not be asked again."""

    def learn(self, tenant: str, admission: Admission) -> None:
        if len(self.windows) >= REMEMBERED:
            self.windows.clear()
            self.full.clear()
        self.windows[tenant] = admission.windows
        if admission.full is not None:
            self.full[tenant] = admission.full


class StoredQuotas:
    """The quotas of all tenants."""

    def __init__(self, database: Database, revisions: Revisions, *, clock: Callable[[], int] = moments.now) -> None:
        self._database = database
        self._revisions = revisions
        self._clock = clock
        self._tally = Tally(database.dialect)
        self._known = _Known()
        self._waiting: list[_Wanted] = []
        self._writer: asyncio.Task[None] | None = None
        revisions.watch(Topic.QUOTAS, self._forget)

    def _forget(self) -> None:
        self._known = _Known()

    async def reserve(self, tenant: str, units: int = 1) -> None:
        if time.monotonic() >= self._revisions.trusted_until:
            await self._revisions.refresh()
        if self._known.windows.get(tenant) == ():
            return
        refusal = self._known.full.get(tenant)
        if refusal is None or not refusal.holds(self._clock()):
            refusal = await self._counted(tenant, units)
        if refusal is not None:
            raise self._exhausted(refusal)

    async def _counted(self, tenant: str, units: int) -> Window | None:
        """Wait for the transaction that counts ``units``."""
        wanted = _Wanted(tenant, units, asyncio.get_running_loop().create_future())
        self._waiting.append(wanted)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="quotas")
        return await wanted.done

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                await self._count([item for item in batch if not item.done.done()])
        finally:
            self._writer = None

    async def _gather(self) -> None:
        """Wait for those who are about to come: a transaction costs as much for many as for one."""
        quiet = 0
        while quiet < QUIET_TURNS and len(self._waiting) < BATCH:
            known = len(self._waiting)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._waiting) == known else 0

    async def _count(self, batch: list[_Wanted]) -> None:
        """Count what a batch needs; those who left before are not counted."""
        calls: dict[str, list[_Wanted]] = {}
        for item in batch:
            calls.setdefault(item.tenant, []).append(item)
        units = {tenant: [item.units for item in items] for tenant, items in calls.items()}
        known = self._known
        single = {tenant: found[0] for tenant in calls if len(found := known.windows.get(tenant, ())) == 1}
        work = partial(self._tally.admit, calls=units, known=single, now=self._clock())
        try:
            admissions = await self._database.count(work)
        except Exception as error:  # noqa: BLE001  (whoever waits is told)
            for item in batch:
                _tell(item.done, error)
            return
        for tenant, admission in admissions.items():
            known.learn(tenant, admission)  # of no use when the limits changed meanwhile: others are asked then
            for item, refusal in zip(calls[tenant], admission.refusals, strict=True):
                _tell(item.done, refusal)

    def _exhausted(self, window: Window) -> ProviderError:
        seconds = max((window.ends_at - self._clock()) / moments.MICROSECONDS, 0.001)
        message = f"The quota of {window.limit} units per {window.period} is used up."
        return ProviderError(ErrorCode.QUOTA_EXHAUSTED, message, retry_after_seconds=seconds)

    # -- limits ----------------------------------------------------------------------------------

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
        rows = await self._database.run(partial(_used, tenant))
        found = []
        for name, limit, usage in sorted(rows, key=_order):
            starts_at, ends_at = bounds(name.period, now)
            used = usage.get(starts_at, 0)
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
        """Return when nobody waits any more. Safe twice."""
        while self._writer is not None:
            await asyncio.shield(self._writer)


def _tell(done: asyncio.Future[Window | None], outcome: Window | Exception | None) -> None:
    """Wake up who waits, unless it left."""
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


def _period(text: str) -> Period:
    if text not in PERIODS:
        problem = FieldError("/period", f"Use one of {', '.join(PERIODS)}.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "There is no such period.", errors=[problem])
    return text


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
