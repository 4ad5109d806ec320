"""A running server with two connections of every embedded provider that can be migrated, and ``erp migrate`` against it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.process import ERP, Server

from erp.vendor_clients.egress import ALLOW_VARIABLE

_numbers = count(1)


class Place:
    """Two connections of one provider, ``source`` and ``target``, that no other test uses."""

    def __init__(self, server: Server, ref: str, target_ref: str, folder: Path, config: Mapping[str, Any]) -> None:
        self.server = server
        self.folder = folder
        self.refs = {"source": ref, "target": target_ref}
        number = next(_numbers)
        self.names = {side: f"{side}-{number}" for side in self.refs}
        self.client = server.client("admin")
        self.configure("source", {})
        self.configure("target", config)

    def configure(self, side: str, config: Mapping[str, Any]) -> None:
        """Make the connection of a side, or change it."""
        body = {"connection": self.names[side], "config": dict(config)}
        answer = self.client.post(f"/providers/{self.refs[side]}/configure", json=body)
        assert answer.status_code == 200, answer.text

    def call(self, side: str, action: str, params: dict[str, Any]) -> Any:
        """Call one side as anybody would."""
        headers = {"x-connection": self.names[side]}
        answer = self.client.post(f"/providers/{self.refs[side]}/{action}", json={"params": params}, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def command(self, *options: str) -> list[str]:
        """``erp migrate`` from source to target, with its journal in the test's folder."""
        connections = ["--connection", self.names["source"], "--to-connection", self.names["target"]]
        server = ["--url", self.server.address, "--key", self.server.keys["admin"], "--json"]
        journal = ["--journal", str(self.folder / "journal")]
        return [ERP, "migrate", *self.refs.values(), *connections, *server, *journal, *options]

    def migrate(self, *options: str, status: int = 0) -> Any:
        """Run it to its end; return the report, or what it said when it failed."""
        ended = subprocess.run(self.command(*options), capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == status, ended.stdout + ended.stderr
        return json.loads(ended.stdout) if ended.stdout else ended.stderr

    def route(self, domain: str, name: str) -> httpx2.Response:
        """Show a route."""
        return self.client.get(f"/routes/{domain}/{name}")


class MakePlace:
    """``place("db/sqlite")``, ``place("db/sqlite", "db/postgres")``."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self.made: list[Place] = []

    def __call__(self, ref: str, target_ref: str | None = None, config: Mapping[str, Any] = {}) -> Place:
        self.made.append(Place(self._server, ref, target_ref or ref, self._folder, config))
        return self.made[-1]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The running server."""
    reachable = {ALLOW_VARIABLE: "127.0.0.0/8"}
    running = Server(tmp_path_factory.mktemp("migrate"), environment=reachable).ready().furnish()
    yield running
    running.kill()


@pytest.fixture
def place(server: Server, tmp_path: Path) -> Iterator[MakePlace]:
    """A maker of places."""
    make = MakePlace(server, tmp_path)
    yield make
    for one in make.made:
        one.client.close()
