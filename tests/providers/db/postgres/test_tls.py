"""The server has to prove its name before it is told a password."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.providers.db.postgres.conftest import Open, Server, calling

from erp.errors import ProviderError

pytestmark = [pytest.mark.live, pytest.mark.anyio]


def certificate(folder: Path, name: str) -> Path:
    """Write a certificate for ``name`` that signs itself, with its key; return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / f"{name}.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


def authority(file: Path) -> str:
    text = file.read_text()
    return text[text.index("-----BEGIN CERTIFICATE") :]


class Terminated:
    """A port that speaks TLS as PostgreSQL does and passes what is inside on to the server without any."""

    def __init__(self, port: int, file: Path) -> None:
        self._behind = port
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(file)
        self.seen = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, ssl.SSLError):
            assert (await reader.readexactly(8))[4:] == bytes.fromhex("04d2162f")  # SSLRequest
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(self._tls)
            behind = await asyncio.open_connection("127.0.0.1", self._behind)
            await asyncio.gather(self._pass(reader, behind[1], keep=True), self._pass(behind[0], writer))
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool = False) -> None:
        while data := await reader.read(65_536):
            if keep:
                self.seen += data
            writer.write(data)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def terminated(server: Server, file: Path) -> AsyncIterator[tuple[int, Terminated]]:
    handler = Terminated(server.config["port"], file)
    listening = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1], handler
    finally:
        listening.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_server_that_proves_its_name_is_used(
    open_database: Open, server: Server, call_context: Any, tmp_path: Path, host: str
) -> None:
    file = certificate(tmp_path, host)
    async with terminated(server, file) as (port, _):
        database = await open_database(host=host, port=port, tls="verify", tls_authority=authority(file))
        caller = calling(database, call_context)
        await caller.execute("create table t (a int)")
        assert await caller.rows("select count(*) from t") == [[0]]
        await database.close()


async def test_a_server_of_another_name_is_told_nothing(open_database: Open, server: Server, tmp_path: Path) -> None:
    wrong, other = certificate(tmp_path, "db.example.com"), certificate(tmp_path, "127.0.0.1")
    for settings in (
        {"tls_authority": authority(wrong)},
        {"tls_authority": authority(other)},
        {},
    ):
        async with terminated(server, wrong) as (port, handler):
            with pytest.raises(ProviderError) as refused:
                await open_database(port=port, tls="verify", **settings)
            assert refused.value.code == "failed_precondition"
            assert handler.seen == b""


async def test_encryption_alone_takes_any_certificate(
    open_database: Open, server: Server, call_context: Any, tmp_path: Path
) -> None:
    async with terminated(server, certificate(tmp_path, "db.example.com")) as (port, handler):
        database = await open_database(port=port, tls="encrypt")
        assert await calling(database, call_context).rows("select 1") == [[1]]
        assert handler.seen
        await database.close()


async def test_a_statement_given_up_is_stopped_through_tls_too(
    open_database: Open, server: Server, call_context: Any, tmp_path: Path
) -> None:
    file = certificate(tmp_path, "127.0.0.1")
    async with terminated(server, file) as (port, _):
        database = await open_database(port=port, tls="verify", tls_authority=authority(file), readers=1)
        caller = calling(database, call_context)
        task = asyncio.ensure_future(caller.rows("select count(*) from generate_series(1, 1000000000)"))
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(30):
            assert await caller.rows("select 1") == [[1]]
        await database.close()
