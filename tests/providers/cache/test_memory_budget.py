"""Tenants share the memory of one layer: who takes most gives first."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from erp.providers.cache.memory.budget import Budget, budget_of
from erp.providers.cache.memory.entries import Entries, Entry

VALUE = 1000 - 200 - 8  # what makes an entry with a key of 8 characters 1000 bytes


def entries(budget: Budget, tenant: str, max_bytes: int = 10**9) -> Entries:
    made = Entries(max_bytes)
    budget.join(tenant, made)
    return made


def put(where: Entries, number: int, size: int = VALUE) -> None:
    where.put(f"{number:08}", Entry(b"x" * size, number, float("inf"), float("inf"), frozenset()))


def keys(where: Entries) -> set[int]:
    return {int(key) for key in where.prefixed("")}


def test_a_tenant_that_writes_without_end_evicts_its_own_entries() -> None:
    budget = Budget(100_000)
    modest, greedy = entries(budget, "modest"), entries(budget, "greedy")
    for number in range(40):
        put(modest, number)
    for number in range(1000):
        put(greedy, number)

    assert keys(modest) == set(range(40))
    assert keys(greedy) == set(range(940, 1000))
    assert budget.bytes == modest.bytes + greedy.bytes <= 100_000


def test_below_its_fair_share_nobody_loses_anything() -> None:
    budget = Budget(100_000)
    tenants = [entries(budget, f"t{number}") for number in range(10)]
    for number in range(9):
        for each in tenants:
            put(each, number)
    for number in range(500):
        put(tenants[0], number)

    assert [len(each) for each in tenants[1:]] == [9] * 9
    assert len(tenants[0]) == 19


def test_the_connections_of_a_tenant_count_together() -> None:
    budget = Budget(100_000)
    one, two, other = entries(budget, "a"), entries(budget, "a"), entries(budget, "b")
    for number in range(30):
        put(one, number)
        put(two, number)
        put(other, number)
    for number in range(30, 45):
        put(other, number)

    assert len(other) == 45
    assert len(one) + len(two) == 55


def test_a_tenant_that_closes_gives_its_memory_to_the_others() -> None:
    budget = Budget(100_000)
    first, second = entries(budget, "a"), entries(budget, "b")
    for number in range(100):
        put(first, number)
    first.clear()
    budget.leave("a", first)
    for number in range(100):
        put(second, number)

    assert len(second) == 100
    budget.leave("a", first)  # safe twice


@pytest.mark.parametrize("seed", range(5))
def test_the_count_is_what_is_held_and_never_above_the_bound(seed: int) -> None:
    chance = random.Random(seed)
    budget = Budget(50_000)
    tenants = [entries(budget, f"t{number}", max_bytes=30_000) for number in range(6)]
    for step in range(3000):
        each = chance.choice(tenants)
        if chance.random() < 0.7:
            put(each, chance.randrange(50), chance.randrange(10, 3000))
        elif chance.random() < 0.9:
            each.remove(f"{chance.randrange(50):08}")
        else:
            each.clear()
        assert budget.bytes == sum(one.bytes for one in tenants) <= 50_000, step
        assert len(budget._largest) <= 4 * 6 + 1025


def test_layers_do_not_share_and_connections_of_a_layer_do(tmp_path: Path) -> None:
    one, same, other = budget_of(tmp_path / "a"), budget_of(tmp_path / "a"), budget_of(tmp_path / "b")

    assert one is same
    assert one is not other


class Counted(str):
    """A key that counts how often it is looked at."""

    looks = 0
    __slots__ = ()

    def startswith(self, *arguments: object) -> bool:
        Counted.looks += 1
        return super().startswith(*arguments)


def test_a_prefix_is_found_without_looking_at_all_keys() -> None:
    many = Entries(10**9)
    for number in range(20_000):
        many.put(Counted(f"k{number:06}"), Entry(b"1", number, float("inf"), float("inf"), frozenset()))
    Counted.looks = 0

    found = many.prefixed("k00012")

    assert len(found) == 10
    assert Counted.looks <= 11
