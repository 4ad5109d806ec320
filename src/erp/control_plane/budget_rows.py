"""One transaction of the budgets: usage is locked, changed in memory and written once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from erp.control_plane.periods import Period, bounds
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import quota_holds, quota_usage, quotas

TENANT = "tenant"
REQUESTS = "requests"
MILLION = 1_000_000


def parts(unit: str) -> int:
    """How many stored parts one unit has: prices are fractions of the minor unit."""
    return MILLION if unit.startswith("money:") else 1


def counted(unit: str, units: Mapping[str, int]) -> int | None:
    """Return what ``units`` say of ``unit``: ``money`` stands for every currency that is not named."""
    return units.get(unit, units.get("money") if unit.startswith("money:") else None)


class Limit(msgspec.Struct, frozen=True):
    """What may be used in one period."""

    tenant: str
    scope: str
    unit: str
    period: Period
    units: int

    def ends_at(self, now: int) -> int:
        """When the present period ends."""
        return bounds(self.period, now)[1]

    def key(self, now: int) -> Key:
        """The row that counts its usage now."""
        return Key(self.tenant, self.scope, self.unit, self.period, bounds(self.period, now)[0])


class Key(NamedTuple):
    """A row of usage."""

    tenant: str
    scope: str
    unit: str
    period: Period
    period_start: int

    def where(self) -> sa.ColumnElement[bool]:
        """Its row."""
        return sa.and_(*(quota_usage.c[name] == value for name, value in self._asdict().items()))


@dataclass(frozen=True, slots=True)
class Held:
    """What one running call has reserved."""

    id: str
    tenant: str
    units: dict[Key, int]

    def includes(self, unit: str) -> bool:
        """Whether a limit of ``unit`` concerns the call."""
        return any(key.unit == unit for key in self.units)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a call has used, by unit, in the place of what it held."""

    held: Held
    units: Mapping[str, int]


class Ledger:
    """The limits and the usage of some tenants, locked until the transaction ends."""

    def __init__(
        self, connection: sa.Connection, tenants: Sequence[str], now: int, owner: str, expires_at: int
    ) -> None:
        self._connection = connection
        self._now = now
        self._owner = owner
        self._expires_at = expires_at
        self._limits = self.limits(connection, tenants)
        self._stored = self._locked(tenants)
        self._used = dict(self._stored)
        self._holds: list[dict[str, str | int]] = []
        self._swept: set[str] = set()

    @staticmethod
    def limits(connection: sa.Connection, tenants: Sequence[str]) -> dict[str, tuple[Limit, ...]]:
        """Return the limits of ``tenants`` but those of all calls, which ``quotas`` keeps."""
        columns = quotas.c
        special = sa.or_(columns.scope != TENANT, columns.unit != REQUESTS)
        order = (columns.tenant, columns.scope, columns.unit, columns.period)
        rows = connection.execute(sa.select(quotas).where(columns.tenant.in_(tenants), special).order_by(*order)).all()
        found: dict[str, list[Limit]] = {tenant: [] for tenant in tenants}
        for row in rows:
            found[row.tenant].append(Limit(row.tenant, row.scope, row.unit, row.period, row.units))
        return {tenant: tuple(limits) for tenant, limits in found.items()}

    def _locked(self, tenants: Sequence[str]) -> dict[Key, int]:
        """Begin the present periods; lock and return all usage in the order of its key."""
        keys = sorted(limit.key(self._now) for limits in self._limits.values() for limit in limits)
        if keys:
            rows = [{**key._asdict(), "used": 0} for key in keys]
            self._connection.execute(insert_new(self._connection.dialect, quota_usage), rows)
        columns = quota_usage.c
        special = sa.or_(columns.scope != TENANT, columns.unit != REQUESTS)
        order = (columns.tenant, columns.scope, columns.unit, columns.period, columns.period_start)
        statement = sa.select(quota_usage).where(columns.tenant.in_(tenants), special).order_by(*order)
        found = self._connection.execute(statement.with_for_update())
        return {Key(*(getattr(row, name) for name in Key._fields)): row.used for row in found}

    def reserve(self, tenant: str, scopes: frozenset[str], units: Mapping[str, int]) -> Held | Limit:
        """Reserve ``units`` of every limit that they count against, or of none: then return the one that is too small."""
        taken: dict[Key, int] = {}
        for limit in self._limits[tenant]:
            wanted = counted(limit.unit, units)
            if limit.scope not in scopes or wanted is None:
                continue
            key = limit.key(self._now)
            if not self._fits(limit, key, wanted):
                return limit
            taken[key] = wanted
        for key, wanted in taken.items():
            self._used[key] += wanted
        held = Held(os.urandom(12).hex(), tenant, taken)
        self._keep(held)
        return held

    def _fits(self, limit: Limit, key: Key, wanted: int) -> bool:
        most = limit.units * parts(limit.unit)
        if self._used[key] + wanted > most and limit.tenant not in self._swept:
            self._sweep(limit.tenant)
        return self._used[key] + wanted <= most

    def _keep(self, held: Held) -> None:
        common = {"id": held.id, "owner": self._owner, "expires_at": self._expires_at}
        # A request is used when it is admitted: there is nothing to settle, and nothing to give back.
        rows = [
            {**key._asdict(), **common, "units": units} for key, units in held.units.items() if key.unit != REQUESTS
        ]
        self._holds.extend(rows)

    def settle(self, settlement: Settlement) -> None:
        """Put what was used in the place of what was held; a hold that was swept meanwhile is not taken off again."""
        held = settlement.held
        columns = quota_holds.c
        mine = sa.and_(columns.tenant == held.tenant, columns.id == held.id)
        is_there = self._connection.execute(sa.delete(quota_holds).where(mine)).rowcount > 0
        for key, reserved in held.units.items():
            if key.unit == REQUESTS or key not in self._used:
                continue
            used = counted(key.unit, settlement.units) or 0
            self._used[key] += used - reserved if is_there else used

    def _sweep(self, tenant: str) -> None:
        """Give back what calls of killed processes held."""
        self._swept.add(tenant)
        columns = quota_holds.c
        expired = sa.and_(columns.tenant == tenant, columns.expires_at < self._now)
        for row in self._connection.execute(sa.select(quota_holds).where(expired)).all():
            key = Key(*(getattr(row, name) for name in Key._fields))
            if key in self._used:
                self._used[key] -= row.units
        self._connection.execute(sa.delete(quota_holds).where(expired))

    def write(self) -> None:
        """Write what has changed, and forget periods that ended two periods ago."""
        if self._holds:
            self._connection.execute(sa.insert(quota_holds), self._holds)
        for key, used in self._used.items():
            if used != self._stored[key]:
                self._connection.execute(sa.update(quota_usage).where(key.where()).values(used=used))
            starts_at, ends_at = bounds(key.period, self._now)
            if key.period_start < starts_at - (ends_at - starts_at):
                self._connection.execute(sa.delete(quota_usage).where(key.where()))
