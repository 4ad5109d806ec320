"""What follows from an attempt: its record, the next attempt, the end of a delivery, the end of an endpoint."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any

import msgspec

from erp.contracts.models.integration import Attempt
from erp.providers.integration.webhook import deliveries, endpoints, schedule, tables
from erp.providers.integration.webhook.deliveries import Status, Task


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt went."""

    at: float
    duration_ms: float
    http_status: int | None = None
    code: str | None = None
    """Of the closed error list; None when the endpoint confirmed."""
    message: str | None = None
    excerpt: str | None = None
    retry_after_seconds: float | None = None
    is_gone: bool = False
    """The endpoint wants nothing any more (410)."""
    is_aborted: bool = False
    """The endpoint wants this message no more."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How a delivery stands after an attempt."""

    endpoint: str
    status: Status
    attempt: Attempt
    due_at: float | None
    """When it is attempted again."""
    events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """Name, id and data of what is to be announced."""


def settle(connection: sqlite3.Connection, task: Task, outcome: Outcome, now: float) -> Settled | None:
    """Record an attempt and what follows; None when endpoint or message were deleted meanwhile."""
    where = (task.message, task.endpoint.seq)
    row = connection.execute("SELECT * FROM deliveries WHERE message = ? AND endpoint = ?", where).fetchone()
    if row is None:
        return None
    number = row["attempts"] + 1
    _log(connection, where, number, outcome)
    connection.execute("UPDATE deliveries SET attempts = ? WHERE seq = ?", (number, row["seq"]))
    is_delivered = outcome.code is None
    names = _delivered(connection, row, task) if is_delivered else _failed(connection, row, task, outcome, now)
    return _settled(connection, task, number, names, now)


def _log(connection: sqlite3.Connection, where: tuple[int, int], number: int, outcome: Outcome) -> None:
    connection.execute(
        "INSERT INTO attempts (message, endpoint, number, at, status, http_status, code, text, duration_ms, excerpt)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *where,
            number,
            outcome.at,
            "delivered" if outcome.code is None else "failed",
            outcome.http_status,
            outcome.code,
            outcome.message,
            outcome.duration_ms,
            outcome.excerpt,
        ),
    )


def _is_planned_anew(row: sqlite3.Row, task: Task) -> bool:
    """Whether somebody has planned a further attempt while this one was under way: a replay, or who leased it next."""
    return row["due_at"] is not None and row["due_at"] != task.due_at


def _delivered(connection: sqlite3.Connection, row: sqlite3.Row, task: Task) -> list[str]:
    connection.execute("UPDATE endpoints SET failing_since = NULL WHERE seq = ?", (row["endpoint"],))
    if _is_planned_anew(row, task):
        return []
    connection.execute("UPDATE deliveries SET status = 'delivered', due_at = NULL WHERE seq = ?", (row["seq"],))
    return ["delivery_recovered"] if row["status"] in {"failing", "exhausted"} else []


def _failed(connection: sqlite3.Connection, row: sqlite3.Row, task: Task, outcome: Outcome, now: float) -> list[str]:
    names = []
    is_refused = outcome.is_gone or outcome.is_aborted
    is_mine = task.is_planned and not _is_planned_anew(row, task)
    # What is not under way any more (delivered by somebody else, aborted) stays as it is.
    if row["due_at"] is not None and (is_mine or is_refused):
        names += _go_on(connection, row, outcome, now)
    statement = "UPDATE endpoints SET failing_since = coalesce(failing_since, ?) WHERE seq = ? RETURNING *"
    endpoint = connection.execute(statement, (outcome.at, row["endpoint"])).fetchone()
    is_given_up = now - endpoint["failing_since"] >= schedule.FAILING_SECONDS
    if endpoint["enabled"] and (outcome.is_gone or is_given_up):
        endpoints.disable(connection, row["endpoint"], "gone" if outcome.is_gone else "failing")
        names = [name for name in names if name != "delivery_failing"] + ["endpoint_disabled"]
    return names


def _go_on(connection: sqlite3.Connection, row: sqlite3.Row, outcome: Outcome, now: float) -> list[str]:
    """Plan the next attempt, or none."""
    tries = row["tries"] + 1
    pause = schedule.pause_seconds(tries, outcome.retry_after_seconds)
    if outcome.is_gone or outcome.is_aborted:
        status, pause, names = "aborted", None, []
    elif pause is None:
        status, names = "exhausted", ["delivery_exhausted"]
    else:
        status, names = "failing", ["delivery_failing"]
    due = None if pause is None else tables.exact(now + pause)
    statement = "UPDATE deliveries SET status = ?, tries = ?, due_at = ? WHERE seq = ?"
    connection.execute(statement, (status, tries, due, row["seq"]))
    return names


def _settled(connection: sqlite3.Connection, task: Task, number: int, names: list[str], now: float) -> Settled:
    row = deliveries.row_of(connection, task.message_id, task.endpoint.id)
    delivery = deliveries.shown(row)
    statement = "SELECT * FROM attempts WHERE message = ? AND endpoint = ? AND number = ?"
    found = connection.execute(statement, (task.message, task.endpoint.seq, number)).fetchone()
    attempt = deliveries.attempt_shown(found)
    facts = {"delivery": delivery, "attempt": attempt}
    endpoint = endpoints.shown(endpoints.row_of(connection, task.endpoint.id), now)
    data: dict[str, dict[str, Any]] = {
        "delivery_failing": facts,
        "delivery_exhausted": facts,
        "delivery_recovered": {"delivery": delivery},
        "endpoint_disabled": {"endpoint": endpoint, "reason": endpoint.disabled_reason},
    }
    prefix = f"{task.endpoint.id}:{task.message_id}:{number}"
    events = [(name, f"{prefix}:{name}", msgspec.to_builtins(data[name])) for name in names]
    return Settled(task.endpoint.id, delivery.status, attempt, row["due_at"], events)
