"""What the operator sees when the layer is started."""

from __future__ import annotations

import re
import socket
import stat
from pathlib import Path

import pytest
from tests.support.contract_client import live_client
from tests.support.process import Server, erp
from tests.system.conftest import StartServer
from typer.testing import CliRunner

from erp import __version__
from erp.cli import app


def test_the_version_is_printed_alone() -> None:
    ended = erp("--version")

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{__version__}\n", "")


def test_ready_names_the_port_that_was_taken_and_it_answers(shared: Server) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", shared.address)
    with shared.client(None) as anybody:
        assert anybody.get("/healthz").json() == {"status": "ok", "version": __version__}
        assert anybody.get("/readyz").json()["status"] == "ok"


def test_the_administrator_key_is_printed_once_at_the_first_start(shared: Server) -> None:
    assert shared.first_key is not None
    assert shared.log.count("erpk_") == shared.log.count(shared.first_key) == 1
    with live_client(shared.address, shared.first_key) as platform:
        assert platform.get("/tenants").status_code == 200


def test_a_later_start_prints_no_key_and_knows_the_first_one(start_server: StartServer, furnished: Path) -> None:
    server = start_server(furnished)

    assert stat.S_IMODE(furnished.stat().st_mode) == 0o700
    assert "erpk_" not in server.log
    with server.client("platform") as platform:
        assert platform.get("/tenants").status_code == 200


def test_tenants_and_keys_are_made_while_the_server_runs_and_count_at_once(shared: Server) -> None:
    data_dir = str(shared.data_dir)
    made = erp("tenants", "create", "initech", "--data-dir", data_dir)
    assert (made.returncode, made.stdout) == (0, "initech\n")

    created = erp("keys", "create", "--tenant", "initech", "--role", "developer", "--data-dir", data_dir)

    assert created.returncode == 0
    assert re.fullmatch(r"erpk_live_\w+\n", created.stdout)
    with live_client(shared.address, created.stdout.strip()) as initech:
        answer = initech.post("/providers/cache/memory/set", json={"params": {"key": "a", "value": 1}})
        assert answer.status_code == 200, answer.text


def test_a_port_in_use_ends_with_its_name_and_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = erp("serve", "--port", str(port), "--data-dir", str(tmp_path / "data"))

    assert ended.returncode == 1
    assert f"erp: Cannot listen on 127.0.0.1:{port}: Address already in use." in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "ready http" not in ended.stderr


def test_a_data_directory_that_cannot_be_made_ends_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    where = tmp_path / "file" / "data"

    ended = erp("serve", "--port", "0", "--data-dir", str(where))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"erp: The data directory {where} cannot be used: Not a directory." in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_control_plane_that_is_no_database_ends_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_bytes(b"this is not a database, however much it is read" * 100)

    ended = CliRunner().invoke(app, ["tenants", "create", "acme", "--data-dir", str(tmp_path)])

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("erp: The control plane's database does not answer.\nDatabaseError: ")
    assert "file is not a database" in ended.stderr


def test_a_malformed_key_of_the_operator_ends_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_KEK", "too short")

    ended = CliRunner().invoke(app, ["tenants", "create", "acme", "--data-dir", str(tmp_path)])

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("erp: ERP_KEK must be 32 bytes in base64. Make one with: ")
