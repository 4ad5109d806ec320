"""What ``bus/nats`` costs: events published and consumed, against nats-py alone on the same server.

Usage: ERP_TEST_NATS=nats://... python benchmarks/bus_nats.py [--rounds 7] [--events 3200] [--concurrency 32]

Both sides run in this process, on one connection each, and do the same work as seen by a caller. Publish: that many
callers each await the confirmation of an event with its id, the raw side with ``js.publish`` and the same JSON. Consume:
four callers each take a hundred at a time, read them, and have the acknowledgement confirmed; the raw side with
``psub.fetch`` and ``msg.ack``, the last of each hundred with ``msg.ack_sync``. Prints events per second and per CPU second of
this process, median over interleaved rounds with the least and the most, and the ratios provider/raw per second
(budgets: publish at least 0.6, consume at least 0.5). Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import nats
import uvloop
from load import median, spread

from erp.contracts.models.bus import AckRequest, CloudEvent, PublishRequest, PullRequest
from erp.providers.bus.nats.provider import NatsBus
from erp.runtime.context import Actor, CallContext
from erp.runtime.standalone import place

BUDGETS = {"publish": 0.6, "consume": 0.5}
AT_ONCE = 100
CONSUMERS = 4
"""More of them starve each other in nats-py: a fetch whose messages another one got waits for its whole timeout."""
DATA = {"order": "ord_1", "total": "19.90", "currency": "EUR", "lines": [{"sku": "SKU-1", "quantity": "2"}]}
Side = Callable[[], Awaitable[None]]

_numbers = itertools.count()


def event() -> CloudEvent:
    """Return a new small event."""
    return CloudEvent(id=f"e{next(_numbers)}", source="/bench", type="order.submitted", data=DATA)


class Provider:
    """The provider, as the layer calls it."""

    def __init__(self, address: str, folder: Path, events: int, concurrency: int) -> None:
        self._events, self._concurrency = events, concurrency
        url = urlsplit(address)
        config = {"url": f"nats://{url.hostname}:{url.port}", "user": url.username, "password": url.password}
        self.bus = NatsBus({**config, "prefix": f"bench-{secrets.token_hex(4)}"}, place(folder, tenant="bench"))
        actor = Actor(id="bench", tenant="bench")
        self._context = CallContext(tenant="bench", actor=actor, request_id="r", deadline=time.monotonic() + 36_000)

    async def publish(self) -> None:
        """Publish all events, ``concurrency`` at a time."""

        async def one(count: int) -> None:
            for _ in range(count):
                await self.bus.publish(PublishRequest(topic="t", event=event()), self._context)

        await asyncio.gather(*(one(self._events // self._concurrency) for _ in range(self._concurrency)))

    async def consume(self) -> None:
        """Pull and acknowledge all events."""

        async def one() -> None:
            while True:
                request = PullRequest(topic="t", group="g", max_events=AT_ONCE)
                found = (await self.bus.pull(request, self._context)).deliveries
                if not found:
                    return
                await self.bus.ack(AckRequest(ack_ids=[each.ack_id for each in found]), self._context)

        await asyncio.gather(*(one() for _ in range(CONSUMERS)))


class Raw:
    """nats-py alone."""

    def __init__(self, events: int, concurrency: int) -> None:
        self._events, self._concurrency = events, concurrency
        self.name = f"raw-{secrets.token_hex(4)}"

    async def open(self, address: str) -> None:
        """Connect and make a stream like the provider's."""
        self.client = await nats.connect(address)
        self._js = self.client.jetstream()
        await self._js.add_stream(name=self.name, subjects=[f"{self.name}.>"], duplicate_window=600)
        self._subscriptions = [
            await self._js.pull_subscribe(f"{self.name}.t", durable="g", stream=self.name) for _ in range(CONSUMERS)
        ]

    async def publish(self) -> None:
        """Publish all events, ``concurrency`` at a time."""

        async def one(count: int) -> None:
            for _ in range(count):
                made = event()
                await self._js.publish(f"{self.name}.t", msgspec.json.encode(made), headers={"Nats-Msg-Id": made.id})

        await asyncio.gather(*(one(self._events // self._concurrency) for _ in range(self._concurrency)))

    async def consume(self) -> None:
        """Fetch and acknowledge all events."""
        unclaimed = self._events

        async def one(subscription: Any) -> None:
            nonlocal unclaimed
            while unclaimed > 0:
                wanted = min(AT_ONCE, unclaimed)  # nobody waits in vain, which would be the provider's gain
                unclaimed -= wanted
                found: list[Any] = []
                while len(found) < wanted:
                    with contextlib.suppress(TimeoutError):
                        found += await subscription.fetch(wanted - len(found), timeout=5)
                for message in found:
                    msgspec.json.decode(message.data, type=CloudEvent)
                    await (message.ack_sync() if message is found[-1] else message.ack())

        await asyncio.gather(*map(one, self._subscriptions))


async def timed(side: Side, events: int) -> tuple[float, float]:
    """Return events per second and per CPU second."""
    started, cpu = time.perf_counter(), time.process_time()
    await side()
    return events / (time.perf_counter() - started), events / (time.process_time() - cpu)


async def measure(address: str, folder: Path, options: argparse.Namespace) -> bool:
    """Print both sides of both questions; return whether the budgets are kept."""
    provider = Provider(address, folder, options.events, options.concurrency)
    raw = Raw(options.events, options.concurrency)
    await provider.bus.open()
    await raw.open(address)
    rates: dict[str, list[float]] = {}
    for number in range(options.rounds):
        sides = [("raw", raw), ("provider", provider)]
        for question in BUDGETS:
            for name, side in sides if number % 2 else reversed(sides):
                wall, cpu = await timed(getattr(side, question), options.events)
                rates.setdefault(f"{question} {name} per second", []).append(wall)
                rates.setdefault(f"{question} {name} per CPU second", []).append(cpu)
    await provider.bus.close()
    await raw.client.close()
    for name, found in sorted(rates.items()):
        print(f"{name:33} {spread(found)}")
    judged = [_judged(question, budget, rates) for question, budget in BUDGETS.items()]
    return all(judged)


def _judged(question: str, budget: float, rates: dict[str, list[float]]) -> bool:
    pairs = zip(rates[f"{question} provider per second"], rates[f"{question} raw per second"], strict=True)
    ratios = [provider / raw for provider, raw in pairs]
    print(
        f"{question}: provider / raw {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})   budget >= {budget}"
    )
    return median(ratios) >= budget


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=3200)
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    address = os.environ.get("ERP_TEST_NATS")
    if not address:
        print('ERP_TEST_NATS is not set: eval "$(scripts/services up /tmp/erp-services nats)"', file=sys.stderr)
        return 2
    os.environ.setdefault("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    with tempfile.TemporaryDirectory() as folder:
        return 0 if uvloop.run(measure(address, Path(folder), options)) else 1


if __name__ == "__main__":
    sys.exit(main())
