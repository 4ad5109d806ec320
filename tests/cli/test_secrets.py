"""``erp secrets`` against a real server."""

from __future__ import annotations

import datetime
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.support.process import ERP, Server, erp


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("secrets") / "data")
    try:
        yield made.ready().furnish()
    finally:
        made.kill()


def rotated(server: Server, *options: str, value: str = "") -> subprocess.CompletedProcess[str]:
    command = [ERP, "secrets", "rotate", *options, "--url", server.address, "--key", server.keys["admin"]]
    return subprocess.run(command, input=value, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.slow
def test_secrets_are_listed_and_rotated_without_being_shown(server: Server) -> None:
    with server.client("admin") as admin:
        for path in ("crm/a", "crm/b", "other"):
            body = {"params": {"path": path, "value": "not-a-real-one"}}
            assert admin.post("/providers/secrets/local/put", json=body).status_code == 200
    where = ("--url", server.address, "--key", server.keys["admin"])
    assert erp("secrets", "list", "--prefix", "crm/", *where).stdout == "crm/a\ncrm/b\n"

    assert rotated(server, "crm/a", value="new-one\n").stdout == "secret://tenant/crm/a#2\n"
    generated = rotated(server, "crm/a", "--generate")
    assert (generated.stdout, generated.stderr) == ("secret://tenant/crm/a#3\n", "")


def test_nothing_is_stored_without_a_value_or_a_secret(server: Server) -> None:
    empty, unknown = rotated(server, "crm/a"), rotated(server, "nowhere", value="v")
    assert (empty.returncode, "--generate" in empty.stderr) == (1, True)
    assert (unknown.returncode, "(not_found)" in unknown.stderr) == (1, True)


def test_the_overlap_of_a_rotation_can_be_said(server: Server) -> None:
    with server.client("admin") as admin:
        body = {"params": {"path": "brief", "value": "not-a-real-one"}}
        assert admin.post("/providers/secrets/local/put", json=body).status_code == 200
        assert rotated(server, "brief", "--generate", "--overlap-seconds", "60").stdout == "secret://tenant/brief#2\n"
        listed = admin.post("/providers/secrets/local/list_versions", json={"params": {"path": "brief"}})
        old, new = listed.json()["data"]["versions"]
    lasts = datetime.datetime.fromisoformat(old["destroyed_after"]) - datetime.datetime.fromisoformat(new["created_at"])
    assert 60 <= lasts.total_seconds() < 61
    assert "destroyed_after" not in new


@pytest.mark.slow
def test_a_secret_is_rotated_by_itself_until_that_is_removed(server: Server) -> None:
    where = ("--url", server.address, "--key", server.keys["admin"])
    with server.client("admin") as admin:
        body = {"params": {"path": "planned", "value": "not-a-real-one"}}
        assert admin.post("/providers/secrets/local/put", json=body).status_code == 200
    source = '{"from": "password", "length": 24}'
    made = erp("secrets", "schedule", "set", "p", "planned", "--every-days", "30", "--value", source, *where)
    assert (made.returncode, made.stderr) == (0, "")
    due = datetime.datetime.fromisoformat(made.stdout.strip())
    assert 29 < (due - datetime.datetime.now(datetime.UTC)).total_seconds() / 86_400 < 30
    assert erp("secrets", "schedule", "list", *where).stdout == f"p  planned  30  {made.stdout.strip()}\n"

    assert erp("secrets", "schedule", "run", "p", *where).returncode == 0
    ends = time.monotonic() + 30
    while erp("secrets", "schedule", "list", *where).stdout.split()[3] <= made.stdout.strip():
        assert time.monotonic() < ends
    with server.client("admin") as admin:
        listed = admin.post("/providers/secrets/local/list_versions", json={"params": {"path": "planned"}})
    assert [one["state"] for one in listed.json()["data"]["versions"]] == ["previous", "current"]

    assert erp("secrets", "schedule", "remove", "p", *where).returncode == 0
    assert erp("secrets", "schedule", "list", *where).stdout == ""
    gone = erp("secrets", "schedule", "run", "p", *where)
    assert (gone.returncode, "(not_found)" in gone.stderr) == (1, True)


def test_a_source_that_is_no_json_is_explained(server: Server) -> None:
    where = ("--url", server.address, "--key", server.keys["admin"])
    wrong = erp("secrets", "schedule", "set", "p", "x", "--every-days", "1", "--value", "random", *where)
    assert (wrong.returncode, '{"from": "random"}' in wrong.stderr) == (1, True)
