"""CPU time of the journal per effectful call: one claim and one completion with its audit record.

    .venv/bin/python benchmarks/journal.py [--concurrency 64] [--calls 20000] [--rounds 5] [--url postgresql://...]

Prints the process's CPU time per call (both threads) and the calls per second, as median over
rounds with the least and the most. On PostgreSQL the server's own CPU time is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from erp.control_plane import ControlPlane
from erp.runtime.ports import AuditEntry, Claim, Completion, OutboxEvent

TARGET_MICROSECONDS = 120


def _claim(number: str) -> Claim:
    return Claim(
        tenant="acme",
        actor="key_benchmark",
        key=f"c:{number}",
        target="cache/memory.set",
        fingerprint=b"0123456789abcdef",
        token=number,
        reentrant=True,
        window_seconds=86_400,
    )


def _audit(number: str) -> AuditEntry:
    return AuditEntry(
        tenant="acme",
        actor="key_benchmark",
        action="cache.set",
        target="cache/memory.set",
        outcome="ok",
        reason="done",
        request_id=number,
        time="2026-11-23T10:00:00.123456+00:00",
        effect="write",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )


def _event(number: str) -> OutboxEvent:
    return OutboxEvent(
        tenant="acme",
        id=number,
        topic="provider.events.cache.memory.invalidated",
        type="erp.cache.invalidated",
        source="/providers/cache/memory",
        time="2026-11-23T10:00:00.123456+00:00",
        data={"removed": 1, "tags": ["price"]},
    )


async def _calls(control: ControlPlane, prefix: str, count: int, *, with_events: bool) -> None:
    for number in range(count):
        name = f"{prefix}-{number}"
        claim = _claim(name)
        outcome = await control.journal.claim(claim)
        assert outcome.state == "won"
        events = [_event(name)] if with_events else []
        await control.journal.complete(
            Completion(audit=_audit(name), events=events, claim=claim, status=200, body=b'{"stored":true}')
        )


async def _round(
    control: ControlPlane, name: str, options: argparse.Namespace, *, with_events: bool
) -> tuple[float, float]:
    each = options.calls // options.concurrency
    cpu, wall = time.process_time(), time.perf_counter()
    callers = (
        _calls(control, f"{name}-{caller}", each, with_events=with_events) for caller in range(options.concurrency)
    )
    await asyncio.gather(*callers)
    calls = each * options.concurrency
    return (time.process_time() - cpu) / calls * 1e6, calls / (time.perf_counter() - wall)


def _print(title: str, rounds: list[tuple[float, float]]) -> None:
    micros, rates = [cpu for cpu, _ in rounds], [rate for _, rate in rounds]
    print(
        f"{title}: {statistics.median(micros):6.1f} us CPU per call ({min(micros):.1f} to {max(micros):.1f}),"
        f" {statistics.median(rates):7.0f} calls/s ({min(rates):.0f} to {max(rates):.0f})"
    )


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--url")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        control = await ControlPlane.open(Path(folder), options.url, pepper=bytes(32))
        plain, eventful = [], []
        start = time.time_ns()
        for number in range(options.rounds):
            plain.append(await _round(control, f"{start}-p{number}", options, with_events=False))
            eventful.append(await _round(control, f"{start}-e{number}", options, with_events=True))
        await control.close()
    print(f"concurrency {options.concurrency}, target {TARGET_MICROSECONDS} us without events")
    _print("claim + complete + audit        ", plain)
    _print("claim + complete + audit + event", eventful)


if __name__ == "__main__":
    asyncio.run(main())
