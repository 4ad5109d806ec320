"""Every way to show a NATS server who one is, against servers that ask for it."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.providers.bus.nats_server import nats_server

from erp.errors import ProviderError
from erp.providers.bus.nats import signing
from erp.providers.bus.nats.provider import NatsBus
from erp.runtime.spi import OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _loopback_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "127.0.0.0/8")


def seed_of(private: Ed25519PrivateKey, letter: int = signing.USER_PREFIX) -> str:
    body = bytes([signing.SEED_LETTER | letter >> 5, (letter & 31) << 3]) + private.private_bytes_raw()
    return base64.b32encode(body + signing._checksum(body)).decode().rstrip("=")


async def _answers(config: dict[str, Any], place: OpenContext) -> str:
    bus = NatsBus(config, place)
    try:
        await bus.open()
    except ProviderError as error:
        return error.code.value
    else:
        return (await bus.health()).status
    finally:
        await bus.close()


async def test_a_token_opens(tmp_path: Path, open_context: OpenContext) -> None:
    with nats_server(tmp_path, 'authorization { token: "let-me-in" }') as server:
        await server.started()

        assert await _answers(server.config(token="let-me-in"), open_context) == "ok"
        assert await _answers(server.config(token="guess"), open_context) == "unauthenticated"
        assert await _answers(server.config(), open_context) == "unauthenticated"


async def test_an_nkey_opens(tmp_path: Path, open_context: OpenContext) -> None:
    mine, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = signing.UserKey(seed_of(mine)).public
    with nats_server(tmp_path, f'authorization {{ users = [ {{ nkey: "{public}" }} ] }}') as server:
        await server.started()

        assert await _answers(server.config(nkey_seed=seed_of(mine)), open_context) == "ok"
        assert await _answers(server.config(nkey_seed=seed_of(other)), open_context) == "unauthenticated"
        assert await _answers(server.config(nkey_seed="S" + "A" * 57), open_context) == "unauthenticated"


def test_a_seed_that_is_not_a_users_is_refused() -> None:
    with pytest.raises(signing.SeedError, match="not one of a user"):
        signing.UserKey(seed_of(Ed25519PrivateKey.generate(), 0))


def test_a_credentials_file_is_read() -> None:
    seed = seed_of(Ed25519PrivateKey.generate())
    text = f"-----BEGIN NATS USER JWT-----\nabc.def\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"

    assert signing.split(text) == ("abc.def", seed)
    with pytest.raises(signing.SeedError):
        signing.split("nothing")


def certified(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that is its own authority; return its file and that of its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=nats"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made.split(), *files], check=True, capture_output=True)
    return certificate, key


@pytest.mark.slow
async def test_tls_is_used_and_an_unknown_authority_refused(tmp_path: Path, open_context: OpenContext) -> None:
    certificate, key = certified(tmp_path)
    with nats_server(tmp_path, f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}') as server:
        await server.started()
        config = {**server.config(), "url": f"tls://127.0.0.1:{server.port}"}

        assert await _answers({**config, "tls_ca": certificate.read_text()}, open_context) == "ok"
        assert await _answers(config, open_context) == "failed_precondition"


async def test_a_server_that_the_operator_does_not_allow_is_not_asked(
    tmp_path: Path, open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nats_server(tmp_path) as server:
        await server.started()
        assert await _answers(server.config(), open_context) == "ok"
        monkeypatch.delenv(ALLOW_VARIABLE)

        assert await _answers(server.config(), open_context) == "failed_precondition"
