"""What the runtime needs from the layers above it. They implement; ``main.py`` wires."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from erp.runtime.call_policy import Rate
from erp.runtime.context import Actor, EmittedEvent
from erp.runtime.operation import Operation, Order, Outcome, Progress
from erp.runtime.question import Decision, Policy, Question


class Introspection(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a credential; of an inactive one nothing (RFC 7662, section 2.2)."""

    active: bool
    actor: Actor | None = None
    issuer: str | None = None
    audience: str | None = None
    expires_at: datetime.datetime | None = None
    """None: it does not end by itself."""
    client_id: str | None = None
    """Of a token: the actor of the API key that it comes from."""
    acting: str | None = None
    """Of a token: who uses it on behalf of the actor (RFC 8693, section 4.1)."""
    token_id: str | None = None


class IssuedToken(msgspec.Struct, frozen=True, kw_only=True):
    """An access token as it was just made."""

    token: str
    expires_in_seconds: int
    scopes: list[str]

    def __repr__(self) -> str:
        return f"IssuedToken(expires_in_seconds={self.expires_in_seconds})"


class Identity(Protocol):
    """The platform's own credentials: whose they are, and what their holders may do."""

    async def authenticate(self, credential: str) -> Actor:
        """Return who holds ``credential``.

        Raises:
            ProviderError: ``unauthenticated``, always with the same message, so that nothing
                can be learned about which part was wrong.
        """

    async def introspect(self, credential: str) -> Introspection:
        """Return what is known of a credential of any tenant."""

    async def exchange(
        self,
        tenant: str,
        subject_token: str,
        *,
        actor_token: str | None = None,
        audience: str | None = None,
        scopes: Sequence[str] | None = None,
    ) -> IssuedToken:
        """Return a narrower, short-lived token for a credential of ``tenant`` (RFC 8693)."""

    async def evaluate(self, tenant: str, subject: tuple[str, str], action: str, resource: tuple[str, str]) -> Decision:
        """Decide as the gateway would; subject and resource are (type, id). What is unknown is denied."""


class SecretVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about one version of a secret; never its value."""

    version: int
    created_at: str
    state: Literal["current", "previous", "destroyed"]
    destroyed_after: str | None = None
    """When it will be destroyed; later where something still uses it. None: nobody wants that."""


class SecretVault(Protocol):
    """The platform's own secret store: AES-256-GCM envelopes, versioned, per tenant."""

    async def put(self, tenant: str, path: str, value: str, *, overlap_seconds: float | None = None) -> int:
        """Store a version and return its number; None keeps those before until they are destroyed otherwise."""

    async def newest(self, tenant: str, path: str) -> int | None:
        """Return the number of the newest version; None when there is no such secret."""

    async def get(self, tenant: str, path: str, version: int | None = None) -> str:
        """Raises ``ProviderError(not_found)`` when there is no such secret or version."""

    async def versions(self, tenant: str, path: str) -> list[SecretVersion]: ...
    async def list(self, tenant: str, prefix: str) -> list[str]: ...
    async def delete(self, tenant: str, path: str) -> bool: ...
    async def destroy(self, tenant: str, path: str, version: int) -> bool:
        """Destroy one version beyond repair; False when there is none."""


LinkPurpose = Literal["objects", "webhooks"]
"""The path of the gateway a link leads to: ``/objects/...`` or ``/webhooks/...``."""


class Links(Protocol):
    """URLs of the gateway that let their holder do one thing with one connection, without a key."""

    def make(
        self, purpose: LinkPurpose, claims: Mapping[str, str], *, expires_at: datetime.datetime | None = None
    ) -> str:
        """Return an absolute URL; who opens it makes the gateway call the provider with ``claims``.

        ``objects``: ``{"method": "GET" | "PUT", "key": ..., "content_type"?}``, for ``read`` and ``put``.
        ``webhooks``: ``{"receiver": ...}``, for ``receive``. The link is sealed: nobody else can make or
        read one. It cannot be taken back before ``expires_at``; a receiver that must be closed is closed
        by the provider, which answers ``not_found``.
        """


class LinkMaker(Protocol):
    """Gives every connection its ``Links``."""

    def of(self, tenant: str, domain: str, provider: str, connection: str) -> Links: ...


