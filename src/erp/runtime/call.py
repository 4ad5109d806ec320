"""One call from the outside of the pipeline, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from erp.runtime.context import Actor, CallContext

if TYPE_CHECKING:
    from erp.runtime.action import Action


class Call(msgspec.Struct, kw_only=True, eq=False):
    """What an entry point knows about a call before anything was checked."""

    action: Action
    actor: Actor
    provider: str
    connection: str = "default"
    body: bytes = b""
    request: Any = None
    """Typed parameters when the caller is a service; then ``body`` is not read."""
    metadata: dict[str, Any] | None = None
    request_id: str = ""
    traceparent: str = ""
    parent: str | None = None
    idempotency_key: str | None = None
    timeout_seconds: float | None = None
    user: str | None = None
    """The person on whose behalf the actor says it calls (``X-User-Id``); recorded, never trusted."""
    deadline: float = math.inf
    """When the caller's patience ends (monotonic clock); set on entry from ``timeout_seconds``."""
    context: CallContext | None = None
    """What the method was given; None until the call had a plan."""
    patience_seconds: float | None = None
    """How long the method may take, instead of what the policy says."""
    is_admitted: bool = False
    """Whether rate limit and quota were taken when the call was accepted."""
    on_report: Callable[[float, str | None], None] | None = None
    """Hears how far the method has come."""
    served: tuple[str, str] | None = None
    """Provider and connection that a route has led to."""

    @property
    def tenant(self) -> str:
        """Whose call it is: always the tenant of the credential."""
        return self.actor.tenant

    @property
    def is_routed(self) -> bool:
        """Whether ``provider`` is the name of a route: those, and no other names, have a dash."""
        return "-" in self.provider and self.action.area == "providers"


class Answer(msgspec.Struct, eq=False):
    """The result of a call: encoded for the wire and, when it ran here, typed."""

    data: bytes
    provider: str
    connection: str
    provider_seconds: float = 0.0
    result: Any = None
    replayed: bool = False
