"""Receivers: paths of the gateway that peers send to. All functions run inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from erp.contracts.models.integration import ListReceiversResult, Receiver
from erp.providers.integration.webhook import tables
from erp.providers.integration.webhook.keys import valid_versions
from erp.runtime.spi import ErrorCode, ProviderError

MAX_RECEIVERS = 500


@dataclass(frozen=True, slots=True)
class Place:
    """What the path of a receiver stands for."""

    seq: int
    id: str
    scheme: str
    versions: list[int]
    """Of the secrets that are accepted now."""


def claim_of(id_: str, generation: int) -> str:
    """What a path says: a receiver and how often it was given a new path."""
    return f"{id_}~{generation}"


def shown(row: sqlite3.Row, now: float) -> Receiver:
    """The receiver as answers show it."""
    until = row["previous_until"]
    return Receiver(
        id=row["id"],
        name=row["name"],
        scheme=row["scheme"],
        path=row["path"],
        enabled=bool(row["enabled"]),
        previous_secret_until=tables.moment(until if until is not None and until > now else None),
        created_at=tables.instant(row["created_at"]),
        last_received_at=tables.moment(row["last_received_at"]),
    )


def row_of(connection: sqlite3.Connection, id_: str) -> sqlite3.Row:
    """Find a receiver.

    Raises:
        ProviderError: ``not_found``.
    """
    row: sqlite3.Row | None = connection.execute("SELECT * FROM receivers WHERE id = ?", (id_,)).fetchone()
    if row is None:
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no receiver {id_[:100]!r}; list_receivers lists them.")
    return row


def place_of(connection: sqlite3.Connection, claim: str, now: float) -> Place:
    """Find the receiver a path leads to.

    Raises:
        ProviderError: ``not_found`` when it is closed, disabled or has a new path.
    """
    id_ = claim.rpartition("~")[0]
    row = connection.execute("SELECT * FROM receivers WHERE id = ? AND enabled", (id_,)).fetchone()
    if row is None or claim != claim_of(id_, row["generation"]):
        raise ProviderError(ErrorCode.NOT_FOUND, "There is no receiver for this path.")
    versions = valid_versions(row["secret_version"], row["previous_version"], row["previous_until"], now)
    return Place(row["seq"], row["id"], row["scheme"], versions)


def check_name(connection: sqlite3.Connection, name: str) -> None:
    """Refuse a name that is taken, and one receiver too many.

    Raises:
        ProviderError: ``already_exists``, ``failed_precondition``.
    """
    if connection.execute("SELECT 1 FROM receivers WHERE name = ?", (name,)).fetchone():
        raise ProviderError(ErrorCode.ALREADY_EXISTS, f"There is a receiver named {name[:100]!r} already.")
    if connection.execute("SELECT count(*) FROM receivers").fetchone()[0] >= MAX_RECEIVERS:
        message = f"A connection keeps at most {MAX_RECEIVERS} receivers. Delete one, or use a further connection."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)


@dataclass(frozen=True, slots=True)
class NewReceiver:
    """A receiver to be opened."""

    id: str
    name: str
    scheme: str
    path: str
    secret_version: int | None


def add(connection: sqlite3.Connection, new: NewReceiver, now: float) -> Receiver:
    """Open a receiver."""
    check_name(connection, new.name)
    connection.execute(
        "INSERT INTO receivers (id, name, scheme, path, generation, enabled, secret_version, created_at)"
        " VALUES (?, ?, ?, ?, 1, 1, ?, ?)",
        (new.id, new.name, new.scheme, new.path, new.secret_version, now),
    )
    return shown(row_of(connection, new.id), now)


def page(connection: sqlite3.Connection, after: int, limit: int, now: float) -> ListReceiversResult:
    """List receivers by age."""
    found = connection.execute(
        "SELECT * FROM receivers WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit + 1)
    ).fetchall()
    result = ListReceiversResult(receivers=[shown(row, now) for row in found[:limit]])
    if len(found) > limit:
        result.next_cursor = str(found[limit - 1]["seq"])
    return result


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be different about a receiver; None stays."""

    enabled: bool | None = None
    new_path: Callable[[str], str] | None = None
    """Makes a path that says what it is given."""
    secret_version: int | None = None
    previous_until: float | None = None
    """Given with a new secret."""


def change(connection: sqlite3.Connection, id_: str, wanted: Change, now: float) -> Receiver:
    """Change a receiver.

    Raises:
        ProviderError: ``not_found``.
    """
    row = row_of(connection, id_)
    generation = row["generation"] + (wanted.new_path is not None)
    is_rotated = wanted.secret_version is not None
    connection.execute(
        "UPDATE receivers SET enabled = ?, path = ?, generation = ?, secret_version = ?, previous_version = ?,"
        " previous_until = ? WHERE seq = ?",
        (
            row["enabled"] if wanted.enabled is None else wanted.enabled,
            row["path"] if wanted.new_path is None else wanted.new_path(claim_of(id_, generation)),
            generation,
            wanted.secret_version if is_rotated else row["secret_version"],
            row["secret_version"] if is_rotated else row["previous_version"],
            wanted.previous_until if is_rotated else row["previous_until"],
            row["seq"],
        ),
    )
    return shown(row_of(connection, id_), now)


def remove(connection: sqlite3.Connection, id_: str) -> bool:
    """Close a receiver and forget what it received; False when there was none."""
    row = connection.execute("SELECT seq FROM receivers WHERE id = ?", (id_,)).fetchone()
    if row is None:
        return False
    connection.execute("DELETE FROM received WHERE receiver = ?", (row["seq"],))
    connection.execute("DELETE FROM receivers WHERE seq = ?", (row["seq"],))
    return True
