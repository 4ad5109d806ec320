"""What a forked process must not have in common with its parent and its siblings."""

from __future__ import annotations

import subprocess
import sys

FORKS = """
import os
from erp.runtime import effects
from erp.runtime.calls import Call
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.context import Actor
from erp.telemetry.ids import new_request_id

call = Call(action=ProviderCatalog.load().action("providers", "bus", "publish"), actor=Actor(id="k", tenant="acme"),
            provider="log", idempotency_key="k")
for _ in range(3):
    if os.fork() == 0:
        claim = effects.claim(call, b"{}", reentrant=True, window_seconds=60)
        os.write(1, f"{claim.token} {new_request_id()}\\n".encode())
        os._exit(0)
    os.wait()
"""


def test_forked_processes_neither_win_each_others_claims_nor_share_request_ids() -> None:
    told = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True, timeout=30)

    tokens, request_ids = zip(*(line.split() for line in told.stdout.splitlines()), strict=True)
    assert (len(tokens), len(set(tokens)), len(set(request_ids))) == (3, 3, 3)
