"""Where servers are, in every spelling."""

from __future__ import annotations

import pytest

from erp.vendor_clients.redis.settings import Mode, settings_of


@pytest.mark.parametrize(
    ("mode", "hosts", "addresses"),
    [
        ("single", ["redis"], [("redis", 6379)]),
        ("single", ["redis:7000"], [("redis", 7000)]),
        ("single", ["10.0.0.1"], [("10.0.0.1", 6379)]),
        ("single", ["fd00::1"], [("fd00::1", 6379)]),
        ("single", ["[fd00::1]"], [("fd00::1", 6379)]),
        ("single", ["[fd00::1]:7000"], [("fd00::1", 7000)]),
        ("sentinel", ["a", "b:27000"], [("a", 26379), ("b", 27000)]),
        ("cluster", ["a", "b"], [("a", 6379), ("b", 6379)]),
    ],
)
def test_a_host_names_its_port_or_has_that_of_its_kind(
    mode: Mode, hosts: list[str], addresses: list[tuple[str, int]]
) -> None:
    assert list(settings_of({"mode": mode, "hosts": hosts}).addresses) == addresses


def test_the_port_is_that_of_the_hosts_that_name_none() -> None:
    found = settings_of({"mode": "cluster", "hosts": ["a", "b:7001"], "port": 7000})

    assert found.addresses == (("a", 7000), ("b", 7001))


def test_no_password_is_in_the_text_of_settings() -> None:
    found = settings_of({"password": "hidden-1", "sentinel_password": "hidden-2"})

    assert "hidden" not in repr(found)
