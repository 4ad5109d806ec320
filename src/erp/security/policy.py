"""Who may do what, by role and scope. Implements ``ports.Policy``.

Roles:
    admin      everything in its tenant; in the tenant ``platform`` also creating and removing tenants and reloading providers
    operator   connections, routes, operations, health, metrics and all actions; reads everything else of administration
    developer  actions of providers and services; no administration
    service    the layer's own services: actions, no administration

Scopes narrow a key further: ``AREA:TARGET:WHAT``, for example ``providers:cache/*:read``,
``services:order:*``, ``admin:keys:list``. ``*`` stands for any text; WHAT is an effect or an action.
An actor without scopes is held by its roles alone.
"""

from __future__ import annotations

import re

from erp.runtime.context import Actor
from erp.runtime.ports import Decision

PLATFORM = "platform"
CAPACITY = 10_000
SCOPE_PARTS = 3

_Target = tuple[str, str, str, str, str]
"""area, domain, name, action, effect."""

_OPERATED = frozenset({"connections", "routes", "operations", "metrics", "health", "outbox"})
"""Areas of administration that operators change."""
_OF_THE_PLATFORM = frozenset({("tenants", "create"), ("tenants", "delete"), ("catalog", "reload")})


class RolePolicy:
    """Deny by default. Decisions depend on roles, scopes, target and whether the tenant is the platform's; all are cached."""

    def __init__(self) -> None:
        self._decisions: dict[tuple[frozenset[str], frozenset[str], bool, str, str, str, str, str], Decision] = {}

    def decide(self, actor: Actor, *, area: str, domain: str, name: str, action: str, effect: str) -> Decision:
        key = (actor.roles, actor.scopes, actor.tenant == PLATFORM, area, domain, name, action, effect)
        found = self._decisions.get(key)
        if found is None:
            found = _decide(actor, (area, domain, name, action, effect))
            if len(self._decisions) >= CAPACITY:
                self._decisions.clear()
            self._decisions[key] = found
        return found


def _decide(actor: Actor, target: _Target) -> Decision:
    area, domain, _, action, _ = target
    role = next((role for role in sorted(actor.roles) if _role_allows(role, target)), None)
    if role is None:
        return Decision(allow=False, reason=_lacking(actor, area))
    if (domain, action) in _OF_THE_PLATFORM and area == "admin" and actor.tenant != PLATFORM:
        return Decision(allow=False, reason="only the platform's administrators may do this")
    if actor.scopes and not any(_scope_covers(scope, target) for scope in actor.scopes):
        return Decision(allow=False, reason="no scope of the key covers it")
    return Decision(allow=True, reason=f"role {role}")


def _lacking(actor: Actor, area: str) -> str:
    roles = ", ".join(sorted(actor.roles)) or "no role"
    return f"{roles} may not use {area}" if area != "admin" else f"{roles} may not administer this"


def _role_allows(role: str, target: _Target) -> bool:
    area, domain, _, _, effect = target
    if area in {"providers", "services"}:
        return role in {"admin", "operator", "developer", "service"}
    if area != "admin":
        return False
    return role == "admin" or (role == "operator" and (effect == "read" or domain in _OPERATED))


def _scope_covers(scope: str, target: _Target) -> bool:
    parts = scope.split(":")
    if len(parts) != SCOPE_PARTS:
        return False
    area, domain, name, action, effect = target
    place, pattern, what = parts
    # Administration is named by its area alone (keys) or with what it is about (connections/cache/redis).
    names = (f"{domain}/{name}",) if area == "providers" else (domain, f"{domain}/{name}")
    return (
        place in {area, "*"}
        and any(_matches(each, pattern) for each in names)
        and (_matches(action, what) or what == effect)
    )


def _matches(text: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None
