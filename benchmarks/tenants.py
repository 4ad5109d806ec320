"""A thousand tenants, each with a connection of its own: idle ones are closed, and memory stays flat.

Usage: python benchmarks/tenants.py [--provider storage/filesystem] [--config FILE] [--tenants 1000] [--minutes 10] [--quick]

Calls go round the tenants, some of whom are active at a time. Every tenant's connection has the settings in FILE (JSON, in
which {tenant} stands for the tenant's name); none for an embedded provider. Prints open providers, file descriptors and
resident memory in between. Exits with 1 when more providers are open than were used lately, when memory grows after the
first round by more than 16 MiB, or when anything stays open in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

import erp.main
from erp.errors import ProviderError
from erp.gateway.configuration import secret_prefix, split_secrets
from erp.main import Layer, Settings, running
from erp.runtime.call import Call
from erp.runtime.conformance.samples import sample
from erp.runtime.context import Actor
from erp.runtime.ports import Connection
from erp.runtime.secret_references import SECRET_SCHEME
from erp.telemetry.ids import continued, new_request_id

GROWTH_MEBIBYTES = 16
IDLE_SECONDS, QUICK_IDLE_SECONDS = 20.0, 2.0
ACTIVE = 50
"""Tenants that are called at a time."""
TURN_SECONDS = 5.0
GRACE_SECONDS = 5.0
"""How late a busy machine may close what is idle."""
LEFT_OPEN = 8
"""File descriptors that logs, caches and the like may have opened meanwhile."""

_encode = msgspec.json.Encoder().encode
_jitter = random.SystemRandom()


@dataclass
class Sample:
    """What the process holds at one time."""

    seconds: float
    open_providers: int
    descriptors: int
    mebibytes: float


@dataclass
class Load:
    """Calls of many tenants, and what they have come to."""

    layer: Layer
    ref: str
    tenants: list[str]
    idle_seconds: float
    calls: int = 0
    failures: list[str] = field(default_factory=list)
    used: dict[str, float] = field(default_factory=dict)

    async def turn(self, seconds: float, tenants: list[str]) -> None:
        """Call as some tenants for a time."""
        ends = time.monotonic() + seconds
        await asyncio.gather(*(self._customer(tenant, ends) for tenant in tenants))

    async def _customer(self, tenant: str, ends: float) -> None:
        while time.monotonic() < ends:
            self.used[tenant] = time.monotonic()
            try:
                await self.layer.calls.invoke(self._call(tenant))
                self.calls += 1
            except ProviderError as error:
                self.failures.append(f"{tenant}: {error}")
            await asyncio.sleep(_jitter.uniform(0.1, 1.0))

    def _call(self, tenant: str) -> Call:
        domain, _, provider = self.ref.partition("/")
        own = self.layer.catalog.provider(domain, provider).conformance.get("sample")
        name, params = sample(domain, f"n-{self.calls}", own)
        action = self.layer.catalog.action("providers", domain, name)
        request, _ = action.decode(_encode({"params": params}))
        return Call(
            action=action,
            actor=Actor(id="bench", tenant=tenant, roles=frozenset({"developer"})),
            provider=provider,
            connection="default",
            request=request,
            request_id=new_request_id(),
            traceparent=continued(None),
        )

    def lately(self) -> int:
        """How many tenants may have an open connection: those used within the time after which it is closed."""
        since = time.monotonic() - 2 * self.idle_seconds - GRACE_SECONDS
        return sum(at > since for at in self.used.values())


async def furnished(layer: Layer, ref: str, config: str, count: int) -> list[str]:
    """Make the tenants with their connections."""
    tenants = [f"tenant-{number:04}" for number in range(count)]
    for tenant in tenants:
        await layer.control.tenants.create(tenant)
        await _connect(layer, ref, tenant, json.loads(config.replace("{tenant}", tenant)))
    return tenants


async def _connect(layer: Layer, ref: str, tenant: str, config: Mapping[str, Any]) -> None:
    manifest = layer.catalog.provider(*ref.split("/"))
    plain, secrets = split_secrets(manifest, config)
    made = Connection(
        tenant=tenant,
        domain=manifest.domain,
        provider=manifest.name,
        name="default",
        revision="",
        config=plain,
        secrets={},
        policy={},
    )
    references = {}
    for name, value in secrets.items():
        path = f"{secret_prefix(made)}{name}"
        references[name] = f"{SECRET_SCHEME}{path}#{await layer.vault.put(tenant, path, value)}"
    await layer.control.connections.put(msgspec.structs.replace(made, secrets=references))


def measured(layer: Layer, began: float) -> Sample:
    """Return what the process holds now (``proc(5)``: pages resident are the second figure of ``statm``)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (names are enough)
    return Sample(
        seconds=time.monotonic() - began,
        open_providers=len(layer.pool),
        descriptors=descriptors,
        mebibytes=pages * os.sysconf("SC_PAGE_SIZE") / 1024**2,
    )