class Reminder(Protocol):
    """Work of one connection that this process has taken on."""

    @property
    def tenant(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def connection(self) -> str: ...


class Reminders(Protocol):
    """Times at which connections have work to do, kept through restarts."""

    async def set(self, tenant: str, domain: str, provider: str, connection: str, due: datetime.datetime) -> None:
        """Have the connection's ``work`` run at ``due`` or soon after; an earlier reminder stands."""

    async def next_due_seconds(self) -> float | None:
        """Return how long until the earliest reminder; None when there is none."""

    async def claim(self, *, limit: int, lease_seconds: float) -> Sequence[Any]:
        """Take on ``Reminder``s that are due; nobody else gets them before the lease ends."""

    async def settle(self, reminder: Any, due: datetime.datetime | None) -> None:
        """End the lease of what ``claim`` returned and remind again at ``due``; None: only when asked again."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's configured provider. ``revision`` changes with every change of it."""

    tenant: str
    domain: str
    provider: str
    name: str
    revision: str
    config: Mapping[str, Any]
    secrets: Mapping[str, str]
    """Name of a config property -> SecretRef text (``secret://PATH#VERSION``)."""
    policy: Mapping[str, Any]
    """Overrides of ``CallPolicy`` for this connection, with per-action overrides under ``actions``."""
    region: str = ""
    """Where it keeps data; empty: nobody has said."""
    versions: Mapping[str, str] = {}
    """SecretRef text without a version -> the version that was proven, as where it is kept calls it."""


class Connections(Protocol):
    """Which connection a call means."""

    async def find(self, tenant: str, domain: str, provider: str, name: str) -> Connection | None: ...
    async def domain_default(self, tenant: str, domain: str) -> tuple[str, str] | None:
        """Provider and connection name this tenant chose as the default of ``domain``."""

    async def tenant_policy(self, tenant: str) -> Mapping[str, Any]:
        """Overrides of ``CallPolicy`` for all calls of ``tenant``; empty when none."""


class ConnectionStore(Protocol):
    """Where connections are kept."""

    async def find(self, tenant: str, domain: str, provider: str, name: str) -> Connection | None: ...
    async def put(self, connection: Connection, *, revision: str | None = None) -> Connection:
        """Store a connection; ``conflict`` when its present revision is not ``revision``."""

    async def set_domain_default(self, tenant: str, domain: str, provider: str, name: str) -> None: ...
    async def clear_domain_default(self, tenant: str, domain: str, provider: str, name: str) -> Any: ...


RouteKind = Literal["single", "failover", "weighted", "shadow"]


class RouteTarget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A connection that a route leads to."""

    provider: str
    connection: str = "default"
    weight: int = 1
    """Its share of the calls of a weighted route; 0: none."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's own name for connections of one domain. ``revision`` changes with every change of it."""

    tenant: str
    domain: str
    name: str
    kind: RouteKind
    revision: str
    targets: list[RouteTarget]
    after_failures: int = 3
    """Failover: how many calls in a row fail before a target gets none."""
    retry_after_seconds: float = 10.0
    """Failover: how long until such a target is asked for its health."""
    same_system: bool = False
    """Failover: whether all targets reach one system, so that what protects from repetition at one does at all."""
    mirror_effects: bool = False
    """Shadow: whether writes are mirrored too."""
    ignore: list[str] = []
    """Shadow: JSON Pointers of the result that may differ; ``*`` stands for any index."""


class Routes(Protocol):
    """Tenants' routes."""

    async def find(self, tenant: str, domain: str, name: str) -> Route | None: ...


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The right to run one effectful call under an idempotency key."""

    tenant: str
    actor: str
    key: str
    target: str
    fingerprint: bytes
    token: str
    """Unique per attempt: whoever's token is stored owns the key."""
    reentrant: bool
    """True when the action may run again after its first runner died (idempotent)."""
    window_seconds: int


class ClaimOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """``won``: run it. ``replay``: here is the stored answer. The others are refused."""

    state: Literal["won", "replay", "in_flight", "mismatch", "lost"]
    status: int = 0
    body: bytes = b""
    is_second_run: bool = False
    """``won`` from a runner that died: the call may have taken effect already."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to what, when, and how it ended (before numbering and chaining)."""

    tenant: str
    actor: str
    action: str
    target: str
    outcome: str
    """``ok`` or the error code."""
    reason: str
    request_id: str
    time: str
    effect: str
    traceparent: str | None = None
    detail: Mapping[str, Any] | None = None


class OutboxEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A CloudEvents 1.0 event waiting for delivery to the tenant's bus."""

    tenant: str
    id: str
    topic: str
    type: str
    source: str
    time: str
    data: Mapping[str, Any]
    key: str | None = None
    subject: str | None = None
    traceparent: str | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that must be durable before the answer of an effectful call leaves."""

    audit: AuditEntry
    events: Sequence[OutboxEvent] = ()
    claim: Claim | None = None
    status: int = 0
    body: bytes = b""
    release: bool = False
    """True when the call failed without effect: the claim is given back so that a retry can run."""
    is_open: bool = False
    """True when it failed, may have taken effect and may be run again: the next one to claim its key makes a second run."""


class Operations(Protocol):
    """Accepted calls, kept through restarts."""

    async def accept(self, id: str, order: Order, fingerprint: bytes) -> Operation:  # noqa: A002
        """Keep a call to be run; for a repeated idempotency key, return the operation of the first."""

    async def find(self, tenant: str, id: str) -> Operation | None: ...  # noqa: A002
    async def cancel(self, tenant: str, id: str) -> Operation | None:  # noqa: A002
        """Want the end of an operation: one that waits ends at once."""

    async def claim(
        self, owner: str, *, limit: int, lease_seconds: float, without: Sequence[str] = ()
    ) -> list[Operation]:
        """Take on operations that wait, or whose process has died; nobody else gets them before the lease ends."""

    async def renew(self, owner: str, ids: Sequence[str], lease_seconds: float) -> list[str]:
        """Prolong leases; return those of ``ids`` whose cancellation is wanted."""

    async def report(self, owner: str, id: str, progress: Progress) -> None:  # noqa: A002
        """Say how far an operation has come."""

    async def settle(self, owner: str, id: str, outcome: Outcome | None) -> bool:  # noqa: A002
        """Record how an operation ended; None: it waits again. False when it is not ``owner``'s any more."""

    async def purge(self) -> int:
        """Forget operations that ended long ago."""


class Journal(Protocol):
    """Durable memory of effectful calls, written by group commit."""

    async def claim(self, claim: Claim) -> ClaimOutcome:
        """Decide who runs the call. Cancelled, it gives back what it may have won."""

    async def complete(self, completion: Completion) -> None:
        """Return only when ``completion`` is durable. Cancelled, it still becomes durable.

        Raises:
            ProviderError: it could not be stored; ``outcome_unknown`` when the call may have taken effect,
                ``conflict`` when another process has taken the call over, whose answer is the one that counts.
        """

    def note(self, audit: AuditEntry) -> None:
        """Append an audit record soon, without waiting (refused calls)."""


class Quotas(Protocol):
    """Reserve then settle: a limit is never exceeded by one, in any number of processes."""

    async def reserve(self, tenant: str, units: int = 1) -> None:
        """Raises ``ProviderError(quota_exhausted)`` with the seconds until the period ends."""


class Rates(Protocol):
    """Rate limits that several processes share, of tenants, API keys or connections."""

    async def take(self, owner: str | tuple[str, str], settings: Rate) -> float:
        """Take one token of a tenant, a key, or a connection (its tenant and name). Return 0.0, or the seconds to wait."""


__all__ = [
    "AuditEntry",
    "Claim",
    "ClaimOutcome",
    "Completion",
    "Connection",
    "ConnectionStore",
    "Connections",
    "Decision",
    "EmittedEvent",
    "Identity",
    "Introspection",
    "IssuedToken",
    "Journal",
    "LinkMaker",
    "LinkPurpose",
    "Links",
    "Operations",
    "OutboxEvent",
    "Policy",
    "Question",
    "Quotas",
    "Rates",
    "Reminder",
    "Reminders",
    "Route",
    "RouteKind",
    "RouteTarget",
    "Routes",
    "SecretVault",
    "SecretVersion",
]
