"""What a provider author sees: the whole surface between a provider and the layer.

A provider is one class without a base class. The layer constructs it with its validated
configuration, opens it, calls one method per action and closes it. It translates one call and
nothing else: it never retries, logs calls, meters, caches, checks tenants or asks for permission.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec
from msgspec import UNSET, UnsetType

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.runtime.context import Actor, CallContext
from erp.runtime.overlaps import Overlap, Overlaps
from erp.runtime.ports import Identity, Introspection, Links, SecretVault, SecretVersion

__all__ = [
    "UNSET",
    "Actor",
    "CallContext",
    "Config",
    "Dependency",
    "ErrorCode",
    "ErrorTable",
    "FieldError",
    "Health",
    "Introspection",
    "OpenContext",
    "Overlap",
    "Overlaps",
    "Provider",
    "ProviderError",
    "Remind",
    "SecretVersion",
    "Stream",
    "UnsetType",
    "Worker",
]

Config: TypeAlias = Mapping[str, Any]
"""Configuration validated by the manifest's schema, defaults filled in, secrets resolved to text."""

ErrorTable: TypeAlias = Mapping[type[BaseException], ErrorCode]
"""Exception type -> error code; the most specific type wins. Kept in ``Provider.translate``."""

Remind: TypeAlias = Callable[[datetime.datetime], Awaitable[None]]

Stream: TypeAlias = AsyncGenerator
"""What a streaming action returns: an async generator of result items."""


class Dependency(msgspec.Struct, kw_only=True):
    """One thing a health answer depends on."""

    name: str
    status: Literal["ok", "degraded", "down"]
    latency_ms: float | UnsetType = UNSET
    message: str | UnsetType = UNSET
    version: str | UnsetType = UNSET
    """Of the software that answers, as it says itself. The ledger of proof keeps it beside ``name``."""


class Health(msgspec.Struct, kw_only=True):
    """An honest answer to "can you work now?"; never cached, never optimistic."""

    status: Literal["ok", "degraded", "down"]
    latency_ms: float = 0.0
    dependencies: list[Dependency] = msgspec.field(default_factory=list)
    message: str | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class OpenContext:
    """Where an open provider lives. Handed to the constructor; no secrets in its repr."""

    tenant: str
    connection: str
    data_dir: Path
    """A directory of this tenant, provider and connection alone; exists, mode 0700."""
    shared_dir: Path
    """A directory all tenants of this provider share (models, downloaded files)."""
    vault: SecretVault = field(repr=False)
    identity: Identity = field(repr=False)
    links: Links = field(repr=False)
    """Makes URLs of the gateway that reach this connection without a key."""
    remind: Remind = field(repr=False)
    """``await remind(due)``: have ``work`` run at ``due`` (an aware ``datetime``) or soon after, also after a
    restart, and also when the provider has been closed meanwhile; an earlier reminder stands."""
    overlaps: Overlaps = field(repr=False)
    """For secrets: how long versions stay that a rotation has replaced."""


@runtime_checkable
class Provider(Protocol):
    """What every provider has beside one async method per action.

    ``async def <action>(self, request: <Action>Request, context: CallContext) -> <Action>Result``;
    a streaming action is an async generator of ``<Action>Result`` items (CALL-08).

    The rules that every provider keeps are named here by their ids in the provider specification
    (``docs/reference/provider-spec.md``); the conformance suite proves each.
    """

    translate: ClassVar[ErrorTable]
    """Exception type -> error code (CALL-09)."""

    def __init__(self, config: Config, context: OpenContext) -> None:
        """Keep the arguments; do no input or output (LIFE-01)."""

    async def open(self) -> None:
        """Acquire connections, files, threads. May be cancelled (LIFE-10).

        Raises:
            ProviderError: ``unavailable`` (try later), ``unauthenticated`` (ask for new
                credentials) or ``failed_precondition`` (the configuration cannot work) (NET-01, NET-03).
        """

    async def close(self) -> None:
        """Release everything (LIFE-06). Safe without ``open`` (LIFE-02), twice (LIFE-03), while calls run (LIFE-09)."""

    async def health(self) -> Health:
        """Ask the peer now and answer what is true (LIFE-04, NET-02)."""


@runtime_checkable
class Worker(Protocol):
    """A provider with work of its own: deliveries to retry, rules to apply, leases to end."""

    async def work(self, context: CallContext) -> datetime.datetime | None:
        """Do what is due now and answer when there is more to do; None when nothing is planned.

        Called after ``remind``, one at a time per connection, with a deadline of 60 s; what is not done by then is
        cancelled and called again. Events emitted on ``context`` are delivered as those of a call are.
        Running twice for one reminder must do no harm: a process may die in between.
        """
