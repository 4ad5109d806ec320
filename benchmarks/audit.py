"""What audit proofs cost a call, and how long the check of a large log takes.

    .venv/bin/python benchmarks/audit.py [--calls 4000] [--rounds 5] [--records 1000000] [--quick]

Both sides make the same calls through the whole pipeline (`cache/memory.set`, 64 at a time) in rounds that take turns: one with the
chain and the tree, one whose audit rows are plain inserts without hashes. The ratio of calls per CPU second is that of a pair of
rounds; the median has a budget (at least 0.9). Then a log of `--records` records is checked: it must take less than a minute
for a million, with memory that does not grow. Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from erp.control_plane.batch import ChainWriter, audit_row
from erp.control_plane.chain import GENESIS
from erp.main import Layer, Settings, running
from erp.runtime.call import Call
from erp.runtime.context import Actor
from erp.runtime.ports import AuditEntry
from erp.security.audit import Verification

RATIO_BUDGET = 0.9
SECONDS_PER_MILLION = 60.0
GROWTH_BUDGET_MB = 64
CONCURRENCY = 64
TENANT = "acme"


class PlainRows(ChainWriter):
    """Writes the same rows without chain and tree."""

    def extend(self, connection: Any, entries: Any, heads: Any) -> None:
        """Insert ``entries`` and count them."""
        rows = []
        for tenant, moment, actor, target, outcome, action, effect, request_id, record in entries:
            head = heads[tenant]
            head.seq += 1
            searched = (action, effect, request_id)
            rows.append((tenant, head.seq, moment, actor, target, outcome, record, GENESIS, GENESIS, *searched))
        self._insert_audit.run(connection, rows)
        self._update_head.run(connection, [(head.seq, GENESIS, b"", tenant) for tenant, head in heads.items()])

    def _read_heads(self, connection: Any, tenants: Any) -> Any:
        from erp.control_plane.batch import Head
        from erp.control_plane.merkle import CompactRange

        rows = self._heads.rows(connection, tenants)
        return {tenant: Head(seq, bytes(digest), CompactRange()) for tenant, seq, digest, _ in rows}


async def _round(layer: Layer, calls: int, mark: str) -> float:
    """Return how many calls a second of CPU time has served."""
    action = layer.catalog.action("providers", "cache", "set")
    actor = Actor(id="key_benchmark", tenant=TENANT, roles=frozenset({"developer"}))
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            body = b'{"params":{"key":"%d","value":1}}' % (number % 100)
            await layer.calls.invoke(
                Call(action=action, actor=actor, provider="memory", body=body, request_id=f"{mark}-{number}")
            )

    before = time.process_time()
    await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
    return calls / (time.process_time() - before)


async def _ratio(calls: int, rounds: int) -> float:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        settings = [Settings(data_dir=Path(folder), database_url=None, log_level="error") for folder in (one, other)]
        async with running(settings[0]) as proved, running(settings[1]) as plain:
            for layer in (proved, plain):
                await layer.control.tenants.create(TENANT)
            writer = plain.control.journal._writer  # noqa: SLF001  (the part that is replaced for the comparison)
            writer._chain = PlainRows(plain.control.database.dialect)  # noqa: SLF001
            await _round(proved, calls // 4, "warm")
            await _round(plain, calls // 4, "warm")
            found = []
            for number in range(rounds):
                pair = [proved, plain] if number % 2 else [plain, proved]
                rates = {layer: await _round(layer, calls, f"r{number}") for layer in pair}
                found.append((rates[proved], rates[plain]))
    ratios = [with_proofs / without for with_proofs, without in found]
    print(
        f"calls per CPU second: {statistics.median(one for one, _ in found):,.0f} with audit proofs, "
        f"{statistics.median(other for _, other in found):,.0f} with plain audit rows; "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), at least {RATIO_BUDGET}"
    )
    return statistics.median(ratios)


def _entry(number: int) -> AuditEntry:
    return AuditEntry(
        tenant=TENANT,
        actor="key_benchmark",
        action="cache.set",
        target="cache/memory.set",
        outcome="ok",
        reason="done",
        request_id=f"{number:024}",
        time="2026-11-23T10:00:00.123456+00:00",
        effect="write",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )


async def _verification(records: int) -> tuple[float, float]:
    """Return the seconds that a check takes and by how many MB the process's peak grew during it."""
    with tempfile.TemporaryDirectory() as folder:
        async with running(Settings(data_dir=Path(folder), database_url=None, log_level="error")) as layer:
            database, chain = layer.control.database, ChainWriter(layer.control.database.dialect)
            for first in range(0, records, 20_000):
                rows = [audit_row(_entry(number)) for number in range(first, min(first + 20_000, records))]

                def write(connection: Any, rows: Any = rows) -> None:
                    chain.extend(connection, rows, chain.locked(connection, {TENANT}))

                await database.transact(write)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            started = time.perf_counter()
            verdict = await Verification(layer.control, TENANT, [], []).run()
            seconds = time.perf_counter() - started
            growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            if not verdict.is_whole or verdict.checked != records:
                sys.exit(f"the log is not whole: {verdict.reason}")
    print(
        f"{records:,} records checked in {seconds:.1f} s ({records / seconds:,.0f} a second), peak memory +{growth:.0f} MB"
    )
    return seconds, growth


def main() -> None:
    """Measure, and compare with the budgets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    chosen = parser.parse_args()
    share = 10 if chosen.quick else 1
    ratio = asyncio.run(_ratio(chosen.calls // share, chosen.rounds))
    records = chosen.records // share
    seconds, growth = asyncio.run(_verification(records))
    if ratio < RATIO_BUDGET or seconds > SECONDS_PER_MILLION * records / 1_000_000 or growth > GROWTH_BUDGET_MB:
        sys.exit("a budget is missed")


if __name__ == "__main__":
    main()
