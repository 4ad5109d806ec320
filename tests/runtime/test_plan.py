"""A call finds its provider and its protections, again and again without asking twice."""

import asyncio
import time

import pytest
from tests.runtime.conftest import ToyLayer
from tests.runtime.toys import DOMAINS, SERVICES, ToyProvider, manifest

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import plan as plans
from erp.runtime.manifest import ProviderManifest
from erp.runtime.plan import Plan, PlanBook
from erp.runtime.pool import key_of
from erp.runtime.ports import Connection

pytestmark = pytest.mark.anyio


async def find(
    toy: ToyLayer, action: str = "get", *, provider: str = "box", name: str = "default", tenant: str = "acme"
) -> Plan:
    return await toy.plans.find(tenant, toy.catalog.action("providers", "toy", action), provider, name)


async def failure(toy: ToyLayer, action: str = "get", **place: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await find(toy, action, **place)
    return caught.value


async def test_an_undeclared_capability_is_unsupported_and_opens_nothing(toy: ToyLayer) -> None:
    error = await failure(toy, "expire")

    assert error.code is ErrorCode.UNSUPPORTED
    assert error.message == "toy/box does not declare the capability 'ttl' that toy.expire needs."
    assert toy.script.constructed == []

    toy.connect(provider="vat")
    assert (await find(toy, "expire", provider="vat")).provider == "toy/vat"


async def test_an_unknown_connection_is_answered_with_how_to_make_it(toy: ToyLayer) -> None:
    error = await failure(toy, name="west")

    assert error.code is ErrorCode.NOT_FOUND
    assert error.message == (
        "toy/box has no connection named 'west' for this tenant. Create it with POST /providers/toy/box/configure."
    )
    assert (await failure(toy, provider="bax")).message == (
        "There is no provider of domain toy named 'bax'. Did you mean box?"
    )


async def test_refused_calls_leave_no_plan(toy: ToyLayer) -> None:
    for name in ("a", "b", "c"):
        await failure(toy, name=name)

    assert toy.plans._plans == {}
    assert toy.plans._guards == {}


async def test_an_embedded_provider_needs_no_configuration(toy: ToyLayer) -> None:
    toy.catalog = toy.plans.catalog = toy.pool.catalog = type(toy.catalog)(DOMAINS, SERVICES, [manifest(embedded=True)])
    toy.connections.stored.clear()

    connection = await toy.plans.connection("acme", "toy", "box", "default")

    assert (connection.revision, connection.config) == ("implicit", {})
    with pytest.raises(ProviderError):
        await toy.plans.connection("acme", "toy", "box", "other")
    assert await toy.plans.default_of("acme", "toy") == ("box", "default")


async def test_the_default_of_a_domain_is_what_the_tenant_chose(toy: ToyLayer) -> None:
    assert await toy.plans.default_of("acme", "toy") is None

    toy.connections.defaults["acme", "toy"] = ("vat", "west")

    assert await toy.plans.default_of("acme", "toy") == ("vat", "west")
    assert await toy.plans.default_of("globex", "toy") is None


async def test_a_plan_is_reused_until_it_is_a_second_old(toy: ToyLayer) -> None:
    first = await find(toy)
    get = first.action

    assert toy.plans.known("acme", get, "box", "default") is first
    assert await find(toy) is first
    first.fresh_until = time.monotonic()
    assert toy.plans.known("acme", get, "box", "default") is None

    second = await find(toy)
    assert second is not first
    assert (second.gate, second.breaker, second.bucket) == (first.gate, first.breaker, first.bucket)
    assert len(toy.script.opened) == 1


async def test_a_changed_connection_is_seen_within_a_second(toy: ToyLayer) -> None:
    first = await find(toy)
    toy.connect(revision="r2", policy={"timeout_seconds": 7})

    assert (await find(toy)).policy.timeout_seconds == 30
    first.fresh_until = 0
    assert (await find(toy)).policy.timeout_seconds == 7
    assert len(toy.script.opened) == 2


async def test_a_forgotten_plan_is_made_anew_for_its_tenant_only(toy: ToyLayer) -> None:
    toy.connect("globex")
    ours, theirs = await find(toy), await find(toy, tenant="globex")

    toy.plans.forget("acme")

    assert await find(toy) is not ours
    assert await find(toy, tenant="globex") is theirs


async def test_actions_of_a_connection_share_their_protections(toy: ToyLayer) -> None:
    get, put = await find(toy), await find(toy, "put")

    assert get is not put
    assert (get.gate, get.breaker, get.bucket) == (put.gate, put.breaker, put.bucket)


async def test_an_action_with_settings_of_its_own_has_protections_of_its_own(toy: ToyLayer) -> None:
    own = {"bulkhead": {"max_concurrency": 1}, "breaker": {"failure_threshold": 1}, "rate": {"requests": 1}}
    toy.protect(actions={"put": own})
    get, append, put = await find(toy), await find(toy, "append"), await find(toy, "put")

    assert get.gate is append.gate
    assert (put.gate.limits.max_concurrency, get.gate.limits.max_concurrency) == (1, 64)
    assert put.breaker is not get.breaker
    assert put.bucket is not get.bucket


async def test_tenants_never_share(toy: ToyLayer) -> None:
    toy.connect("globex")
    ours, theirs = await find(toy), await find(toy, tenant="globex")

    assert ours.opened is not None
    assert theirs.opened is not None
    assert ours.opened.provider is not theirs.opened.provider
    assert ours.opened.provider.context.data_dir != theirs.opened.provider.context.data_dir
    for part in ("gate", "breaker", "bucket", "method"):
        assert getattr(ours, part) is not getattr(theirs, part)
    assert (await failure(toy, tenant="initech")).code is ErrorCode.NOT_FOUND


async def test_connections_of_a_tenant_do_not_share(toy: ToyLayer) -> None:
    toy.connect(name="west")
    first, second = await find(toy), await find(toy, name="west")

    assert first.gate is not second.gate
    assert first.breaker is not second.breaker


async def test_the_limits_of_provider_tenant_connection_and_action_count_in_this_order(toy: ToyLayer) -> None:
    limited = manifest("vat", limits={"timeout_seconds": 9, "max_concurrency": 3})
    toy.plans.catalog = toy.pool.catalog = type(toy.catalog)(DOMAINS, SERVICES, [limited])
    toy.connections.policies["acme"] = {"timeout_seconds": 8, "retry": {"max_attempts": 7}}
    toy.connect(provider="vat", policy={"actions": {"get": {"timeout_seconds": 4}}})

    get, put = await find(toy, provider="vat"), await find(toy, "put", provider="vat")

    assert (get.policy.timeout_seconds, put.policy.timeout_seconds) == (4, 8)
    assert get.policy.retry.max_attempts == 7
    assert get.policy.bulkhead.max_concurrency == 3


async def test_a_plan_whose_provider_is_closing_is_not_used_again(toy: ToyLayer) -> None:
    first = await find(toy)
    toy.pool.discard("acme", "toy", "box", "default")

    assert toy.plans.known("acme", first.action, "box", "default") is None
    second = await find(toy)
    assert second.opened is not None
    assert not second.opened.is_closing


async def test_what_is_closed_leaves_no_plan_and_no_protections_behind(toy: ToyLayer) -> None:
    toy.connect(name="west")
    kept = await find(toy, name="west")
    await find(toy)
    await find(toy, "put")

    toy.pool.discard("acme", "toy", "box", "default")

    assert list(toy.plans._plans.values()) == [kept]
    assert list(toy.plans._guards) == [("acme", "toy", "box", "west")]

    assert kept.opened is not None
    kept.opened.last_used = -1e9
    assert toy.pool.evict_idle() == 1
    assert toy.plans._plans == {}
    assert toy.plans._guards == {}


async def test_a_connection_that_changes_while_it_opens_is_read_again(toy: ToyLayer) -> None:
    changes = iter(["r2", "r3"])

    async def change(provider: ToyProvider) -> None:
        if revision := next(changes, None):
            connection = toy.connect(revision=revision)
            toy.pool.discard(*key_of(connection))

    toy.script.on_open = change
    found = await find(toy)

    assert found.opened is not None
    assert found.opened.connection.revision == "r3"
    assert not found.opened.is_closing
    assert len(toy.script.opened) == 3


async def test_a_connection_that_keeps_changing_is_unavailable_until_it_stops(toy: ToyLayer) -> None:
    async def change(_: ToyProvider) -> None:
        toy.pool.discard("acme", "toy", "box", "default")

    toy.script.on_open = change
    error = await failure(toy)
    assert (error.code, error.retry_after_seconds) == (ErrorCode.UNAVAILABLE, 1.0)

    toy.script.on_open = None
    assert (await find(toy)).opened is not None


async def test_an_old_revision_read_late_is_put_right_by_the_next_call(toy: ToyLayer) -> None:
    old = toy.connect(revision="r1")
    current = await find(toy)
    toy.connect(revision="r2")
    current.fresh_until = 0
    current = await find(toy)

    stale = await toy.pool.acquire(old)

    assert not toy.plans._plans
    found = await find(toy)
    assert found.opened is not None
    assert found.opened.connection.revision == "r2"
    assert stale.is_closing


async def test_concurrent_first_calls_get_the_same_protections(toy: ToyLayer) -> None:
    found = await asyncio.gather(*(find(toy) for _ in range(20)))

    assert len({id(item.gate) for item in found}) == 1
    assert len({id(item.bucket) for item in found}) == 1
    assert len(toy.script.opened) == 1


async def test_a_service_keeps_its_places_and_its_rate_over_refreshes(toy: ToyLayer) -> None:
    buy = toy.catalog.action("services", "shop", "buy")
    first = await toy.plans.find("acme", buy, "shop", "default")
    first.fresh_until = 0
    second = await toy.plans.find("acme", buy, "shop", "default")

    assert second is not first
    assert (second.gate, second.bucket) == (first.gate, first.bucket)
    toy.connections.policies["acme"] = {"bulkhead": {"max_concurrency": 2}}
    second.fresh_until = 0
    assert (await toy.plans.find("acme", buy, "shop", "default")).gate.limits.max_concurrency == 2


async def test_there_are_never_more_plans_than_the_limit(toy: ToyLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MAX_PLANS", 2)
    get, put, append = await find(toy), await find(toy, "put"), await find(toy, "append")

    assert list(toy.plans._plans.values()) == [put, append]
    put.fresh_until = 0
    await find(toy, "put")
    assert len(toy.plans._plans) == 2
    assert await find(toy) is not get


async def test_the_breaker_state_of_a_connection_is_its_worst(toy: ToyLayer) -> None:
    connection: Connection = toy.connect(policy={"actions": {"put": {"breaker": {"failure_threshold": 1}}}})
    assert toy.plans.breaker_state(connection) == "closed"
    await find(toy)
    put = await find(toy, "put")
    assert toy.plans.breaker_state(connection) == "closed"

    assert put.breaker is not None
    put.breaker.failed()

    assert toy.plans.breaker_state(connection) == "open"


@pytest.mark.parametrize(
    ("action", "provider", "expected"),
    [("get", "box", True), ("put", "box", True), ("append", "box", False), ("append", "vat", True)],
)
async def test_a_call_is_repeatable_by_itself_or_by_the_providers_keys(
    toy: ToyLayer, action: str, provider: str, *, expected: bool
) -> None:
    assert toy.plans.is_repeatable(toy.catalog.action("providers", "toy", action), provider) is expected


async def test_a_manifest_states_what_it_can(toy: ToyLayer) -> None:
    book: PlanBook = toy.plans
    found: ProviderManifest = book.catalog.provider("toy", "vat")

    assert (found.domain, found.name, found.secret_fields) == ("toy", "vat", ("secret",))
