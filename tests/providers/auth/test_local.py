"""A credential is valid in its own tenant, and looks invalid everywhere else."""

from __future__ import annotations

from typing import Any

import pytest

from erp.contracts.models import auth as api
from erp.errors import ProviderError
from erp.providers.auth.local.provider import LocalIdentity
from erp.runtime.context import Actor, CallContext
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio


@pytest.fixture
def identity_provider(open_context: OpenContext) -> LocalIdentity:
    return LocalIdentity({}, open_context)


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


async def test_a_valid_credential_tells_whose_it_is(identity_provider: LocalIdentity, ctx: CallContext) -> None:
    found = await identity_provider.verify(api.VerifyRequest(credential="valid-credential"), ctx)
    assert found.active is True
    assert (found.subject.id, found.subject.kind, found.subject.roles) == ("key_admin", "key", ["admin"])


async def test_an_invalid_credential_and_one_of_another_tenant_look_the_same(
    identity_provider: LocalIdentity, identity: Any, ctx: CallContext
) -> None:
    identity.actors["theirs"] = Actor(id="key_x", tenant="other")
    answers = [
        await identity_provider.verify(api.VerifyRequest(credential=text), ctx) for text in ("theirs", "nonsense")
    ]
    assert answers == [api.VerifyResult(active=False)] * 2


async def test_an_audience_cannot_be_checked_and_is_refused(identity_provider: LocalIdentity, ctx: CallContext) -> None:
    with pytest.raises(ProviderError) as refused:
        await identity_provider.verify(api.VerifyRequest(credential="valid-credential", audience="x"), ctx)
    assert refused.value.code == "failed_precondition"
