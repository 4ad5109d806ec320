"""``erp secrets`` against a real server."""

from __future__ import annotations

import subprocess
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
