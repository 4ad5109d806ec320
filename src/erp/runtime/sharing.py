"""Limits of a connection that hold for all processes together: what its policy says of ``concurrency`` and ``rate``.

They protect the provider, whereas a bulkhead protects the process.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from erp.runtime.call_policy import Bulkhead
from erp.runtime.resilience import BulkheadGate, SharedGate

if TYPE_CHECKING:
    from erp.runtime.call_policy import CallPolicy, Rate
    from erp.runtime.ports import Connection, Rates

Gate = BulkheadGate | SharedGate


class Places(Protocol):
    """Places for the calls of one connection, of which several processes together take no more than there are."""

    def try_enter(self) -> bool:
        """Enter without waiting; False when the caller has to ``wait_to_enter``."""

    async def wait_to_enter(self) -> None:
        """Wait for a place.

        Raises:
            ProviderError: ``unavailable`` when nobody can say now how many there are.
        """

    def leave(self) -> None:
        """Give the place to somebody else."""


class PlaceBook(Protocol):
    """The places of all connections."""

    def of(self, owner: tuple[str, str], limit: int) -> Places:
        """Return the places of a connection, of which there are ``limit``.

        Args:
            owner: a tenant and the name of its connection.
            limit: takes the place of what was said before.
        """


class OwnPlaces:
    """The places of connections when there is one process. Implements ``PlaceBook``."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[tuple[str, str], BulkheadGate] = weakref.WeakValueDictionary()

    def of(self, owner: tuple[str, str], limit: int) -> BulkheadGate:
        limits = Bulkhead(max_concurrency=limit, max_queue=1_000_000)  # the bulkheads before it have the queues
        found = self._known.get(owner)
        if found is None:
            found = self._known[owner] = BulkheadGate(limits)
        found.limits = limits
        return found


@dataclass(frozen=True, slots=True)
class SharedRate:
    """The rate limit of a connection over all processes."""

    rates: Rates
    owner: tuple[str, str]
    settings: Rate

    async def take(self) -> float:
        """Take one token. Return 0.0, or the seconds to wait when there is none."""
        return await self.rates.take(self.owner, self.settings)


@dataclass(frozen=True, slots=True)
class Sharing:
    """Makes what protects the provider behind a connection."""

    places: PlaceBook
    rates: Rates | None = None
    """None: there is one process, whose token buckets are the whole limit."""

    def gate(
        self,
        own: BulkheadGate,
        connection: Connection,
        action: str,
        policy: CallPolicy,
        overrides: Sequence[Mapping[str, Any]],
    ) -> Gate:
        """Return the bulkhead ``own``, before the places of all when the policy says how many there are."""
        name = _name(connection, action, "concurrency", overrides)
        if policy.concurrency is None or name is None:
            return own
        return SharedGate(own, self.places.of((connection.tenant, name), policy.concurrency))

    def rate(self, connection: Connection, action: str, policy: CallPolicy) -> SharedRate | None:
        """Return the rate limit of all processes, or None when the connection has none of its own."""
        name = _name(connection, action, "rate", [connection.policy])
        if self.rates is None or name is None:
            return None
        return SharedRate(self.rates, (connection.tenant, name), policy.rate)


def _name(connection: Connection, action: str, what: str, overrides: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what has the limit: the connection, or one of its actions that has its own; None: nobody has said."""
    found = None
    whole = f"{connection.domain}/{connection.provider}#{connection.name}"
    for override in overrides:  # the last one wins, as in the policy
        if override.get(what) is not None:
            found = whole
        if (override.get("actions") or {}).get(action, {}).get(what) is not None:
            found = f"{whole}.{action}"
    return found
