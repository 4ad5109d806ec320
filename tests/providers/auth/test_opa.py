"""auth/opa on a double: what it sends, and that nothing but a clear decision allows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.security.policy.opa_double import OpaDouble, opa_double
from tests.support.opa_policy import DECISION, push

from erp.contracts.models.auth import Entity, EvaluateRequest
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.providers.auth.opa.provider import OpenPolicyAgent
from erp.runtime.spi import OpenContext

if TYPE_CHECKING:
    from tests.conftest import MakeCallContext

pytestmark = pytest.mark.anyio

ASKED = EvaluateRequest(
    subject=Entity(type="user", id="reader-of-the-suite"),
    action="get",
    resource=Entity(type="provider", id="cache/memory"),
)


@pytest.fixture(autouse=True)
def _loopback_is_allowed_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture
def agent() -> Iterator[OpaDouble]:
    with opa_double() as double:
        push(double.address)
        yield double


@pytest.fixture
async def provider(agent: OpaDouble, open_context: OpenContext) -> AsyncIterator[OpenPolicyAgent]:
    config = {"url": agent.address, "decision": DECISION, "token": "of-the-agent", "timeout_seconds": 30}
    opened = OpenPolicyAgent(config, open_context)
    await opened.open()
    yield opened
    await opened.close()


async def test_the_agent_decides_with_the_tenant_of_the_connection(
    agent: OpaDouble, provider: OpenPolicyAgent, call_context: MakeCallContext
) -> None:
    made = await provider.evaluate(ASKED, call_context(seconds=30))

    # The policy knows the tenant alpha alone; the connection is one of acme.
    assert (made.decision, made.reason) == (False, "nobody allows it")
    assert agent.authorization[-1] == "Bearer of-the-agent"


@pytest.mark.parametrize(
    ("document", "decision", "reason"),
    [
        ({"result": True}, True, "the policy says so"),
        ({"result": False}, False, "the policy says so"),
        ({"result": {"allow": True, "reason": "because"}}, True, "because"),
        ({"result": {"allow": False}}, False, "the policy says so"),
        ({}, False, "the policy does not say"),
    ],
)
async def test_a_clear_decision_is_passed_on(
    agent: OpaDouble,
    provider: OpenPolicyAgent,
    call_context: MakeCallContext,
    document: Any,
    decision: bool,
    reason: str,
) -> None:
    agent.instead = (200, json.dumps(document).encode())

    made = await provider.evaluate(ASKED, call_context())

    assert (made.decision, made.reason) == (decision, reason)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, b'{"result": "true"}', ErrorCode.FAILED_PRECONDITION),
        (200, b'{"result": 1}', ErrorCode.FAILED_PRECONDITION),
        (200, b'{"result": {"allow": "yes"}}', ErrorCode.FAILED_PRECONDITION),
        (200, b'{"result": [true]}', ErrorCode.FAILED_PRECONDITION),
        (200, b"true", ErrorCode.UNAVAILABLE),
        (200, b"<html>", ErrorCode.UNAVAILABLE),
        (500, b'{"result": true}', ErrorCode.UNAVAILABLE),
        (401, b"{}", ErrorCode.UNAUTHENTICATED),
        (403, b"{}", ErrorCode.UNAUTHENTICATED),
        (404, b"{}", ErrorCode.FAILED_PRECONDITION),
    ],
)
async def test_anything_else_is_no_decision(
    agent: OpaDouble,
    provider: OpenPolicyAgent,
    call_context: MakeCallContext,
    status: int,
    body: bytes,
    code: ErrorCode,
) -> None:
    agent.instead = (status, body)

    with pytest.raises(ProviderError) as refused:
        await provider.evaluate(ASKED, call_context())

    assert refused.value.code is code


async def test_an_agent_inside_the_network_is_not_reached_unless_the_operator_allows_it(
    agent: OpaDouble, open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ERP_EGRESS_ALLOW")
    provider = OpenPolicyAgent({"url": agent.address, "decision": DECISION}, open_context)

    with pytest.raises(ProviderError) as refused:
        await provider.open()

    assert refused.value.code is ErrorCode.FAILED_PRECONDITION
    assert agent.authorization == []
