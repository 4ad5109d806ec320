"""A live server with a demo tenant, started the way the documentation tells its readers to."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from tests.support.checking_proxy import checking_proxy
from tests.support.oidc_peer import OidcPeer
from tests.support.saml_peer import IdentityProvider, identity_provider

ERP = str(Path(sys.executable).with_name("erp"))
READY_SECONDS = 30


def _erp(*arguments: str) -> str:
    """Run one command to its end and return what it printed."""
    ended = subprocess.run([ERP, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, f"erp {' '.join(arguments)} failed:\n{ended.stderr}"
    return ended.stdout.strip()


def _collect(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def wait_until_ready(server: subprocess.Popen[str]) -> tuple[str, str]:
    """Read standard error up to ``ready http://HOST:PORT``; keep draining it afterwards. Return URL and first key."""
    assert server.stderr is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_collect, args=(server.stderr, lines), daemon=True).start()
    seen: list[str] = []
    first_key = ""
    while (line := lines.get(timeout=READY_SECONDS)) is not None:
        seen.append(line)
        if found := re.match(r"ready (https?://\S+)", line):
            return found[1], first_key
        if found := re.match(r"administrator key \(shown only now\): (\S+)", line):
            first_key = found[1]
    pytest.fail("erp serve ended before it was ready:\n" + "".join(seen))


@pytest.fixture(scope="session")
def live_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a reader, as ``scripts/run`` prints it, with what the pages set besides.

    ``ERP_URL``; ``ERP_KEY`` (tenant demo, role operator); ``ADMIN_KEY`` (tenant demo, role admin); ``ERP_ADMIN_KEY`` (the platform's administrator).
    """
    data_dir = str(tmp_path_factory.mktemp("documented"))
    command = [ERP, "serve", "--port", "0", "--data-dir", data_dir]
    surroundings = {**os.environ, "ERP_EGRESS_ALLOW": "127.0.0.0/8"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=surroundings
    ) as server:
        try:
            url, first_key = wait_until_ready(server)
            _erp("tenants", "create", "demo", "--data-dir", data_dir)
            key = _erp("keys", "create", "--tenant", "demo", "--role", "operator", "--data-dir", data_dir)
            admin_key = _erp("keys", "create", "--tenant", "demo", "--role", "admin", "--data-dir", data_dir)
            with checking_proxy(url) as proxy:
                yield {
                    **os.environ,
                    "PATH": f"{Path(ERP).parent}{os.pathsep}{os.environ['PATH']}",
                    "XDG_CONFIG_HOME": f"{data_dir}/config",
                    "ERP_DATA_DIR": data_dir,
                    "ERP_URL": proxy.address,
                    "ERP_KEY": key,
                    "ERP_ADMIN_KEY": first_key,
                    "ADMIN_KEY": admin_key,
                }
            assert proxy.wrong == [], "answers that are not what openapi.json says"
            assert proxy.checked > 0
        finally:
            server.terminate()
            try:
                server.wait(timeout=15)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture(scope="session")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader works; files of one block are there for the next."""
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="session")
def openid_provider() -> dict[str, str]:
    """What the pages on OpenID Connect name: an issuer, a client for machines and the one of the layer."""
    address = os.environ.get("ERP_TEST_OIDC")
    if not address:
        pytest.skip("needs an OpenID Provider: set ERP_TEST_OIDC")
    peer = OidcPeer.at(address)
    machine = {"CLIENT_ID": "acme.developer", "CLIENT_SECRET": peer.secret}
    return {"ISSUER": peer.issuer, **machine, "GATEWAY_ID": "gateway", "GATEWAY_SECRET": peer.secret}


@pytest.fixture(scope="session")
def saml_identity_provider(tmp_path_factory: pytest.TempPathFactory, reader_folder: Path) -> Iterator[IdentityProvider]:
    """An identity provider whose certificate is in the reader's folder."""
    with identity_provider(tmp_path_factory.mktemp("samlify"), reader_folder) as made:
        yield made


@pytest.fixture(scope="session")
def saml_provider(saml_identity_provider: IdentityProvider) -> dict[str, str]:
    """What the page on SAML names: a certificate, in a file."""
    assert saml_identity_provider.certificate.name == "idp.crt"
    return {}
