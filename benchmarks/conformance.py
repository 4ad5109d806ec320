"""How long it takes to prove every embedded provider, one after the other.

Usage: python benchmarks/conformance.py

Runs ``erp conformance`` for each provider that is embedded, as its author would, and prints the seconds of each and of
all (budget: 120), and how many of them a processor was busy: the rest is waiting, for timed cases or for others who use
the machine. Exits with 1 when a case fails or the budget is missed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

from erp.runtime.catalog import ProviderCatalog

BUDGET_SECONDS = 120.0


def main() -> int:
    """Run from the command line; return the exit status."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    refs = sorted(ref for ref, manifest in ProviderCatalog.load().providers.items() if manifest.embedded)
    began, is_good = time.perf_counter(), True
    for ref in refs:
        started = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "erp.cli", "conformance", ref], capture_output=True, text=True, check=False
        )
        is_good &= ended.returncode == 0
        print(f"{time.perf_counter() - started:6.1f} s  {ended.stdout.strip().splitlines()[-1]}")
    total = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{total:6.1f} s  all {len(refs)}   budget <= {BUDGET_SECONDS:.0f} s")
    print(f"{used.ru_utime + used.ru_stime:6.1f} s  of processor time")
    return 0 if is_good and total <= BUDGET_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
