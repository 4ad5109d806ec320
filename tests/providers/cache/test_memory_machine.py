"""The store of the memory cache against a model of it: a dictionary that forgets what has died."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from erp.providers.cache.memory import entries
from erp.providers.cache.memory.entries import OVERHEAD_BYTES, Entries, Entry

KEYS = st.sampled_from(["a", "a:1", "a:2", "ab", "b", "b:1", "ä", "a\U0001f980", ""])
TAGS = st.frozensets(st.sampled_from(["red", "blue"]), max_size=2)
TIMES = st.sampled_from([math.inf, 1.0, 5.0])


class Clock:
    """Monotonic time that the machine moves."""

    now = 100.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


@dataclass
class Known:
    """What the model knows of an entry."""

    data: bytes
    dies_at: float
    idle: float
    used_at: float
    tags: frozenset[str]

    def is_alive(self) -> bool:
        return Clock.now < self.dies_at and Clock.now < self.used_at + self.idle


class Machine(RuleBasedStateMachine):
    """Large enough that nothing is evicted: what is there and what is not is then exact."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Entries(10**9)
        self.counted = 0
        self.store.on_change = self.count
        self.model: dict[str, Known] = {}

    def count(self, change: int) -> None:
        self.counted += change

    def alive(self) -> dict[str, Known]:
        return {key: known for key, known in self.model.items() if known.is_alive()}

    @rule(key=KEYS, data=st.binary(max_size=5), ttl=TIMES, tti=TIMES, tags=TAGS)
    def put(self, key: str, data: bytes, ttl: float, tti: float, tags: frozenset[str]) -> None:
        self.store.put(key, Entry(data, 1, Clock.now + ttl, tti, tags))
        self.model[key] = Known(data, Clock.now + ttl, tti, Clock.now, tags)

    @rule(key=KEYS)
    def find(self, key: str) -> None:
        found, known = self.store.find(key), self.alive().get(key)
        assert (found.data if found else None) == (known.data if known else None)
        if known:
            known.used_at = Clock.now

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        assert self.store.drop([key]) == (key in self.alive())
        self.model.pop(key, None)

    @rule(prefix=st.sampled_from(["a", "a:", "b", "ä", "z", ""]))
    def drop_prefix(self, prefix: str) -> None:
        expected = [key for key in self.alive() if key.startswith(prefix)]
        assert self.store.drop(self.store.prefixed(prefix)) == len(expected)
        self.model = {key: known for key, known in self.model.items() if not key.startswith(prefix)}

    @rule(tag=st.sampled_from(["red", "blue"]))
    def drop_tag(self, tag: str) -> None:
        expected = [key for key, known in self.alive().items() if tag in known.tags]
        assert self.store.drop(self.store.tagged([tag])) == len(expected)
        self.model = {key: known for key, known in self.model.items() if tag not in known.tags}

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        Clock.now += seconds

    @rule(limit=st.integers(1, 5))
    def sweep(self, limit: int) -> None:
        self.store.sweep(limit)

    @invariant()
    def nothing_alive_is_missing_and_bytes_are_exact(self) -> None:
        held = dict(self.store._entries)
        assert set(self.alive()) <= set(held) <= set(self.model)
        sizes = [OVERHEAD_BYTES + len(key) + len(one.data) + sum(map(len, one.tags)) for key, one in held.items()]
        assert self.store.bytes == self.counted == sum(sizes)
        assert list(self.store._sorted) == sorted(held)
        tagged = {(tag, key) for key, one in held.items() for tag in one.tags}
        assert {(tag, key) for tag, keys in self.store._by_tag.items() for key in keys} == tagged


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "time", Clock)


class TestMemory(Machine.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
