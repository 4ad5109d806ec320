from __future__ import annotations

import pytest

from erp.runtime.context import Actor
from erp.security import policy
from erp.security.policy import RolePolicy

GET = {"area": "providers", "domain": "cache", "name": "memory", "action": "get", "effect": "read"}
SET = {"area": "providers", "domain": "cache", "name": "memory", "action": "set", "effect": "write"}
SUBMIT = {"area": "services", "domain": "order", "name": "order", "action": "submit", "effect": "write"}


def admin(domain: str, action: str, effect: str, name: str = "*") -> dict[str, str]:
    return {"area": "admin", "domain": domain, "name": name, "action": action, "effect": effect}


CONFIGURE = admin("connections", "configure", "write", "cache/redis")
LIST_KEYS = admin("keys", "list", "read")
CREATE_KEY = admin("keys", "create", "write")
SEARCH = admin("audit", "search", "read")
METRICS = admin("metrics", "read", "read")
CREATE_TENANT = admin("tenants", "create", "write")
GET_TENANT = admin("tenants", "get", "read")

EVERYTHING = {
    "get": GET,
    "set": SET,
    "submit": SUBMIT,
    "configure": CONFIGURE,
    "list keys": LIST_KEYS,
    "create key": CREATE_KEY,
    "search audit": SEARCH,
    "metrics": METRICS,
    "create tenant": CREATE_TENANT,
    "get tenant": GET_TENANT,
}


def actor(*roles: str, tenant: str = "acme", scopes: tuple[str, ...] = ()) -> Actor:
    return Actor(id="key_1", tenant=tenant, roles=frozenset(roles), scopes=frozenset(scopes))


def allowed(who: Actor) -> set[str]:
    decide = RolePolicy().decide
    return {name for name, target in EVERYTHING.items() if decide(who, **target).allow}


@pytest.mark.parametrize(
    ("who", "may"),
    [
        (actor("admin"), set(EVERYTHING) - {"create tenant"}),
        (actor("admin", tenant="platform"), set(EVERYTHING)),
        (
            actor("operator"),
            {"get", "set", "submit", "configure", "list keys", "search audit", "metrics", "get tenant"},
        ),
        (actor("operator", tenant="platform"), set(EVERYTHING) - {"create key", "create tenant"}),
        (actor("developer"), {"get", "set", "submit"}),
        (actor("service"), {"get", "set", "submit"}),
        (actor("nobody"), set()),
        (actor(), set()),
        (actor("developer", "operator"), set(EVERYTHING) - {"create key", "create tenant"}),
    ],
)
def test_roles_allow_what_they_are_for_and_nothing_else(who: Actor, may: set[str]) -> None:
    assert allowed(who) == may


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (("providers:cache/*:read",), {"get"}),
        (("providers:cache/memory:*",), {"get", "set"}),
        (("providers:*:set",), {"set"}),
        (("providers:cache/redis:*",), set()),
        (("providers:cache:*",), set()),
        (("services:order:*",), {"submit"}),
        (("services:order:read",), set()),
        (("admin:keys:read",), {"list keys"}),
        (("admin:keys:list",), {"list keys"}),
        (("admin:connections/cache/*:*",), {"configure"}),
        (("admin:connections/db/*:*",), set()),
        (("*:*:read",), {"get", "list keys", "search audit", "metrics", "get tenant"}),
        (("providers:cache/*:read", "services:*:write"), {"get", "submit"}),
        (("nonsense",), set()),
        (("providers:[a-z]*:read",), set()),
    ],
)
def test_scopes_narrow_a_role(scopes: tuple[str, ...], may: set[str]) -> None:
    assert allowed(actor("admin", scopes=scopes)) == may


def test_scopes_give_nothing_that_the_role_does_not_have() -> None:
    assert allowed(actor("developer", scopes=("admin:keys:*", "services:order:*"))) == {"submit"}


def test_an_unknown_area_is_denied_to_everybody() -> None:
    for role in ("admin", "operator", "developer", "service"):
        assert not RolePolicy().decide(actor(role, tenant="platform"), **{**GET, "area": "elsewhere"}).allow


@pytest.mark.parametrize(
    ("who", "target", "reason"),
    [
        (actor("admin"), GET, "role admin"),
        (actor("developer"), LIST_KEYS, "developer may not administer this"),
        (actor(), GET, "no role may not use providers"),
        (actor("admin"), CREATE_TENANT, "only the platform's administrators may do this"),
        (actor("admin", scopes=("services:order:*",)), GET, "no scope of the key covers it"),
    ],
)
def test_every_decision_gives_its_reason(who: Actor, target: dict[str, str], reason: str) -> None:
    assert RolePolicy().decide(who, **target).reason == reason


def test_a_decision_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = RolePolicy()
    first = rules.decide(actor("admin"), **GET)
    monkeypatch.setattr(policy, "_decide", None)
    assert rules.decide(actor("admin"), **GET) is first


def test_remembered_decisions_are_bounded_and_stay_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "CAPACITY", 10)
    rules = RolePolicy()
    for number in range(100):
        assert rules.decide(actor("developer"), **{**GET, "name": str(number)}).allow
        assert len(rules._decisions) <= 10
    assert not rules.decide(actor("nobody"), **GET).allow
