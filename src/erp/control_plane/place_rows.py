"""One transaction about the places of a connection: what a process has, what it needs, and what is its share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from erp.control_plane.connection_tables import connection_places
from erp.control_plane.moments import MICROSECONDS

LEASE_SECONDS = 10.0
"""How long the places of a process are its own after it was last heard of."""
TURN_SECONDS = 0.25
"""How long a process keeps places when there are fewer than processes that wait for one."""
_LEASE = int(LEASE_SECONDS * MICROSECONDS)
_TURN = int(TURN_SECONDS * MICROSECONDS)
_LOCK = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended(:name, 0)),"
    " CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
)


class Claim(NamedTuple):
    """What a process has and needs."""

    owner: str
    places: int
    """How many it has until its next transaction, whatever is agreed in this one."""
    wanted: int
    since: int = 0
    """When it got its first place, or began to wait without one."""


class Agreement(NamedTuple):
    """What a process has from now on."""

    places: int
    allowed: int
    """How many of them it is to keep: fewer when others wait, or have so many that together there are too many."""


def agree(tenant: str, name: str, limit: int, mine: Claim, connection: sa.Connection) -> Agreement:
    """Store what ``mine`` says, and give it of its share what nobody else has."""
    now = _locked(connection, f"{tenant}/{name}")
    columns = connection_places.c
    here = sa.and_(columns.tenant == tenant, columns.name == name)
    rows = connection.execute(sa.select(connection_places).where(here)).all()
    # Nobody is heard of later than a lease from now, unless the clock of this machine began anew.
    living = [row for row in rows if now < row.expires_at <= now + 2 * _LEASE]
    others = [Claim(row.owner, row.places, row.wanted, row.since) for row in living if row.owner != mine.owner]
    before = next((row for row in living if row.owner == mine.owner), None)
    mine = mine._replace(since=now if before is None else before.since)
    found = _agreed(limit, mine, others, now)
    gone = {row.owner for row in rows} - {other.owner for other in others}
    if gone:
        connection.execute(sa.delete(connection_places).where(here, columns.owner.in_(gone)))
    if found.places or mine.wanted:
        is_another_turn = before is not None and bool(before.places) != bool(found.places)
        since = now if is_another_turn else mine.since
        row = {"tenant": tenant, "name": name, "owner": mine.owner, "places": found.places, "wanted": mine.wanted}
        connection.execute(sa.insert(connection_places).values(**row, since=since, expires_at=now + _LEASE))
    return found


def release(owner: str, connection: sa.Connection) -> None:
    """Give back everything that ``owner`` has."""
    connection.execute(sa.delete(connection_places).where(connection_places.c.owner == owner))


def _locked(connection: sa.Connection, name: str) -> int:
    """Keep other processes from the places of ``name`` until the transaction ends; return the present moment.

    Of the server's clock, or of one that all processes of this machine have and nobody sets.
    """
    if connection.dialect.name == "postgresql":
        return int(connection.execute(_LOCK, {"name": name}).one()[1])
    return time.monotonic_ns() // 1000  # SQLite has one writer


def _agreed(limit: int, mine: Claim, others: Sequence[Claim], now: int) -> Agreement:
    most = max(limit - sum(other.places for other in others), 0)
    if any(other.wanted > other.places for other in others):
        most = min(most, shares(limit, [mine, *others], now)[mine.owner])
    places = max(mine.places, min(mine.wanted, most))
    return Agreement(places, min(places, most))


def shares(limit: int, claims: Sequence[Claim], now: int) -> dict[str, int]:
    """Return how many places each process is to have: none more than it needs, and otherwise as many as the others."""
    found = {claim.owner: 0 for claim in claims}
    left = limit
    while (hungry := [claim for claim in claims if found[claim.owner] < claim.wanted]) and left >= len(hungry):
        more = min(left // len(hungry), *(claim.wanted - found[claim.owner] for claim in hungry))
        found.update({claim.owner: found[claim.owner] + more for claim in hungry})
        left -= more * len(hungry)
    for claim in sorted(claims, key=lambda claim: _turn(claim, now)):
        if left and found[claim.owner] < claim.wanted:
            found[claim.owner] += 1
            left -= 1
    return found


def _turn(claim: Claim, now: int) -> tuple[int, int]:
    """Who comes first where not all can have one more: a turn that has just begun, whoever waits longest, the rest."""
    if not claim.places:
        return 1, claim.since
    return (0 if now - claim.since < _TURN else 2), claim.since
