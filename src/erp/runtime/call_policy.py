"""How one call is protected: time limit, retries, breaker, bulkhead, concurrency, rate.

The effective policy of a call is the default, overridden in this order by the provider's limits,
the tenant, the connection and, within each of these, the entry for the action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=86400)]
Pause: TypeAlias = Annotated[float, Meta(ge=0, le=86400)]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Full-jitter retries: the n-th pause is uniform in [0, min(cap, base * 2**n)] seconds."""

    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 3
    base_seconds: Pause = 0.05
    cap_seconds: Pause = 2.0


class Breaker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Opens after ``failure_threshold`` failures within ``window_seconds``; probes after ``open_seconds``."""

    failure_threshold: Count = 10
    window_seconds: Seconds = 10.0
    open_seconds: Seconds = 5.0


class Bulkhead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most ``max_concurrency`` calls run on a connection while ``max_queue`` more wait."""

    max_concurrency: Count = 64
    max_queue: Annotated[int, Meta(ge=0, le=1_000_000)] = 512


class Rate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``requests`` per ``period_seconds``, with up to ``burst`` (default: ``requests``) at once."""

    requests: Count = 10_000
    period_seconds: Seconds = 1.0
    burst: Count | None = None


class CallPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The protections of one action on one connection."""

    timeout_seconds: Seconds = 30.0
    retry: Retry = Retry()
    breaker: Breaker = Breaker()
    bulkhead: Bulkhead = Bulkhead()
    rate: Rate = Rate()
    concurrency: Count | None = None
    """At most so many calls run on a connection, in all processes together; None: as many as their bulkheads let in."""


DEFAULT = CallPolicy()


def resolve(action: str, limits: Mapping[str, float], *overrides: Mapping[str, Any]) -> CallPolicy:
    """Return the policy of ``action`` after applying ``limits`` and ``overrides`` from left to right.

    Raises:
        msgspec.ValidationError: an override has an unknown key, a wrong type or a value out of range.
    """
    merged = msgspec.to_builtins(DEFAULT)
    if "timeout_seconds" in limits:
        merged["timeout_seconds"] = limits["timeout_seconds"]
    if "max_concurrency" in limits:
        merged["bulkhead"]["max_concurrency"] = int(limits["max_concurrency"])
    for override in overrides:
        _merge(merged, {key: value for key, value in override.items() if key != "actions"})
        _merge(merged, override.get("actions", {}).get(action, {}))
    if merged["concurrency"] is not None:
        bulkhead = merged["bulkhead"]
        bulkhead["max_concurrency"] = min(bulkhead["max_concurrency"], merged["concurrency"])
    return msgspec.convert(merged, CallPolicy)


def _merge(target: dict[str, Any], override: Mapping[str, Any]) -> None:
    for key, value in override.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            target[key].update(value)
        else:
            target[key] = value
