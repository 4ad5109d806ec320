"""Break-glass: a further role for one actor, for a limited time, with a reason, and where a tenant asks with a second approver."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Literal

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors, moments
from erp.control_plane.database import Database
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import break_glass_rules, elevations
from erp.control_plane.tenants import require
from erp.errors import FieldError, ProviderError

MINUTE = 60 * moments.MICROSECONDS
WAITS_MINUTES = 60
"""How long a request waits for its approval."""

ElevationState = Literal["waiting", "active", "over", "ended", "lapsed"]


class BreakGlassRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tenant allows."""

    needs_approval: bool = False
    longest_minutes: int = 60
    roles: list[str] = msgspec.field(default_factory=lambda: ["operator", "admin"])
    """Roles that may be taken on."""


class Elevation(msgspec.Struct, frozen=True, kw_only=True):
    """One elevation, from its request to its end."""

    tenant: str
    id: str
    actor: str
    role: str
    reason: str
    request_id: str
    minutes: int
    requested_at: int
    approved_by: str | None = None
    began_at: int | None = None
    ends_at: int | None = None
    ended_at: int | None = None
    ended_by: str | None = None

    def state(self, now: int) -> ElevationState:
        """Return what it is at the moment ``now``."""
        if self.ended_at is not None:
            return "ended"
        if self.ends_at is not None:
            return "active" if now < self.ends_at else "over"
        return "waiting" if now < self.requested_at + WAITS_MINUTES * MINUTE else "lapsed"


class Elevations:
    """The elevations of all tenants."""

    def __init__(self, database: Database, revisions: Revisions, *, clock: Callable[[], int] = moments.now) -> None:
        self._database = database
        self._revisions = revisions
        self.clock = clock

    # -- rules -----------------------------------------------------------------------------------

    async def rules(self, tenant: str) -> BreakGlassRules:
        """Return what ``tenant`` allows."""
        return await self._database.run(partial(_rules, tenant))

    async def set_rules(self, tenant: str, rules: BreakGlassRules) -> None:
        """Change what ``tenant`` allows, from the next request on."""

        def write(connection: sa.Connection) -> None:
            require(connection, tenant)
            connection.execute(sa.delete(break_glass_rules).where(break_glass_rules.c.tenant == tenant))
            row = {"tenant": tenant, "rules": msgspec.json.encode(rules).decode()}
            connection.execute(insert_new(self._database.dialect, break_glass_rules).values(row))

        await self._database.transact(write)

    # -- the life of an elevation ----------------------------------------------------------------

    async def request(
        self, tenant: str, *, actor: str, role: str, reason: str, minutes: int, request_id: str
    ) -> Elevation:
        """Ask for a role; where no approval is needed, it begins at once.

        Raises:
            ProviderError: ``permission_denied`` for a role, ``invalid_argument`` for a time that the tenant does not allow,
                ``conflict`` when the actor has one already or waits for it.
        """
        now = self.clock()

        def write(connection: sa.Connection) -> Elevation:
            require(connection, tenant)
            rules = _rules(tenant, connection)
            _check(rules, role, minutes)
            if _open_one(connection, tenant, actor, now) is not None:
                message = "You have an elevation already, or wait for one. End it before you ask for another."
                raise ProviderError(ErrorCode.CONFLICT, message)
            begins = None if rules.needs_approval else now
            made = Elevation(
                tenant=tenant,
                id=f"bg_{secrets.token_hex(8)}",
                actor=actor,
                role=role,
                reason=reason,
                request_id=request_id,
                minutes=minutes,
                requested_at=now,
                began_at=begins,
                ends_at=None if begins is None else begins + minutes * MINUTE,
            )
            connection.execute(sa.insert(elevations).values(msgspec.structs.asdict(made)))
            return made

        return await self._changed(write)

    async def approve(self, tenant: str, id_: str, *, by: str) -> Elevation:
        """Let an elevation begin.

        Raises:
            ProviderError: ``not_found``, ``permission_denied`` when ``by`` asked for it, ``failed_precondition`` when it does not wait.
        """

        def write(connection: sa.Connection) -> Elevation:
            found = _locked(connection, tenant, id_)
            if by == found.actor:
                message = "Somebody else has to approve what you ask for."
                raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
            now = self.clock()
            _require_state(found, now, "waiting")
            return _updated(connection, found, approved_by=by, began_at=now, ends_at=now + found.minutes * MINUTE)

        return await self._changed(write)

    async def end(self, tenant: str, id_: str, *, by: str) -> Elevation:
        """End an elevation, or the wait for it, before its time.

        Raises:
            ProviderError: ``not_found``, ``failed_precondition`` when it is over.
        """

        def write(connection: sa.Connection) -> Elevation:
            found, now = _locked(connection, tenant, id_), self.clock()
            _require_state(found, now, "waiting", "active")
            return _updated(connection, found, ended_at=now, ended_by=by)

        return await self._changed(write)

    async def get(self, tenant: str, id_: str) -> Elevation:
        """Return one elevation.

        Raises:
            ProviderError: ``not_found``.
        """
        return await self._database.run(lambda connection: _found(connection, tenant, id_))

    async def active(self, tenant: str, actor: str) -> Elevation | None:
        """Return the elevation that ``actor`` has at this moment."""
        now = self.clock()
        found = await self._database.run(lambda connection: _open_one(connection, tenant, actor, now))
        return found if found is not None and found.state(now) == "active" else None

    async def page(self, tenant: str, *, limit: int, cursor: str | None = None) -> tuple[list[Elevation], str | None]:
        """Return a page of elevations, newest first."""
        table = elevations.c
        statement = sa.select(elevations).where(table.tenant == tenant)
        before = cursors.read(cursor, tuple[int, str])
        if before is not None:
            statement = statement.where(sa.tuple_(table.requested_at, table.id) < before)
        statement = statement.order_by(table.requested_at.desc(), table.id.desc()).limit(limit + 1)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        items = [Elevation(**row._asdict()) for row in rows[:limit]]
        return items, cursors.written((items[-1].requested_at, items[-1].id)) if len(rows) > limit else None

    async def _changed(self, write: Callable[[sa.Connection], Elevation]) -> Elevation:
        made = await self._database.transact(counted(write, Topic.BREAK_GLASS))
        self._revisions.announce(Topic.BREAK_GLASS)
        return made


