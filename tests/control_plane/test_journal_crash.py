from __future__ import annotations

import asyncio
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from erp.control_plane import ControlPlane
from erp.errors import ProviderError
from erp.runtime.ports import Completion

pytestmark = pytest.mark.anyio

CALLER = """
import asyncio, sys
from pathlib import Path
from erp.control_plane import ControlPlane
from erp.runtime.ports import AuditEntry, Claim, Completion

AUDIT = AuditEntry(tenant="acme", actor="k", action="a", target="t", outcome="ok", reason="", request_id="r",
                   time="2026-11-23T10:00:00Z", effect="write")

async def call(control, caller):
    number = 0
    while True:
        key = f"{caller}-{number}"
        claim = Claim(tenant="acme", actor="k", key=key, target="t", fingerprint=b"f", token=key, reentrant=True,
                      window_seconds=60)
        await control.journal.claim(claim)
        await control.journal.complete(Completion(audit=AUDIT, claim=claim, status=200, body=key.encode()))
        print(key, flush=True)
        number += 1

async def main():
    control = await ControlPlane.open(Path(sys.argv[1]), pepper=b"p")
    await asyncio.gather(*(call(control, caller) for caller in range(8)))

asyncio.run(main())
"""


async def test_what_was_answered_before_a_kill_is_there_after_it(empty_file: Path, make: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CALLER, str(empty_file.parent), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    answered = [(await process.stdout.readline()).decode().strip() for _ in range(200)]
    process.kill()
    answered += [line for line in (await process.stdout.read()).decode().split("\n")[:-1] if line]
    await process.wait()

    control = await ControlPlane.open(empty_file.parent, pepper=b"p")
    for key in answered:
        outcome = await control.journal.claim(make.claim(key=key, target="t", fingerprint=b"f"))
        assert (outcome.state, outcome.body) == ("replay", key.encode())
    chain = await control.audit.chain("acme", limit=100_000)
    assert len(chain) >= len(answered)
    assert all(later.prev_hash == earlier.hash for earlier, later in pairwise(chain))
    await control.journal.complete(Completion(audit=make.audit()))
    assert len(await control.audit.chain("acme", limit=100_000)) == len(chain) + 1
    await control.close()


async def test_a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room(empty_file: Path, make: Any) -> None:
    control = await ControlPlane.open(empty_file.parent, pepper=b"p")

    async def limit_pages(count: int) -> None:
        await control.database.transact(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={count}"))

    first = make.claim()
    assert (await control.journal.claim(first)).state == "won"
    completion = Completion(audit=make.audit(), claim=first, status=200, body=bytes(100_000))
    await limit_pages(1)
    with pytest.raises(ProviderError) as refused:
        await control.journal.complete(completion)
    assert refused.value.code == "outcome_unknown"
    assert refused.value.message.endswith("The disk of the control plane is full; nothing was stored.")
    assert await control.audit.chain("acme") == []

    await limit_pages(1_000_000)
    again = make.claim()
    assert (await control.journal.claim(again)).state == "won"
    await control.journal.complete(Completion(audit=make.audit(), claim=again, status=200, body=bytes(100_000)))
    assert (await control.journal.claim(make.claim())).body == bytes(100_000)
    await control.close()
