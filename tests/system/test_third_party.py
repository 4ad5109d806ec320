"""A provider outside this repository: wheels of the layer and of the provider, in an environment of their own.

Only the libraries that both depend on are lent by the environment of the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.process import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples/third_party_provider"
LENT = sysconfig.get_path("purelib")
FROM_SOURCE = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")


class Environment:
    """A virtual environment with the layer in it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder)
        self.bin = folder / "bin"
        packages = next((folder / "lib").glob("python*/site-packages"))
        (packages / "lent.pth").write_text(LENT + "\n")
        self.home = folder / "home"
        self.home.mkdir()

    def run(self, *command: str) -> str:
        """Run a program of the environment; return what it printed."""
        return self._ended(str(self.bin / command[0]), *command[1:])

    def pip(self, *arguments: str) -> None:
        self._ended(sys.executable, "-m", "pip", "--python", str(self.bin / "python"), *arguments)

    def _ended(self, *command: str) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ERP_")}
        ended = subprocess.run(
            command,
            cwd=self.home, env={**clean, "HOME": str(self.home)}, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def install(self, source: Path) -> None:
        self.pip("install", *FROM_SOURCE, str(source))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment"))
    made.install(ROOT)
    return made


@pytest.fixture(scope="module")
def server(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of that environment, started before the provider was installed."""
    made = Server(tmp_path_factory.mktemp("third") / "data", program=environment.bin / "erp")
    try:
        yield made.ready().furnish()
    finally:
        made.kill()


def reloaded(environment: Environment, server: Server) -> str:
    return environment.run("erp", "providers", "reload", "--url", server.address, "--key", server.keys["platform"])


def get(server: Server, path: str) -> tuple[int, Any]:
    with server.client() as client:
        answer = client.get(path)
    return answer.status_code, answer.json()


def test_a_wheel_is_discovered_configured_called_certified_and_removed_from_a_running_server(
    environment: Environment, server: Server
) -> None:
    assert get(server, "/providers/cache/shelf")[0] == 404
    environment.install(SAMPLE)
    assert environment.run("erp", "provider", "check", "cache/shelf").startswith("cache/shelf: sound, level silver")
    assert "39 passed" in environment.run("erp", "provider", "certify", "cache/shelf")

    assert reloaded(environment, server) == "cache/shelf 1.0.0: added\n"

    status, described = get(server, "/providers/cache/shelf")
    assert (status, described["capabilities"]) == (200, ["ttl"])
    evidence = described["evidence"]
    assert (evidence["passed"], evidence["not_run"], evidence["trusted"]) == (39, 0, False)
    assert described["proof"] == {"ttl": "declared"}, "nobody has said that the key is to be trusted"
    configured_and_called(server)
    listed = environment.run("erp", "providers", "list", "--url", server.address, "--key", server.keys["developer"])
    assert "cache/shelf" in listed
    environment.pip("uninstall", "--yes", "--quiet", "erp-cache-shelf")
    assert reloaded(environment, server) == "cache/shelf: removed, 1 open connection\n"
    with server.client() as developer:
        assert developer.post("/providers/cache/shelf/get", json={"params": {"key": "a"}}).status_code == 404
    assert reloaded(environment, server) == "nothing has changed\n"


def configured_and_called(server: Server) -> None:
    with server.client("admin") as admin:
        body = {"connection": "small", "config": {"max_mebibytes": 1}}
        assert admin.post("/providers/cache/shelf/configure", json=body).status_code == 200
        refused = admin.post("/providers/cache/shelf/configure", json={"config": {"max_mebibytes": 0}})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/config/max_mebibytes")
    with server.client() as developer:
        to_small = {"X-Connection": "small"}
        params = {"key": "a", "value": {"amount": "1.10"}}
        written = developer.post("/providers/cache/shelf/set", json={"params": params}, headers=to_small)
        assert written.status_code == 200, written.text
        read = developer.post("/providers/cache/shelf/get", json={"params": {"key": "a"}}, headers=to_small)
        assert read.json()["data"]["value"] == {"amount": "1.10"}


def test_its_own_tests_run_where_it_is_installed(environment: Environment) -> None:
    environment.install(SAMPLE)

    said = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "erp_cache_shelf")

    assert said.strip().splitlines()[-1].startswith("42 passed")


def test_the_environment_is_not_the_one_of_the_tests(environment: Environment) -> None:
    where = environment.run("python", "-c", "import erp; print(erp.__file__)")

    assert str(environment.bin.parent) in where
    assert str(ROOT / "src") not in where
    assert Path(sys.prefix) != environment.bin.parent
