"""The rules of idempotency keys, on the rows of one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.statements import Lookup, Statement, insert_new
from erp.control_plane.tables import idempotency, owners
from erp.runtime.ports import Claim, ClaimOutcome, Completion

RUNNING = 0
PURGED_AT_ONCE = 500
NOBODY = ""

WON = ClaimOutcome(state="won")
INHERITED = ClaimOutcome(state="won", is_second_run=True)
IN_FLIGHT = ClaimOutcome(state="in_flight")
MISMATCH = ClaimOutcome(state="mismatch")
LOST = ClaimOutcome(state="lost")

_Row = sa.Row[*tuple[Any, ...]]


class ClaimTable:
    """Claims on behalf of ``owner``, a process that says every few seconds that it is alive."""

    def __init__(self, dialect: sa.Dialect, owner: str, lease_seconds: float) -> None:
        self._owner = owner
        self._lease_seconds = lease_seconds
        columns = ("tenant", "key", "actor", "target", "fingerprint", "token", "owner", "expires_at", "status", "body")
        self._insert = Statement(dialect, insert_new(dialect, idempotency), *columns)
        self._answer = Statement(dialect, _answer(), "status_", "body_", *_OWN)
        self._disown = Statement(dialect, _disown(), "owner_", *_OWN, "status_")
        self._release = Statement(dialect, _own(sa.delete(idempotency)), *_OWN)
        self._find = Lookup(dialect, _select)

    def claim(self, connection: sa.Connection, claims: Sequence[Claim]) -> list[ClaimOutcome]:
        """Insert ``claims``; whose token is stored then has won, the others learn why not."""
        if not claims:
            return []
        now = moments.now()
        if self._insert.run(connection, sorted(self._row(claim, now) for claim in claims)) == len(claims):
            return [WON] * len(claims)
        rows = self._find.rows(connection, [(claim.tenant, claim.key) for claim in claims])
        found = {(row.tenant, row.key): row for row in rows}
        return [self._outcome(connection, claim, found[claim.tenant, claim.key], now) for claim in claims]

    def _row(self, claim: Claim, now: int) -> tuple[str | bytes | int | None, ...]:
        expires_at = now + claim.window_seconds * moments.MICROSECONDS
        identity = (claim.tenant, claim.key, claim.actor, claim.target, claim.fingerprint, claim.token)
        return (*identity, self._owner, expires_at, RUNNING, None)

    def _outcome(self, connection: sa.Connection, claim: Claim, row: _Row, now: int) -> ClaimOutcome:
        if row.token == claim.token:
            return WON
        is_running = row.status == RUNNING
        is_alive = is_running and self._is_alive(connection, row.owner, now)
        if row.expires_at <= now and not is_alive:
            return self._take_over(connection, claim, row, now, WON)
        if bytes(row.fingerprint) != claim.fingerprint or row.target != claim.target:
            return MISMATCH
        if not is_running:
            return ClaimOutcome(state="replay", status=row.status, body=bytes(row.body or b""))
        if is_alive:
            return IN_FLIGHT
        return self._take_over(connection, claim, row, now, INHERITED) if claim.reentrant else LOST

    def _is_alive(self, connection: sa.Connection, owner: str, now: int) -> bool:
        if owner == NOBODY:
            return False
        statement = self._alive(now).where(owners.c.id == owner)
        return connection.execute(statement).first() is not None

    def _alive(self, now: int) -> sa.Select[str]:
        """Return who lives: nobody says so for longer than a lease, unless the clock was set back since."""
        latest = now + int(2 * self._lease_seconds * moments.MICROSECONDS)
        return sa.select(owners.c.id).where(owners.c.alive_until > now, owners.c.alive_until <= latest)

    def _take_over(
        self, connection: sa.Connection, claim: Claim, row: _Row, now: int, won: ClaimOutcome
    ) -> ClaimOutcome:
        """Put ``claim`` in the place of a row whose time or runner is gone, unless somebody else just did."""
        names = ("tenant", "key", "actor", "target", "fingerprint", "token", "owner", "expires_at", "status", "body")
        table = idempotency.c
        statement = (
            sa.update(idempotency)
            .where(table.tenant == row.tenant, table.key == row.key, table.token == row.token)
            .values(dict(zip(names, self._row(claim, now), strict=True)))
        )
        return won if connection.execute(statement).rowcount else IN_FLIGHT

    def answer(self, connection: sa.Connection, completions: Sequence[Completion]) -> set[str]:
        """Store the answers of calls whose claim still is theirs; return the tokens of claims that others took over."""
        answers = [(completion, claim) for completion in completions if (claim := completion.claim) is not None]
        rows = [(answer.status, answer.body, claim.tenant, claim.key, claim.token) for answer, claim in answers]
        if self._answer.run(connection, rows) == len(rows):
            return set()
        return self.lost(connection, [claim for _, claim in answers])

    def lost(self, connection: sa.Connection, claims: Sequence[Claim]) -> set[str]:
        """Return the tokens of those ``claims`` that others took over."""
        if not claims:
            return set()
        stored = self._find.rows(connection, [(claim.tenant, claim.key) for claim in claims])
        tokens = {(row.tenant, row.key): row.token for row in stored}
        return {claim.token for claim in claims if tokens.get((claim.tenant, claim.key)) != claim.token}

    def release(self, connection: sa.Connection, claims: Sequence[Claim]) -> None:
        """Give claims back, as if they had never been made."""
        self._release.run(connection, [(claim.tenant, claim.key, claim.token) for claim in claims])

    def disown(self, connection: sa.Connection, claims: Sequence[Claim]) -> None:
        """Mark claims as left by their runner, unless their answer was stored after all."""
        self._disown.run(connection, [(NOBODY, claim.tenant, claim.key, claim.token, RUNNING) for claim in claims])

    def beat(self, connection: sa.Connection) -> None:
        """Say that the owner is alive."""
        alive_until = moments.after(self._lease_seconds)
        mine = sa.update(owners).where(owners.c.id == self._owner).values(alive_until=alive_until)
        if not connection.execute(mine).rowcount:
            connection.execute(sa.insert(owners).values(id=self._owner, alive_until=alive_until))

    def retire(self, connection: sa.Connection) -> None:
        """Say that the owner runs nothing any more."""
        connection.execute(sa.delete(owners).where(owners.c.id == self._owner))

    def purge(self, connection: sa.Connection) -> None:
        """Remove a bounded number of rows whose window has passed, but none that is running."""
        now = moments.now()
        alive = self._alive(now)
        table = idempotency.c
        old = (
            sa.select(table.tenant, table.key)
            .where(table.expires_at <= now, sa.or_(table.status != RUNNING, table.owner.not_in(alive)))
            .limit(PURGED_AT_ONCE)
        )
        connection.execute(sa.delete(idempotency).where(sa.tuple_(table.tenant, table.key).in_(old)))
        connection.execute(sa.delete(owners).where(owners.c.id.not_in(alive)))


_OWN = ("of_tenant", "of_key", "of_token")


S = TypeVar("S", sa.Update, sa.Delete)


def _own(statement: S) -> S:
    table = idempotency.c
    return statement.where(
        table.tenant == sa.bindparam("of_tenant"),
        table.key == sa.bindparam("of_key"),
        table.token == sa.bindparam("of_token"),
    )


def _answer() -> sa.Update:
    values: dict[str, sa.ColumnElement[Any]] = {"status": sa.bindparam("status_"), "body": sa.bindparam("body_")}
    return _own(sa.update(idempotency)).values(values)


def _disown() -> sa.Update:
    mine = _own(sa.update(idempotency)).values(owner=sa.bindparam("owner_"))
    return mine.where(idempotency.c.status == sa.bindparam("status_"))


def _select(keys: list[tuple[str, str]]) -> sa.Select[str, str, str, bytes, str, str, int, int, bytes | None]:
    table = idempotency.c
    columns = (
        *(table.tenant, table.key, table.target, table.fingerprint, table.token),
        *(table.owner, table.expires_at, table.status, table.body),
    )
    # A join, because SQLite scans the whole table for (tenant, key) IN (VALUES ...).
    names = (sa.column("tenant", sa.Text), sa.column("key", sa.Text))
    wanted = sa.values(*names, name="wanted").data(keys).cte("wanted")
    return sa.select(*columns).join_from(
        wanted, idempotency, sa.and_(table.tenant == wanted.c.tenant, table.key == wanted.c.key)
    )
