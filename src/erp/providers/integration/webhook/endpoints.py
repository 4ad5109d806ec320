"""Endpoints: where triggers are delivered to. All functions run inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field

from msgspec import UNSET

from erp.contracts.models.integration import (
    CreateEndpointRequest,
    Endpoint,
    ListEndpointsResult,
    UpdateEndpointRequest,
)
from erp.providers.integration.webhook import tables
from erp.providers.integration.webhook.keys import valid_versions
from erp.runtime.spi import ErrorCode, ProviderError

CONFIGURED = "configured"
"""Id of the endpoint that the configuration of the connection describes."""
MAX_ENDPOINTS = 500


@dataclass(frozen=True, slots=True)
class Target:
    """What one attempt needs to know of its endpoint."""

    seq: int
    id: str
    url: str
    versions: list[int] = field(default_factory=list)
    """Of the secrets that sign now; empty for the endpoint of the configuration."""


def target(row: sqlite3.Row, now: float) -> Target:
    """The target an endpoint is at ``now``."""
    versions = valid_versions(row["secret_version"], row["previous_version"], row["previous_until"], now)
    return Target(row["seq"], row["id"], row["url"], versions)


def shown(row: sqlite3.Row, now: float) -> Endpoint:
    """The endpoint as answers show it."""
    until = row["previous_until"]
    return Endpoint(
        id=row["id"],
        url=row["url"],
        title=tables.known(row["title"]),
        event_types=tables.names(row["event_types"]),
        max_per_second=tables.known(row["max_per_second"]),
        enabled=bool(row["enabled"]),
        disabled_reason=tables.known(row["disabled_reason"]),
        failing_since=tables.moment(row["failing_since"]),
        previous_secret_until=tables.moment(until if until is not None and until > now else None),
        created_at=tables.instant(row["created_at"]),
    )


def row_of(connection: sqlite3.Connection, id_: str) -> sqlite3.Row:
    """Find an endpoint.

    Raises:
        ProviderError: ``not_found``.
    """
    row: sqlite3.Row | None = connection.execute("SELECT * FROM endpoints WHERE id = ?", (id_,)).fetchone()
    if row is None:
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no endpoint {id_[:100]!r}; list_endpoints lists them.")
    return row


def refuse_configured(id_: str) -> None:
    """Refuse to change by an action what the configuration says."""
    if id_ == CONFIGURED:
        message = "This endpoint is part of the configuration of the connection; change it with configure."
        raise tables.invalid("/params/id", message)


def check_room(connection: sqlite3.Connection) -> None:
    """Refuse a further endpoint when there are too many."""
    if connection.execute("SELECT count(*) FROM endpoints").fetchone()[0] >= MAX_ENDPOINTS:
        message = f"A connection keeps at most {MAX_ENDPOINTS} endpoints. Delete one, or use a further connection."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)


def add(
    connection: sqlite3.Connection, id_: str, request: CreateEndpointRequest, secret_version: int, now: float
) -> Endpoint:
    """Keep a further endpoint."""
    check_room(connection)
    types = [] if request.event_types is UNSET else sorted(set(request.event_types))
    connection.execute(
        "INSERT INTO endpoints (id, url, title, event_types, max_per_second, enabled, secret_version, created_at)"
        " VALUES (?, ?, ?, ?, ?, 1, ?, ?)",
        (
            id_,
            request.url,
            tables.stored(request.title),
            json.dumps(types),
            tables.stored(request.max_per_second),
            secret_version,
            now,
        ),
    )
    return shown(row_of(connection, id_), now)


def page(connection: sqlite3.Connection, after: int, limit: int, now: float) -> ListEndpointsResult:
    """List endpoints by age."""
    found = connection.execute(
        "SELECT * FROM endpoints WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit + 1)
    ).fetchall()
    result = ListEndpointsResult(endpoints=[shown(row, now) for row in found[:limit]])
    if len(found) > limit:
        result.next_cursor = str(found[limit - 1]["seq"])
    return result


def change(connection: sqlite3.Connection, request: UpdateEndpointRequest, now: float) -> tuple[Endpoint, bool]:
    """Change what the request names; return the endpoint and whether this disabled it."""
    row = row_of(connection, request.id)
    values: dict[str, object] = {}
    for name in ("url", "title", "max_per_second"):
        if getattr(request, name) is not UNSET:
            values[name] = getattr(request, name)
    if request.event_types is not UNSET:
        values["event_types"] = json.dumps(sorted(set(request.event_types)))
    if values:
        refuse_configured(request.id)
        settings = ", ".join(f"{name} = :{name}" for name in values)
        connection.execute(f"UPDATE endpoints SET {settings} WHERE seq = :seq", {**values, "seq": row["seq"]})  # noqa: S608
    disables = request.enabled is False and bool(row["enabled"])
    if disables:
        disable(connection, row["seq"], "requested")
    elif request.enabled is True and not row["enabled"]:
        enable(connection, row["seq"])
    return shown(row_of(connection, request.id), now), disables


def enable(connection: sqlite3.Connection, seq: int) -> None:
    """Deliver to the endpoint from now on, with a clean record."""
    statement = "UPDATE endpoints SET enabled = 1, disabled_reason = NULL, failing_since = NULL WHERE seq = ?"
    connection.execute(statement, (seq,))


def disable(connection: sqlite3.Connection, seq: int, reason: str) -> None:
    """Deliver nothing to the endpoint any more; what waits for it is aborted."""
    connection.execute("UPDATE endpoints SET enabled = 0, disabled_reason = ? WHERE seq = ?", (reason, seq))
    abort = "UPDATE deliveries SET status = 'aborted', due_at = NULL WHERE endpoint = ? AND status IN ('pending', 'failing')"
    connection.execute(abort, (seq,))


def rotate(connection: sqlite3.Connection, id_: str, version: int, until: float, now: float) -> Endpoint:
    """Make ``version`` the current secret; the one before signs beside it until ``until``."""
    row = row_of(connection, id_)
    connection.execute(
        "UPDATE endpoints SET secret_version = ?, previous_version = ?, previous_until = ? WHERE seq = ?",
        (version, row["secret_version"], until, row["seq"]),
    )
    return shown(row_of(connection, id_), now)


def remove(connection: sqlite3.Connection, id_: str) -> bool:
    """Forget an endpoint with its deliveries; False when there was none."""
    row = connection.execute("SELECT seq FROM endpoints WHERE id = ?", (id_,)).fetchone()
    if row is None:
        return False
    for statement in (
        "DELETE FROM attempts WHERE endpoint = ?",
        "DELETE FROM deliveries WHERE endpoint = ?",
        "DELETE FROM endpoints WHERE seq = ?",
    ):
        connection.execute(statement, (row["seq"],))
    return True


def configure(
    connection: sqlite3.Connection, url: str | None, event_types: list[str], max_per_second: float | None, now: float
) -> None:
    """Make the endpoint of the configuration what the configuration says; a new address starts with a clean record."""
    if url is None:
        remove(connection, CONFIGURED)
        return
    row = connection.execute("SELECT * FROM endpoints WHERE id = ?", (CONFIGURED,)).fetchone()
    types = json.dumps(sorted(set(event_types)))
    if row is None:
        connection.execute(
            "INSERT INTO endpoints (id, url, event_types, max_per_second, enabled, created_at) VALUES (?, ?, ?, ?, 1, ?)",
            (CONFIGURED, url, types, max_per_second, now),
        )
        return
    statement = "UPDATE endpoints SET url = ?, event_types = ?, max_per_second = ? WHERE seq = ?"
    connection.execute(statement, (url, types, max_per_second, row["seq"]))
    if row["url"] != url:
        enable(connection, row["seq"])


def enabled(connection: sqlite3.Connection, limit: int) -> list[sqlite3.Row]:
    """Endpoints that are delivered to, oldest first."""
    return connection.execute("SELECT * FROM endpoints WHERE enabled ORDER BY seq LIMIT ?", (limit,)).fetchall()


def failing(connection: sqlite3.Connection) -> list[str]:
    """Ids of enabled endpoints to which nothing gets through at present."""
    rows = connection.execute("SELECT id FROM endpoints WHERE enabled AND failing_since IS NOT NULL ORDER BY seq")
    return [row["id"] for row in rows]