def _check(rules: BreakGlassRules, role: str, minutes: int) -> None:
    if role not in rules.roles:
        message = (
            f"The tenant does not allow the role {role!r} to be taken on. Allowed: {', '.join(rules.roles) or 'none'}."
        )
        raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
    if not 1 <= minutes <= rules.longest_minutes:
        error = FieldError("/minutes", f"Use a number from 1 to {rules.longest_minutes}.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The tenant does not allow so much time.", errors=[error])


def _rules(tenant: str, connection: sa.Connection) -> BreakGlassRules:
    statement = sa.select(break_glass_rules.c.rules).where(break_glass_rules.c.tenant == tenant)
    text = connection.execute(statement).scalar()
    return BreakGlassRules() if text is None else msgspec.json.decode(text, type=BreakGlassRules)


def _open_one(connection: sa.Connection, tenant: str, actor: str, now: int) -> Elevation | None:
    table = elevations.c
    is_open = sa.or_(
        table.ends_at > now, sa.and_(table.ends_at.is_(None), table.requested_at > now - WAITS_MINUTES * MINUTE)
    )
    mine = sa.and_(table.tenant == tenant, table.actor == actor, table.ended_at.is_(None), is_open)
    row = connection.execute(sa.select(elevations).where(mine).order_by(table.requested_at.desc())).first()
    return None if row is None else Elevation(**row._asdict())


def _found(connection: sa.Connection, tenant: str, id_: str, *, lock: bool = False) -> Elevation:
    statement = sa.select(elevations).where(elevations.c.tenant == tenant, elevations.c.id == id_)
    row = connection.execute(statement.with_for_update() if lock else statement).first()
    if row is None:
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no elevation {id_[:100]!r}.")
    return Elevation(**row._asdict())


def _locked(connection: sa.Connection, tenant: str, id_: str) -> Elevation:
    return _found(connection, tenant, id_, lock=True)


def _require_state(found: Elevation, now: int, *wanted: ElevationState) -> None:
    state = found.state(now)
    if state not in wanted:
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, f"The elevation is {state}.")


def _updated(connection: sa.Connection, found: Elevation, **changes: int | str) -> Elevation:
    mine = sa.and_(elevations.c.tenant == found.tenant, elevations.c.id == found.id)
    connection.execute(sa.update(elevations).where(mine).values(changes))
    return msgspec.structs.replace(found, **changes)
