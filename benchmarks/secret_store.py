"""What reading and storing a secret of the platform's own vault costs.

    .venv/bin/python benchmarks/secret_store.py [--rounds 7] [--reads 2000]

Wall time per operation, median over rounds with the least and the most: a numbered version that was read before (what a
configuration names), the same read from the database, and storing one. Two budgets: 30 microseconds and 1 millisecond;
exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from load import median, spread

from erp.control_plane import ControlPlane
from erp.security.keyring import Keyring
from erp.security.vault import EnvelopeVault

BUDGETS = {"read, remembered": 30.0, "read, from the database": 1000.0}
MICROSECONDS = 1e6


async def _round(work: Callable[[int], Awaitable[object]], count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        await work(number)
    return (time.perf_counter() - started) / count * MICROSECONDS


async def measure(rounds: int, reads: int) -> dict[str, list[float]]:
    """Return microseconds per operation, by operation and round."""
    found: dict[str, list[float]] = {name: [] for name in (*BUDGETS, "store")}
    with tempfile.TemporaryDirectory() as folder:
        keyring = Keyring.open(Path(folder), {})
        control = await ControlPlane.open(Path(folder), pepper=keyring.pepper)
        await control.tenants.create("acme")
        vault = EnvelopeVault(control.secrets, keyring)
        await vault.put("acme", "crm/api-key", "not-a-real-key-of-some-length")
        await vault.get("acme", "crm/api-key", 1)
        for _ in range(rounds):
            remembered = await _round(lambda _: vault.get("acme", "crm/api-key", 1), reads)
            stored = await _round(lambda _: vault.get("acme", "crm/api-key"), reads // 10)
            found["read, remembered"].append(remembered)
            found["read, from the database"].append(stored)
            found["store"].append(await _round(lambda n: vault.put("acme", f"s{n}", "value"), 20))
        await control.close()
    return found


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reads", type=int, default=2000)
    options = parser.parse_args()
    found = asyncio.run(measure(options.rounds, options.reads))
    missed = 0
    for name, rounds in found.items():
        budget = BUDGETS.get(name)
        verdict = "" if budget is None else f"  budget {budget:.0f}"
        missed += budget is not None and median(rounds) > budget
        print(f"{name:26} {spread(rounds)} us{verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
