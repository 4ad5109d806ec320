"""How quickly the layer is there and how much it holds.

Usage: python benchmarks/start.py [--runs 5]

Prints the median of: ``erp --help`` (budget 0.5 s), start to ``ready`` on an empty and on a used data directory
(budget 2 s), resident memory when ready and after the first calls, without a model loaded (budget 150 MB).
Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load import median, start
from pipeline import ERP, fill

HELP_BUDGET_SECONDS, READY_BUDGET_SECONDS, MEMORY_BUDGET_MB = 0.5, 2.0, 150.0


def help_seconds() -> float:
    """Time ``erp --help`` as a whole process."""
    started = time.perf_counter()
    subprocess.run([*ERP, "--help"], check=True, capture_output=True)
    return time.perf_counter() - started


def ready(folder: Path) -> tuple[float, float, float]:
    """Start the layer; return seconds to ready, megabytes then, and megabytes after a thousand calls."""
    data = ["--data-dir", str(folder / "data")]
    started = time.perf_counter()
    server = start("layer", [*ERP, "serve", "--port", "0", *data], log=folder / "layer.log")
    seconds = time.perf_counter() - started
    try:
        idle = server.resident_bytes() / 1e6
        made = subprocess.run(
            [*ERP, "tenants", "create", f"t{time.time_ns()}", *data], check=True, capture_output=True, text=True
        )
        key = subprocess.run(
            [*ERP, "keys", "create", "--tenant", made.stdout.strip(), "--role", "developer", *data],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        fill(server, key.stdout.strip())
        return seconds, idle, server.resident_bytes() / 1e6
    finally:
        server.stop()


def main() -> int:
    """Run all parts; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    helps = median([help_seconds() for _ in range(runs)])
    with tempfile.TemporaryDirectory() as name:
        first = ready(Path(name))
        later = [ready(Path(name)) for _ in range(runs)]
    again = median([item[0] for item in later])
    memory = max(item[2] for item in (first, *later))
    print(f"erp --help                      {helps:6.2f} s    budget < {HELP_BUDGET_SECONDS}")
    print(f"start to ready, empty folder    {first[0]:6.2f} s    budget < {READY_BUDGET_SECONDS}")
    print(f"start to ready, used folder     {again:6.2f} s    budget < {READY_BUDGET_SECONDS}")
    print(f"resident when ready             {first[1]:6.1f} MB")
    print(f"resident after a thousand calls {memory:6.1f} MB   budget < {MEMORY_BUDGET_MB}")
    kept = helps < HELP_BUDGET_SECONDS and max(first[0], again) < READY_BUDGET_SECONDS and memory < MEMORY_BUDGET_MB
    print("all budgets kept" if kept else "a budget was missed")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
