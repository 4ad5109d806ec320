"""Keys that no name can leave."""

from __future__ import annotations

import itertools

from erp.vendor_clients.redis.keyspace import Keyspace, literal


def test_a_key_says_whose_it_is() -> None:
    assert Keyspace("erp", "acme", "default").of("e") == "erp:{acme/default}:e:"


def test_no_two_tenants_or_connections_have_a_key_in_common() -> None:
    names = ["a", "a/b", "b", "a}:e:", "{a", "%7D", "", ":", "é", "\n"]
    bases = [Keyspace("erp", tenant, connection).base for tenant, connection in itertools.product(names, names)]

    assert not [pair for pair in itertools.permutations(bases, 2) if pair[0].startswith(pair[1])]


def test_the_hash_tag_is_tenant_and_connection_whatever_they_contain() -> None:
    for name in ("a}b", "{x}", "{"):
        base = Keyspace("erp", name, name).base
        assert (base.count("{"), base.count("}")) == (1, 1)
        assert base.endswith("}:")


def test_a_pattern_stands_for_exactly_its_text() -> None:
    assert literal(r"a*b?[c]^-\d") == r"a\*b\?\[c\]\^\-\\d"
