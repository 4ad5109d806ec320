"""``python -m tests.durability --kills 1000 --seed 7``: kill a server that often; exit status 1 when a promise broke."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.durability.campaign import Campaign, facts
from tests.durability.processes import Commands, Zygote


def main() -> int:
    """Run one campaign; print its summary as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.durability", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how often the server is killed")
    parser.add_argument("--seed", type=int, default=1, help="what the schedule is drawn from")
    parser.add_argument("--exec", action="store_true", help="start `erp serve` anew each time instead of forking")
    wanted = parser.parse_args()
    starter = Commands() if wanted.exec else Zygote()
    try:
        with tempfile.TemporaryDirectory(prefix="erp-durability-") as folder:
            summary = Campaign(Path(folder), starter, wanted.seed).run(wanted.kills)
    finally:
        starter.close()
    sys.stdout.write(json.dumps(facts(summary)) + "\n")
    for violation in summary.violations:
        sys.stderr.write(f"violated: {violation}\n")
    if summary.violations:
        again = f"python -m tests.durability --kills {wanted.kills} --seed {wanted.seed}"
        sys.stderr.write(f"repeat it with: {again}{' --exec' if wanted.exec else ''}\n")
    return 1 if summary.violations else 0


if __name__ == "__main__":
    sys.exit(main())
