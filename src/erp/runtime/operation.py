"""A call that nobody waits for: what was asked, how far it is, how it ended."""

from __future__ import annotations

from typing import Literal

import msgspec

from erp.runtime.context import Actor


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was accepted to be run later, with everything needed to run it after a restart."""

    area: Literal["providers", "services", "connections", "privacy"]
    """``connections``: a wish to configure one; ``privacy``: a right that a person exercises."""
    group: str
    name: str
    provider: str
    connection: str
    actor: Actor
    body: str
    """The request as it came: JSON text."""
    request_id: str
    traceparent: str
    idempotency_key: str | None = None
    user: str | None = None
    subject: str | None = None
    """What only one open operation may be about."""


OperationState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far an operation has come."""

    fraction: float
    """From 0 to 1."""
    message: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an operation ended: with a result or with a problem, both as the gateway would have answered."""

    state: Literal["succeeded", "failed", "cancelled"]
    result: str | None = None
    """JSON text."""
    problem: str | None = None
    """JSON text."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A call that nobody waits for. Times are RFC 3339 text."""

    tenant: str
    id: str
    state: OperationState
    order: Order
    is_cancel_wanted: bool
    created_at: str
    started_at: str | None = None
    ended_at: str | None = None
    progress: Progress | None = None
    outcome: Outcome | None = None
    attempts: int = 0
    """How often a process has begun it."""
