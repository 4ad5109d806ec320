"""The decision point: what it remembers, when it forgets, and that it denies when something fails."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from tests.conftest import NewDataDir
from tests.security.policy.opa_double import opa_double

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.main import Layer, Settings, running
from erp.runtime.context import Actor
from erp.runtime.question import Decision, Question
from erp.security.policy.decisions import DecisionPoint
from erp.security.policy.document import EXAMPLE
from erp.security.policy.engines import EmbeddedEngine, OpaEngine
from erp.security.policy.process import RegoProcess
from erp.security.policy.shadow import Shadow
from erp.security.policy.tenant_rules import TOO_SLOW, TenantRules
from erp.security.policy.wiring import PolicySettings

pytestmark = pytest.mark.anyio

HEAD = "package tenant\nimport rego.v1\n"
NO_WRITES = HEAD + 'deny contains "nothing is written at month end" if input.target.effect == "write"\n'
READ = EXAMPLE
WRITE = Question(actor=READ.actor, area="providers", domain="cache", name="memory", action="set", effect="write")


@pytest.fixture
async def layer(new_data_dir: NewDataDir) -> AsyncIterator[Layer]:
    async with running(Settings(data_dir=new_data_dir(), database_url=None, log_level="error")) as made:
        await made.control.tenants.create("platform")
        for tenant in ("acme", "globex"):
            await made.control.tenants.create(tenant)
        yield made


def of(tenant: str, question: Question = WRITE) -> Question:
    actor = Actor(id="key_2", tenant=tenant, roles=frozenset({"developer"}))
    return Question(
        actor=actor,
        area=question.area,
        domain=question.domain,
        name=question.name,
        action=question.action,
        effect=question.effect,
    )


async def test_a_tenants_policy_denies_more_and_nobody_else(layer: Layer) -> None:
    assert (await layer.policy.decide(WRITE)).allow
    await layer.control.policies.put("acme", NO_WRITES, by="key_1")

    made = await layer.policy.decide(WRITE)
    assert (made.allow, made.reason, made.grants) == (False, "nothing is written at month end", ("role developer",))
    assert (await layer.policy.decide(READ)).allow
    assert (await layer.policy.decide(of("globex"))).allow


async def test_the_policy_of_the_platform_holds_for_everybody(layer: Layer) -> None:
    await layer.control.policies.put("platform", NO_WRITES, by="key_1")

    assert [(await layer.policy.decide(of(tenant))).allow for tenant in ("acme", "globex")] == [False, False]


async def test_a_tenants_policy_cannot_widen_what_the_platform_denies(layer: Layer) -> None:
    await layer.control.policies.put("acme", HEAD + "allow := true\ndeny := set()\n", by="key_1")
    nobody = Question(
        actor=Actor(id="n", tenant="acme"), area="admin", domain="keys", name="*", action="create", effect="write"
    )

    assert not (await layer.policy.decide(nobody)).allow


async def test_a_decision_is_made_once_until_something_changes(layer: Layer) -> None:
    first = await layer.policy.decide(WRITE)
    assert layer.policy.known(WRITE) is first
    await layer.control.policies.put("acme", NO_WRITES, by="key_1")

    assert layer.policy.known(WRITE) is None
    assert not (await layer.policy.decide(WRITE)).allow
    await layer.control.policies.put("acme", "", by="key_1")
    assert (await layer.policy.decide(WRITE)).allow


@pytest.mark.slow
async def test_another_process_hears_of_a_new_policy_within_a_second(layer: Layer) -> None:
    async with running(layer.settings) as other:
        assert (await other.policy.decide(WRITE)).allow
        await layer.control.policies.put("acme", NO_WRITES, by="key_1")
        await asyncio.sleep(1.0)

        assert other.policy.known(WRITE) is None
        assert not (await other.policy.decide(WRITE)).allow


async def test_remembered_decisions_are_bounded(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erp.security.policy.decisions.CAPACITY", 3)
    for number in range(10):
        actor = Actor(id=f"k{number}", tenant="acme", roles=frozenset({"developer"}))
        question = Question(actor=actor, area="providers", domain="cache", name="memory", action="get", effect="read")
        assert (await layer.policy.decide(question)).allow
        assert len(layer.policy._decisions) <= 3


async def test_an_engine_that_is_killed_is_started_again_and_decides(layer: Layer) -> None:
    process = RegoProcess(seconds=30)
    engine = EmbeddedEngine(process)
    point = DecisionPoint(engine, TenantRules(), layer.control.policies, layer.control.revisions)
    assert (await point.decide(READ)).allow
    assert process._process is not None
    os.kill(process._process.pid, signal.SIGKILL)

    assert (await point.decide(WRITE)).allow
    await point.close()


async def test_without_an_engine_nothing_is_allowed_and_the_call_may_be_repeated(layer: Layer) -> None:
    with opa_double() as double:
        engine = OpaEngine(double.address, token="agent-token", seconds=30)
        await engine.push()
        point = DecisionPoint(engine, TenantRules(), layer.control.policies, layer.control.revisions)
        for answer in ((500, b"{}"), (200, b"no json"), (200, b"{}"), (200, b'{"result": true}')):
            double.instead = answer
            with pytest.raises(ProviderError) as raised:
                await point.decide(READ)
            assert (raised.value.code, raised.value.retryable) == (ErrorCode.UNAVAILABLE, True)
        double.instead = None

        assert (await point.decide(READ)).allow
        assert set(double.authorization) == {"Bearer agent-token"}
        await point.close()


@pytest.mark.slow
async def test_a_policy_that_takes_too_long_denies_and_delays_nobody_else(layer: Layer) -> None:
    rules = TenantRules(RegoProcess(seconds=0.5))
    slow = (
        HEAD
        + 'deny contains "x" if {\n\ts := {a | some a in input.l}\n\tcount({[a, b, c, d] | some a in s; some b in s; some c in s; some d in s}) < 0\n}\n'
    )
    many = '{"l": [' + ",".join(map(str, range(200))) + "]}"

    assert await rules.denials("acme/1", slow, many) == [TOO_SLOW]
    assert await rules.denials("acme/1", slow, many) == [TOO_SLOW]
    assert await TenantRules().denials("globex/1", HEAD + 'deny contains "no" if true\n', "{}") == ["no"]
    assert "does not answer" in str((await rules.lint(slow, many))[0])
    await rules.close()


async def test_consent_is_read_for_every_call_that_names_a_purpose(layer: Layer) -> None:
    purposed = Question(
        actor=READ.actor,
        area="providers",
        domain="cache",
        name="memory",
        action="get",
        effect="read",
        purpose="marketing",
        subject="customer-1",
    )
    record = layer.control.policies.record_consent

    assert (await layer.policy.decide(purposed)).reason == "the subject has not consented to this purpose"
    await record("acme", "customer-1", "marketing", "granted", by="key_1", evidence="form 7")
    assert (await layer.policy.decide(purposed)).allow
    await record("acme", "customer-1", "marketing", "withdrawn", by="key_1")
    assert not (await layer.policy.decide(purposed)).allow


async def test_a_tenants_data_stays_in_its_region(layer: Layer) -> None:
    await layer.control.tenants.update("acme", region="eu")
    abroad = Question(
        actor=READ.actor,
        area="providers",
        domain="db",
        name="postgres",
        action="query",
        effect="read",
        region="us-east",
    )

    assert (
        await layer.policy.decide(abroad)
    ).reason == "the connection is in another region than the tenant's data may be"
    assert (await layer.policy.decide(READ)).allow


async def test_a_second_engine_is_compared_and_decides_nothing(layer: Layer) -> None:
    class Stubborn:
        name = "stubborn"

        async def start(self) -> None: ...
        async def close(self) -> None: ...
        async def decide(self, input_: dict[str, object]) -> Decision:
            return Decision(allow=False, reason="never")

    shadow = Shadow(Stubborn())
    point = DecisionPoint(
        EmbeddedEngine(), TenantRules(), layer.control.policies, layer.control.revisions, shadow=shadow
    )
    assert (await point.decide(READ)).allow
    await asyncio.gather(*shadow._tasks)

    report = shadow.report()
    assert (report["compared"], report["different"]) == (1, 1)
    assert report["differences"][0]["decided"] == {"allow": True, "reason": "role developer"}
    assert report["differences"][0]["stubborn"] == {"allow": False, "reason": "never"}
    await point.close()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ERP_POLICY_ENGINE": "opa"}, "its address is not known. Set ERP_OPA_URL"),
        ({"ERP_POLICY_SHADOW": "opa"}, "its address is not known. Set ERP_OPA_URL"),
        ({"ERP_POLICY_ENGINE": "cedar"}, "ERP_POLICY_ENGINE is 'cedar'. Set it to embedded or opa."),
    ],
)
def test_settings_that_cannot_work_are_explained(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ProviderError) as raised:
        PolicySettings.from_environment()
    assert message in raised.value.message
