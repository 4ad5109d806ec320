from __future__ import annotations

import pytest

from erp.control_plane import ControlPlane
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio

PRINT = "ab" * 32


async def test_a_value_means_one_account_until_it_is_removed(control: ControlPlane) -> None:
    for tenant in ("acme", "globex"):
        await control.service_accounts.create(tenant, "bot", role="developer")
    facts = {"service_account": "bot", "created_by": "key_1"}
    made = await control.client_certificates.register("acme", kind="fingerprint", value=PRINT, **facts)
    with pytest.raises(ProviderError, match="registered already"):
        await control.client_certificates.register("globex", kind="fingerprint", value=PRINT.upper(), **facts)
    assert [one.tenant for one in await control.client_certificates.holders([("fingerprint", PRINT)])] == ["acme"]
    with pytest.raises(ProviderError, match="no certificate"):
        await control.client_certificates.remove("globex", made.id)
    await control.client_certificates.remove("acme", made.id)
    assert await control.client_certificates.holders([("fingerprint", PRINT)]) == []


async def test_two_names_of_one_account_are_one_holder(control: ControlPlane) -> None:
    await control.service_accounts.create("acme", "bot", role="developer")
    for kind, value in (("uri", "spiffe://a/b"), ("dns", "B.example.com")):
        await control.client_certificates.register(
            "acme", service_account="bot", kind=kind, value=value, created_by="key_1"
        )
    names = [("uri", "spiffe://a/b"), ("dns", "b.example.com")]
    assert [one.service_account for one in await control.client_certificates.holders(names)] == ["bot"]
