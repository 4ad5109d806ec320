"""What the platform's policy allows: the same on the embedded engine, over OPA's REST API, and on a real OPA."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.security.policy import role_table
from tests.security.policy.opa_double import opa_double

from erp.runtime.context import Actor
from erp.runtime.question import Question
from erp.security.policy.document import Facts, document
from erp.security.policy.engines import EmbeddedEngine, Engine, OpaEngine

pytestmark = pytest.mark.anyio

GET = {"area": "providers", "domain": "cache", "name": "memory", "action": "get", "effect": "read"}
SET = {**GET, "action": "set", "effect": "write"}
DELETE = {**GET, "action": "delete", "effect": "destructive"}
SUBMIT = {"area": "services", "domain": "order", "name": "order", "action": "submit", "effect": "write"}


def admin(domain: str, action: str, effect: str, name: str = "*") -> dict[str, str]:
    return {"area": "admin", "domain": domain, "name": name, "action": action, "effect": effect}


EVERYTHING = {
    "get": GET,
    "set": SET,
    "delete": DELETE,
    "submit": SUBMIT,
    "configure": admin("connections", "configure", "write", "cache/redis"),
    "list keys": admin("keys", "list", "read"),
    "create key": admin("keys", "create", "write"),
    "search audit": admin("audit", "search", "read"),
    "metrics": admin("metrics", "read", "read"),
    "create tenant": admin("tenants", "create", "write"),
    "get tenant": admin("tenants", "get", "read"),
}
SCOPES: tuple[tuple[str, ...], ...] = (
    (),
    ("providers:cache/*:read",),
    ("providers:cache/memory:*",),
    ("providers:*:set",),
    ("providers:cache/redis:*",),
    ("providers:cache:*",),
    ("services:order:*",),
    ("services:order:read",),
    ("admin:keys:read",),
    ("admin:keys:list",),
    ("admin:connections/cache/*:*",),
    ("admin:connections/db/*:*",),
    ("*:*:read",),
    ("providers:cache/*:read", "services:*:write"),
    ("nonsense",),
    ("providers:cach./*:read",),
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["embedded", "opa double", "opa"])
def address(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "embedded":
        yield None
    elif request.param == "opa":
        real = os.environ.get("ERP_TEST_OPA")
        if not real:
            pytest.skip("a real Open Policy Agent: set ERP_TEST_OPA to its address")
        yield real
    else:
        with opa_double() as double:
            yield double.address


@pytest.fixture(scope="module")
async def engine(address: str | None, anyio_backend: str) -> AsyncIterator[Engine]:
    made: Engine
    if address is None:
        made = EmbeddedEngine()
    else:
        made = opa = OpaEngine(address, seconds=30)
        await opa.push()
    yield made
    await made.close()


def actor(*roles: str, tenant: str = "acme", scopes: tuple[str, ...] = ()) -> Actor:
    return Actor(id="key_1", tenant=tenant, roles=frozenset(roles), scopes=frozenset(scopes))


async def reason(engine: Engine, who: Actor, target: dict[str, str]) -> tuple[bool, str]:
    made = await engine.decide(document(Question(actor=who, **target), Facts()))
    return made.allow, made.reason


@pytest.mark.parametrize(
    ("who", "target", "decided"),
    [
        (actor("admin"), GET, (True, "role admin")),
        (actor("developer", "operator"), GET, (True, "role developer")),
        (actor("developer"), EVERYTHING["list keys"], (False, "developer may not administer this")),
        (actor(), GET, (False, "no role may not use providers")),
        (actor("b", "a"), GET, (False, "a, b may not use providers")),
        (actor("admin"), {**GET, "area": "elsewhere"}, (False, "admin may not use elsewhere")),
        (actor("admin"), EVERYTHING["create tenant"], (False, "only the platform's administrators may do this")),
        (actor("admin", scopes=("services:order:*",)), GET, (False, "no scope of the key covers it")),
        (actor("agent"), DELETE, (False, "agents may not do what cannot be undone")),
        (actor("admin"), {**GET, "tenant": "globex"}, (False, "it belongs to another tenant")),
    ],
)
async def test_every_decision_gives_its_reason(
    engine: Engine, who: Actor, target: dict[str, str], decided: tuple[bool, str]
) -> None:
    assert await reason(engine, who, target) == decided


@pytest.mark.slow
async def test_the_policy_is_the_table_of_roles_and_scopes(engine: Engine, address: str | None) -> None:
    roles = [(), ("admin",), ("operator",), ("developer",), ("agent",), ("service",), ("king",), ("agent", "admin")]
    every = itertools.product(roles, ("acme", "platform"), SCOPES, EVERYTHING.values())
    asked = [Question(actor=actor(*r, tenant=t, scopes=s), **target) for r, t, s, target in every]
    if address is not None and "ERP_TEST_OPA" not in os.environ:
        asked = asked[::97]  # a process is started for each

    wrong = [one for one in asked if (await engine.decide(document(one, Facts()))).allow != role_table.allows(one)]

    assert wrong == []


@pytest.mark.parametrize(
    "text", ['a"b', "a\\b", "a\nb", "lone\\u00fc", "ünïcode", "a%22b", "", "a" * 5000, "{}", "[1]"]
)
async def test_a_text_of_the_caller_changes_nothing_but_itself(engine: Engine, text: str) -> None:
    who = Actor(
        id=text, tenant="acme", roles=frozenset({"developer", text}), scopes=frozenset({f"providers:{text}/*:*"})
    )

    assert await reason(engine, who, GET) == (False, "no scope of the key covers it")
    assert (await reason(engine, actor("developer"), {**GET, "name": text}))[0] is True
    assert (await reason(engine, actor(text or "x"), GET))[0] is False
