"""Which addresses may be connected to."""

from __future__ import annotations

import ipaddress

import pytest

from erp.vendor_clients.egress import EgressRule

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.170",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert EgressRule().permits(address) is False


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "172.15.255.255", "172.32.0.0", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101"]
)
def test_public_addresses_are_permitted_also_through_a_translator(address: str) -> None:
    assert EgressRule().permits(address) is True


@pytest.mark.parametrize("text", ["", "localhost", "2130706433", "127.1", "1.1.1.1/32", "1.1.1.1 "])
def test_what_is_not_an_address_is_refused(text: str) -> None:
    assert EgressRule().permits(text) is False


def test_networks_of_the_operator_are_permitted_in_every_spelling_and_no_others() -> None:
    rule = EgressRule.from_environment({"ERP_EGRESS_ALLOW": "127.0.0.1/32, 10.1.0.0/16,fd00:1::/32"})
    permitted = ["127.0.0.1", "::ffff:127.0.0.1", "10.1.255.1", "fd00:1::5", "1.1.1.1"]
    assert [address for address in permitted if not rule.permits(address)] == []
    refused = ["127.0.0.2", "10.2.0.1", "::1", "fd00:2::5", "169.254.169.254"]
    assert [address for address in refused if rule.permits(address)] == []


def test_a_network_with_a_port_is_permitted_at_that_port_alone() -> None:
    rule = EgressRule.from_environment({"ERP_EGRESS_ALLOW": "127.0.0.1/32:8443,[fd00:1::/32]:9000,10.1.0.0/16"})
    permitted = [("127.0.0.1", 8443), ("::ffff:127.0.0.1", 8443), ("fd00:1::5", 9000), ("10.1.0.1", 1), ("1.1.1.1", 1)]
    assert [pair for pair in permitted if not rule.permits(*pair)] == []
    refused = [("127.0.0.1", 80), ("127.0.0.1", None), ("127.0.0.2", 8443), ("fd00:1::5", 8443), ("10.2.0.1", 8443)]
    assert [pair for pair in refused if rule.permits(*pair)] == []


def test_without_the_variable_nothing_private_is_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ERP_EGRESS_ALLOW", raising=False)
    assert EgressRule.from_environment() == EgressRule()
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    assert EgressRule.from_environment() == EgressRule((ipaddress.ip_network("127.0.0.0/8"),))


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "127.0.0.1;10.0.0.0/8",
        "127.0.0.1/32:0",
        "127.0.0.1/32:65536",
        "127.0.0.1/32:http",
        "[::1]",
    ],
)
def test_a_malformed_variable_is_an_error_and_not_an_open_door(text: str) -> None:
    with pytest.raises(ValueError, match="ERP_EGRESS_ALLOW"):
        EgressRule.from_environment({"ERP_EGRESS_ALLOW": text})
