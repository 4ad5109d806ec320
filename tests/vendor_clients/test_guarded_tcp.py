"""A host that a tenant has configured is reached only where the operator lets it be reached."""

from __future__ import annotations

import ssl

import pytest

from erp.errors import ProviderError
from erp.vendor_clients.egress import EgressRule
from erp.vendor_clients.guarded_tcp import permitted_address, tls_for

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "0x7f000001", "::1"])
async def test_a_private_address_is_refused(host: str) -> None:
    with pytest.raises(ProviderError) as refused:
        await permitted_address(host, 5432, EgressRule())

    assert refused.value.code == "failed_precondition"
    assert "ERP_EGRESS_ALLOW" in refused.value.message


async def test_what_the_operator_allows_is_reached_by_its_address() -> None:
    rule = EgressRule.from_environment({"ERP_EGRESS_ALLOW": "127.0.0.1/32:5432"})

    assert await permitted_address("127.0.0.1", 5432, rule) == "127.0.0.1"
    with pytest.raises(ProviderError):
        await permitted_address("127.0.0.1", 5433, rule)


async def test_a_name_without_an_address_may_have_one_later() -> None:
    with pytest.raises(ProviderError) as refused:
        await permitted_address("name.invalid", 5432, EgressRule())

    assert (refused.value.code, refused.value.retryable) == ("unavailable", True)


async def test_tls_proves_the_name_although_an_address_is_connected_to() -> None:
    context = tls_for("db.example.com", verify=True, authority=None)
    made = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="203.0.113.9")

    assert made.server_hostname == "db.example.com"
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


async def test_an_authority_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(ProviderError) as refused:
        tls_for("db.example.com", verify=True, authority="-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----")

    assert refused.value.code == "failed_precondition"
