"""Limits of a connection, as the peer behind it sees them when several processes keep them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
from tests.support.counting_peer import CountingPeer
from tests.support.process import Server

PATH = "/providers/integration/http_api"
PARAMS = {"object": "thing", "keys": [{"id": "1"}]}
EGRESS = {"ERP_EGRESS_ALLOW": "127.0.0.1/32"}
SEEN_SECONDS = 2.0
"""When a changed connection is known to all processes, at the latest."""


class Limited:
    """A connection to a counting peer, called over several servers."""

    def __init__(self, servers: Sequence[Server], peer: CountingPeer, name: str) -> None:
        self._servers = servers
        self._peer = peer
        self._name = name

    def configure(self, **policy: Any) -> None:
        objects = {"thing": {"key": ["id"], "id_field": "id", "get": {"path": "/things/{id}"}}}
        config = {"base_url": self._peer.address, "objects": objects}
        body = {"connection": self._name, "config": config, "policy": policy, "may_be_down": True}
        with self._servers[0].client("admin") as admin:
            answer = admin.post(f"{PATH}/configure", json=body)
            assert answer.status_code == 200, answer.text
        time.sleep(SEEN_SECONDS)
        self._peer.forget()

    def call(self, number: int) -> int:
        """Call over a connection of its own, so that any process may get it."""
        server = self._servers[number % len(self._servers)]
        own = {"Authorization": f"Bearer {server.keys['developer']}", "X-Connection": self._name}
        url = f"{server.address}{PATH}/fetch"
        return httpx2.post(url, json={"params": PARAMS}, headers=own, timeout=60).status_code

    def called(self, count: int, *, at_once: int) -> Counter[int]:
        with ThreadPoolExecutor(at_once) as threads:
            return Counter(threads.map(self.call, range(count)))


def check_concurrency(limited: Limited, peer: CountingPeer) -> None:
    """Twenty callers never are more than three at the peer, and all are answered."""
    limited.configure(concurrency=3)
    assert limited.called(80, at_once=20) == {200: 80}
    assert peer.most_at_once == 3


def check_one_at_a_time(limited: Limited, peer: CountingPeer) -> None:
    """Where there are fewer places than processes, each gets its turn."""
    limited.configure(concurrency=1)
    assert limited.called(30, at_once=10) == {200: 30}
    assert peer.most_at_once == 1


def check_rate(limited: Limited, peer: CountingPeer) -> None:
    """Whatever second one looks at, the peer was asked no more often than it may be."""
    limited.configure(rate={"requests": 20, "period_seconds": 1, "burst": 10})
    ends = time.monotonic() + 4
    statuses: Counter[int] = Counter()
    while time.monotonic() < ends:
        statuses += limited.called(40, at_once=10)
    assert set(statuses) == {200, 429}
    assert len(peer.asked_at) == statuses[200] >= 40
    assert peer.most_within(1.0) <= 10 + 20


CHECKS: tuple[Callable[[Limited, CountingPeer], None], ...] = (check_concurrency, check_one_at_a_time, check_rate)