async def rounds(load: Load, minutes: float) -> tuple[list[Sample], list[str]]:
    """Go round the tenants; return samples, of which the first is of the end of the first round, and what was wrong."""
    began, samples, wrong = time.monotonic(), list[Sample](), list[str]()
    at = 0
    while not samples or time.monotonic() - began < minutes * 60:
        active = [load.tenants[(at + number) % len(load.tenants)] for number in range(ACTIVE)]
        at += ACTIVE
        await load.turn(min(TURN_SECONDS, load.idle_seconds), active)
        now = measured(load.layer, began)
        held = f"{now.open_providers:5} open {now.descriptors:5} descriptors {now.mebibytes:7.1f} MiB"
        print(f"{now.seconds:6.0f} s {load.calls:8} calls {held}", flush=True)
        if now.open_providers > load.lately():
            wrong.append(
                f"at {now.seconds:.0f} s {now.open_providers} providers were open, {load.lately()} used lately"
            )
        if at >= len(load.tenants):
            samples.append(now)
    return samples, wrong


async def benchmark(options: argparse.Namespace) -> list[str]:
    """Run it; return which budgets were missed."""
    config = options.config.read_text(encoding="utf-8") if options.config else "{}"
    idle = QUICK_IDLE_SECONDS if options.quick else IDLE_SECONDS
    erp.main.EVICTION_SECONDS = idle / 4
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), database_url=None, log_level="error")
        async with running(settings) as layer:
            layer.pool.settings.idle_seconds = idle
            await layer.first_key()  # makes the tenant whose key signs the audit log
            tenants = await furnished(layer, options.provider, config, options.tenants)
            before = measured(layer, time.monotonic())
            load = Load(layer, options.provider, tenants, idle)
            samples, wrong = await rounds(load, options.minutes)
            await asyncio.sleep(2 * idle)
            after = measured(layer, time.monotonic())
    growth = max(one.mebibytes for one in samples) - samples[0].mebibytes
    print(f"{load.calls} calls of {len(load.used)} tenants; memory grew by {growth:.1f} MiB after the first round")
    print(
        f"in the end {after.open_providers} open, {after.descriptors - before.descriptors} more descriptors than before"
    )
    wrong += [f"{len(load.failures)} calls failed, such as {load.failures[0]}"] if load.failures else []
    if growth > GROWTH_MEBIBYTES and not options.quick:
        wrong.append(f"memory grew by {growth:.1f} MiB")
    wrong += [f"{after.open_providers} providers stayed open"] if after.open_providers else []
    left = after.descriptors - before.descriptors
    return [*wrong, f"{left} file descriptors stayed open"] if left > LEFT_OPEN else wrong


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="storage/filesystem")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--quick", action="store_true", help="120 tenants for half a minute: whether it runs, no figures"
    )
    options = parser.parse_args()
    if options.quick:
        options.tenants, options.minutes = 120, 0.5
    wrong = asyncio.run(benchmark(options))
    for one in wrong:
        print(f"missed: {one}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
