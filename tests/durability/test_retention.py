"""A server is killed amid lawful deletions: the audit chain verifies, each deletion has its proof, and the next one goes on."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.durability.effects import TENANT
from tests.durability.processes import ServerProcess

from erp.control_plane.batch import ChainWriter, audit_row
from erp.main import Settings, offline
from erp.runtime.ports import AuditEntry
from erp.security.audit import Verdict, Verification

pytestmark = pytest.mark.slow

Start = Callable[[Path], ServerProcess]
KILLS, SEED = 6, 7
BEGUN, AT_ONCE = 0.8, 0.5
SIGN_SECONDS, LOOK_SECONDS = 0.02, 0.0005
OLD, APPENDED = 40_000, 4_000
LONGEST_SECONDS = 0.04
"""About what deleting one batch takes, so that kills fall before, into and after its transaction."""
GONE = (OSError, http.client.HTTPException)


def entry(number: int) -> AuditEntry:
    return AuditEntry(
        tenant=TENANT,
        actor="key_old",
        action="cache.set",
        target="cache/memory",
        outcome="ok",
        reason="allowed",
        request_id=f"old-{number}",
        time="2020-01-01T00:00:00.000000Z",
        effect="write",
    )


def append(chain: ChainWriter, begin: int, connection: sa.Connection) -> None:
    rows = [audit_row(entry(number)) for number in range(begin, begin + APPENDED)]
    chain.extend(connection, rows, chain.locked(connection, {TENANT}))


async def age(data_dir: Path) -> list[int]:
    """Give the tenant old records and a rule; return the numbers of those that stay."""
    async with offline(Settings(data_dir=data_dir, database_url=None)) as layer:
        control = layer.control
        chain = ChainWriter(control.database.dialect)
        head = await control.audit.head(TENANT)
        kept = head.seq if head else 0
        for begin in range(0, OLD, APPENDED):
            await control.database.transact(partial(append, chain, begin))
        await control.retention.set(TENANT, "calls", 7)
        await layer.audit_keeper.checkpoints.make_all()
    return list(range(1, kept + 1))


async def verified(data_dir: Path) -> Verdict:
    async with offline(Settings(data_dir=data_dir, database_url=None)) as layer:
        keys = await layer.audit_keeper.checkpoints.public_keys()
        return await Verification(layer.control, TENANT, keys, []).run()


def ask(server: ServerProcess, key: str, path: str, **body: object) -> int:
    with closing(http.client.HTTPConnection(server.address, timeout=30)) as connection:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", f"{path}?tenant={TENANT}", json.dumps(body), headers)
        response = connection.getresponse()
        response.read()
        return response.status


def sign_until_gone(server: ServerProcess, key: str) -> None:
    with suppress(*GONE):
        while not server.is_gone():
            ask(server, key, "/audit/checkpoints")
            time.sleep(SIGN_SECONDS)


def delete_until_gone(server: ServerProcess, key: str) -> None:
    with suppress(*GONE):
        ask(server, key, "/privacy/retention:apply", dry_run=False)


class Log:
    """The audit log of the tenant as its file has it."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "control.db"

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._file, timeout=10)) as control:
            return control.execute(sql, (TENANT,)).fetchall()

    def wait_for_the_next(self, last: int) -> None:
        """Wait until the first record that is still there is deleted, too; ``last``: the last one that can be."""
        [(seq,)] = self.read("SELECT min(seq) FROM audit WHERE tenant = ? AND record != x'' AND action = 'cache.set'")
        ends = time.monotonic() + 30
        if seq is None or seq > last:
            return
        with closing(sqlite3.connect(self._file, timeout=10, isolation_level=None)) as control:
            sql = "SELECT record = x'' FROM audit WHERE tenant = ? AND seq = ?"
            while not control.execute(sql, (TENANT, seq)).fetchone()[0] and time.monotonic() < ends:
                time.sleep(LOOK_SECONDS)

    def deleted(self) -> int:
        return len(self.read("SELECT seq FROM audit WHERE tenant = ? AND record = x''"))

    def proven(self) -> int:
        """Return how many records the records of deletion speak of."""
        found = self.read("SELECT record FROM audit WHERE tenant = ? AND action = 'audit.delete'")
        ranges = [json.loads(bytes(record))["detail"]["ranges"] for (record,) in found]
        return sum(last - first + 1 for own in ranges for first, last in own)

    def let_the_lease_lapse(self) -> None:
        with closing(sqlite3.connect(self._file, timeout=10, isolation_level=None)) as control:
            control.execute("UPDATE retention SET leased_until = 0")
            control.execute("UPDATE owners SET alive_until = 0")


def killed_amid_deletion(server: ServerProcess, key: str, log: Log, dice: random.Random, last: int) -> None:
    """Let it delete, see that it has begun in most lives, wait as the dice say, and kill it."""
    threads = [threading.Thread(target=work, args=(server, key)) for work in (delete_until_gone, sign_until_gone)]
    for thread in threads:
        thread.start()
    if dice.random() < BEGUN:
        log.wait_for_the_next(last)
    if dice.random() > AT_ONCE:
        time.sleep(dice.uniform(0, LONGEST_SECONDS))
    server.kill()
    for thread in threads:
        thread.join()


def test_no_record_is_deleted_without_proof_however_often_the_deleting_process_is_killed(
    template: tuple[Path, dict[str, str]], keys: dict[str, str], start: Start, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(template[0], tmp_path / "data"))
    log, dice, key = Log(copied), random.Random(SEED), keys["platform"]
    kept = asyncio.run(age(copied))
    progress = []
    for _ in range(KILLS):
        killed_amid_deletion(start(copied), key, log, dice, len(kept) + OLD)
        verdict = asyncio.run(verified(copied))
        assert verdict.is_whole, verdict.reason
        assert verdict.deleted == log.deleted() == log.proven()
        progress.append(verdict.deleted)
        log.let_the_lease_lapse()

    assert ask(start(copied), key, "/privacy/retention:apply", dry_run=False) == 200
    verdict = asyncio.run(verified(copied))
    assert (verdict.is_whole, verdict.deleted) == (True, OLD), progress
    assert log.proven() == OLD
    whole = log.read("SELECT seq FROM audit WHERE tenant = ? AND record != x'' ORDER BY seq")
    assert [number for (number,) in whole][: len(kept)] == kept
    assert verdict.checkpoints >= 1
    assert any(0 < deleted < OLD for deleted in progress), progress
