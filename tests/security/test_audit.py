"""Whatever is done to the database file with plain SQL, verification names the first record that does not fit."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from erp.control_plane import ControlPlane
from erp.control_plane.batch import ChainWriter, audit_row
from erp.control_plane.chain import GENESIS, chained
from erp.control_plane.merkle import CompactRange, leaf_hash
from erp.control_plane.retention import Grounds
from erp.errors import ProviderError
from erp.runtime.ports import AuditEntry
from erp.security import audit as proof
from erp.security.audit import Verdict, Verification
from erp.security.checkpoints import Checkpoints
from erp.security.keyring import Keyring
from erp.security.vault import EnvelopeVault

pytestmark = pytest.mark.anyio

COUNT = 600
"""Records, so that the tree has two kept nodes."""


def entry(number: int, tenant: str = "acme") -> AuditEntry:
    return AuditEntry(
        tenant=tenant,
        actor="key_1",
        action="cache.set",
        target="cache/memory.set",
        outcome="ok",
        reason="done",
        request_id=f"req_{number}",
        time="2026-01-23T10:00:00Z",
        effect="write",
    )


async def append(control: ControlPlane, first: int, last: int) -> None:
    chain = ChainWriter(control.database.dialect)
    rows = [audit_row(entry(number)) for number in range(first, last + 1)]
    await control.database.transact(
        lambda connection: chain.extend(connection, rows, chain.locked(connection, {"acme"}))
    )


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    opened = await ControlPlane.open(tmp_path, pepper=b"p")
    await opened.tenants.create("platform")
    await opened.tenants.create("acme")
    yield opened
    await opened.close()


@pytest.fixture
def checkpoints(control: ControlPlane, keyring: Keyring) -> Checkpoints:
    return Checkpoints(control.checkpoints, control.audit_proofs, EnvelopeVault(control.secrets, keyring))


@pytest.fixture
async def log(control: ControlPlane, checkpoints: Checkpoints) -> str:
    """A log with checkpoints over 300 and over all records; the note of the last, as it was kept elsewhere."""
    await append(control, 1, 300)
    await checkpoints.make("acme")
    await append(control, 301, COUNT)
    made = await checkpoints.make("acme")
    assert made is not None
    return made.note


async def verdict(control: ControlPlane, checkpoints: Checkpoints, *notes: str) -> Verdict:
    return await Verification(control, "acme", await checkpoints.public_keys(), notes).run()


def tamper(tmp_path: Path, script: str) -> None:
    database = sqlite3.connect(tmp_path / "control.db")
    database.create_function("chained", 2, lambda previous, record: hashlib.sha256(previous + record).digest())
    database.executescript(script)
    database.commit()
    database.close()


async def test_an_untouched_log_is_whole_and_agrees_with_its_checkpoints(
    control: ControlPlane, checkpoints: Checkpoints, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "PAGE", 7)
    seen: list[int] = []
    found = await Verification(control, "acme", await checkpoints.public_keys(), [log]).run(seen.append)
    assert (found.is_whole, found.checked, found.checkpoints, sum(seen)) == (True, COUNT, 3, COUNT)
    assert found.root == (await control.audit_proofs.tree("acme")).root()
    nobody = await Verification(control, "globex", await checkpoints.public_keys(), [log]).run()
    assert (nobody.is_whole, nobody.checked) == (True, 0)


REPLACED = (
    "UPDATE audit SET record = CAST(replace(CAST(record AS TEXT), 'req_40\"', 'req_99\"') AS BLOB) WHERE seq = 40"
)
TAMPERINGS = {
    "changed": (REPLACED, 40, "the record was changed"),
    "removed": ("DELETE FROM audit WHERE seq = 40", 40, "record 40 is missing"),
    "removed and renumbered": (
        """DELETE FROM audit WHERE seq = 40;
        UPDATE audit SET seq = seq + 10000 WHERE seq > 40; UPDATE audit SET seq = seq - 10001 WHERE seq > 10000""",
        40,
        "the record does not follow from the one before it",
    ),
    "reordered": (
        """UPDATE audit SET seq = 10000 WHERE seq = 40; UPDATE audit SET seq = 40 WHERE seq = 41;
        UPDATE audit SET seq = 41 WHERE seq = 10000""",
        40,
        "the record does not follow from the one before it",
    ),
    "inserted": (
        """UPDATE audit SET seq = seq + 10000 WHERE seq > 40; UPDATE audit SET seq = seq - 9999 WHERE seq > 10000;
        INSERT INTO audit SELECT tenant, 41, time, actor, target, outcome, record, hash, chained(hash, record),
        action, effect, request_id FROM audit WHERE seq = 40""",
        42,
        "the record does not follow from the one before it",
    ),
    "cut off": ("DELETE FROM audit WHERE seq > 590", 591, "the chain ends at 590, but 600 records were written"),
    "hidden from search": (
        "UPDATE audit SET actor = 'key_2' WHERE seq = 40",
        40,
        "a column by which the record is found was changed",
    ),
    "emptied": (
        "UPDATE audit SET record = x'', outcome = '' WHERE seq = 40",
        40,
        "the record was emptied, and no record says that it was lawfully deleted",
    ),
    "head removed": ("DELETE FROM audit_heads", 1, "the head of the chain is missing or behind its records"),
    "kept node changed": (
        'UPDATE audit_nodes SET hash = zeroblob(32) WHERE "index" = 1',
        257,
        "a kept hash of the tree was changed",
    ),
    "tree at the head changed": (
        "UPDATE audit_heads SET subtrees = zeroblob(128)",
        601,
        "the tree at the head of the chain was changed",
    ),
    "checkpoint changed": (
        "UPDATE audit_checkpoints SET note = replace(note, '600', '601') WHERE size = 600",
        1,
        "a checkpoint is not what was signed: The checkpoint is not signed by the key.",
    ),
    "checkpoint of another size": (
        "UPDATE audit_checkpoints SET size = 599 WHERE size = 600",
        1,
        "the checkpoint over 599 records is not that of this log",
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_whatever_is_done_to_the_file_the_first_record_that_does_not_fit_is_named(
    control: ControlPlane, checkpoints: Checkpoints, log: str, tmp_path: Path, name: str
) -> None:
    script, broken_at, reason = TAMPERINGS[name]
    assert (await verdict(control, checkpoints, log)).is_whole
    tamper(tmp_path, script)
    found = await verdict(control, checkpoints)
    assert (found.is_whole, found.broken_at, found.reason) == (False, broken_at, reason)


async def test_whoever_rewrites_everything_behind_a_change_is_betrayed_by_the_checkpoints(
    control: ControlPlane, checkpoints: Checkpoints, log: str, tmp_path: Path
) -> None:
    rewrite_from(tmp_path, 40)
    found = await verdict(control, checkpoints)
    assert (found.broken_at, found.reason) == (300, "the first 300 records are not those of the signed checkpoint")
    # Also the checkpoints in the database are gone: only one that was kept elsewhere betrays it now.
    tamper(tmp_path, "DELETE FROM audit_checkpoints")
    assert (await verdict(control, checkpoints)).is_whole
    found = await verdict(control, checkpoints, log)
    assert (found.broken_at, found.reason) == (600, "the first 600 records are not those of the signed checkpoint")


async def test_a_cut_that_also_rewrites_the_head_is_betrayed_by_a_checkpoint_kept_elsewhere(
    control: ControlPlane, checkpoints: Checkpoints, log: str, tmp_path: Path
) -> None:
    tamper(tmp_path, "DELETE FROM audit WHERE seq > 590; DELETE FROM audit_checkpoints WHERE size > 590")
    rewrite_from(tmp_path, 591)
    assert (await verdict(control, checkpoints)).is_whole
    found = await verdict(control, checkpoints, log)
    assert (found.broken_at, found.reason) == (591, "a signed checkpoint covers 600 records, there are 590")


async def test_a_forged_log_is_not_signed_again(
    control: ControlPlane, checkpoints: Checkpoints, log: str, tmp_path: Path
) -> None:
    rewrite_from(tmp_path, 40)
    await append(control, 601, 601)
    assert await checkpoints.make_all() == []
    assert [one.size for one in (await control.checkpoints.page("acme"))[0]] == [600, 300]


def rewrite_from(tmp_path: Path, first: int) -> None:
    """Change record ``first`` (if it is there) and make chain, tree and head fit again, as an attacker with our code can."""
    database = sqlite3.connect(tmp_path / "control.db")
    previous, tree = GENESIS, CompactRange()
    for seq, record in database.execute("SELECT seq, record FROM audit ORDER BY seq").fetchall():
        told = record.replace(b'"req_40"', b'"req_99"') if seq == first else record
        digest = chained(previous, told)
        request = json.loads(told)["request_id"]
        change = "UPDATE audit SET record = ?, prev_hash = ?, hash = ?, request_id = ? WHERE seq = ?"
        database.execute(change, (told, previous, digest, request, seq))
        for level, index, root in tree.append(leaf_hash(digest)):
            database.execute('UPDATE audit_nodes SET hash = ? WHERE level = ? AND "index" = ?', (root, level, index))
        previous = digest
    database.execute("UPDATE audit_heads SET seq = ?, hash = ?, subtrees = ?", (tree.size, previous, tree.packed()))
    database.commit()
    database.close()


async def test_lawful_deletion_keeps_every_proof_and_is_reported(
    control: ControlPlane, checkpoints: Checkpoints, log: str, tmp_path: Path
) -> None:
    grounds = Grounds(actor="key_9", reason="order 17 of the court", request_id="req_x")
    assert await control.retention.erase("acme", 40, 49, grounds) == 10
    found = await verdict(control, checkpoints, log)
    assert (found.is_whole, found.checked, found.deleted, found.checkpoints) == (True, COUNT + 1, 10, 3)
    (told,), _ = await control.audit.search("acme", action="audit.delete")
    assert (told.seq, told.reason, told.actor) == (COUNT + 1, "order 17 of the court", "key_9")
    assert told.detail == {"ranges": [[40, 49]]}
    assert (await control.audit.search("acme", request_id="req_41"))[0] == []
    # What was lawfully deleted cannot be stretched to a neighbour, nor can the record that says so be deleted.
    assert await control.retention.erase("acme", 601, 601, grounds) == 0
    tamper(tmp_path, "UPDATE audit SET record = x'', outcome = '' WHERE seq = 50")
    found = await verdict(control, checkpoints)
    assert (found.is_whole, found.broken_at) == (False, 50)


async def append_of_every_class(control: ControlPlane) -> None:
    """Records 1 to 7: three calls, one of each other class, and a call of the future."""
    await append(control, 1, 3)
    chain = ChainWriter(control.database.dialect)
    changes: list[dict[str, str]] = [
        {"action": "keys.create"},
        {"action": "db.query", "outcome": "permission_denied"},
        {"action": "routes.put"},
        {"time": "2999-01-01T00:00:00Z"},
    ]
    rows = [audit_row(msgspec.structs.replace(entry(4), **change)) for change in changes]
    await control.database.transact(
        lambda connection: chain.extend(connection, rows, chain.locked(connection, {"acme"}))
    )


RETENTION = Grounds(actor="layer", reason="kept long enough", request_id="req_r")


async def test_rules_delete_by_class_and_age(control: ControlPlane, checkpoints: Checkpoints) -> None:
    await append_of_every_class(control)
    assert await control.retention.apply("acme", RETENTION) == {}
    await control.retention.set("acme", "calls", 7)
    assert await control.retention.apply("acme", RETENTION) == {"calls": 3}
    left = [one.action for one in (await control.audit.search("acme"))[0]]
    assert left == ["audit.delete", "cache.set", "routes.put", "db.query", "keys.create"]
    for name in ("security", "refusals", "configuration"):
        await control.retention.set("acme", name, 90)
    deleted = await control.retention.apply("acme", RETENTION)
    assert deleted == {"security": 1, "refusals": 1, "configuration": 1, "calls": 0}
    found = await verdict(control, checkpoints)
    assert (found.is_whole, found.deleted) == (True, 6)


async def test_a_rule_is_never_shorter_than_its_class_allows(control: ControlPlane) -> None:
    with pytest.raises(ProviderError) as refused:
        await control.retention.set("acme", "security", 89)
    assert (refused.value.code, refused.value.errors[0].pointer) == ("invalid_argument", "/days")
    await control.retention.set("acme", "security", 90)
    await control.retention.set("acme", "calls", 7)
    await control.retention.set("acme", "calls", None)
    assert [(rule.name, rule.days) for rule in await control.retention.rules("acme")] == [
        ("security", 90),
        ("refusals", None),
        ("configuration", None),
        ("calls", None),
    ]
