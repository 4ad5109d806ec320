"""``erp audit``: sign, check, export, and check elsewhere."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from erp.cli import app
from erp.main import Settings, offline, open_control_plane
from erp.runtime.ports import AuditEntry, Completion


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ERP_KEK", raising=False)
    asyncio.run(_filled(tmp_path / "data"))
    return tmp_path / "data"


async def _filled(folder: Path) -> None:
    control, _ = await open_control_plane(Settings(data_dir=folder, database_url=None))
    for tenant in ("platform", "acme"):
        await control.tenants.create(tenant)
    for number in range(5):
        entry = AuditEntry(
            tenant="acme",
            actor="key_1",
            action="cache.set",
            target="cache/memory.set",
            outcome="ok",
            reason="done",
            request_id=f"req_{number}",
            time="2026-11-23T10:00:00Z",
            effect="write",
        )
        await control.journal.complete(Completion(audit=entry))
    await control.close()


def erp(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def test_checkpoints_go_into_files_that_betray_a_log_that_was_cut(data_dir: Path, tmp_path: Path) -> None:
    kept = tmp_path / "write-once"
    made = erp("checkpoint", "--out", kept, "--data-dir", data_dir)
    assert (made.exit_code, made.stdout.strip()) == (0, str(kept / "acme" / "000000000005.txt"))
    assert erp("checkpoint", "--out", kept, "--data-dir", data_dir).exit_code == 0
    key = erp("key", "--data-dir", data_dir).stdout.strip()
    whole = erp("verify", "--checkpoint", kept, "--key", key, "--data-dir", data_dir)
    assert (whole.exit_code, whole.stdout) == (
        0,
        "acme: whole: 5 records, 0 lawfully deleted, 2 checkpoints agree\n",
    )
    database = sqlite3.connect(data_dir / "control.db")
    database.executescript("DELETE FROM audit; DELETE FROM audit_heads; DELETE FROM audit_checkpoints")
    database.close()
    assert erp("verify", "--data-dir", data_dir).stdout == ""
    broken = erp("verify", "--tenant", "acme", "--checkpoint", kept, "--data-dir", data_dir)
    assert (broken.exit_code, broken.stdout) == (
        1,
        "acme: BROKEN at record 1: a signed checkpoint covers 5 records, there are 0\n",
    )


def test_an_export_is_checked_where_there_is_nothing_but_the_file_and_the_key(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "acme.ndjson"
    assert erp("export", "acme", file, "--data-dir", data_dir).exit_code == 0
    again = erp("export", "acme", file, "--data-dir", data_dir)
    assert (again.exit_code, "is there already" in again.stderr) == (1, True)
    key = erp("key", "--data-dir", data_dir).stdout.strip()
    checked = erp("verify-export", file, "--key", key)
    assert (checked.exit_code, checked.stdout) == (0, "acme: whole: 5 records, 0 lawfully deleted\n")
    file.write_bytes(file.read_bytes().replace(b"req_3", b"req_9"))
    broken = erp("verify-export", file, "--key", key)
    assert (broken.exit_code, "is BROKEN at record 4: the record was changed" in broken.stderr) == (1, True)
    wrong = erp("verify-export", file, "--key", "somebody")
    assert (wrong.exit_code, "The public key is malformed" in wrong.stderr) == (1, True)


def test_a_checkpoint_that_is_there_is_never_changed(data_dir: Path, tmp_path: Path) -> None:
    place = tmp_path / "acme" / "000000000005.txt"
    place.parent.mkdir()
    place.write_text("something else")
    refused = erp("checkpoint", "--tenant", "acme", "--out", tmp_path, "--data-dir", data_dir)
    assert (refused.exit_code, place.read_text()) == (1, "something else")
    assert "cannot be written" in refused.stderr


def test_checkpoints_in_a_storage_connection_betray_a_log_that_was_cut(data_dir: Path) -> None:
    place = "platform/filesystem#default"
    asyncio.run(_archived(data_dir, place))
    whole = erp("verify", "--tenant", "acme", "--checkpoints", f"storage:{place}", "--data-dir", data_dir)
    assert (whole.exit_code, whole.stdout) == (0, "acme: whole: 5 records, 0 lawfully deleted, 2 checkpoints agree\n")
    database = sqlite3.connect(data_dir / "control.db")
    database.executescript("DELETE FROM audit; DELETE FROM audit_heads; DELETE FROM audit_checkpoints")
    database.close()
    broken = erp("verify", "--tenant", "acme", "--checkpoints", f"storage:{place}", "--data-dir", data_dir)
    assert (broken.exit_code, broken.stdout) == (
        1,
        "acme: BROKEN at record 1: a signed checkpoint covers 5 records, there are 0\n",
    )
    unknown = erp("verify", "--checkpoints", "storage:somewhere", "--data-dir", data_dir)
    assert (unknown.exit_code, "platform/s3#archive" in unknown.stderr) == (1, True)


async def _archived(folder: Path, place: str) -> None:
    async with offline(Settings(data_dir=folder, database_url=None)) as layer:
        await layer.audit_keeper.checkpoints.make("acme")
        assert await layer.archive_at(place).send(layer.control.checkpoints) == 1
