"""Mutual TLS with a real certificate authority: who is let in, as whom, and that nobody else changes anything."""

import asyncio
import shutil
import signal
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.certificate_authority import Authority, Issued
from tests.support.process import Server, erp
from tests.system.serving import serving

from erp.errors import ProviderError
from erp.gateway.client_certificate import trusted_proxies
from erp.gateway.tls import Tls
from erp.main import Layer, Settings, running

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command"),
]

SET = {"params": {"key": "k", "value": "theirs"}}
GET = {"params": {"key": "k"}}
SHOP = "URI:spiffe://example.com/shop,DNS:shop.example.com"


@dataclass
class Certificates:
    authority: Authority
    server: Issued
    shop: Issued
    expired: Issued
    stranger: Issued


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ours, another = Authority(folder, "ours"), Authority(folder, "another")
    return Certificates(
        ours,
        server=ours.issue("server", "IP:127.0.0.1"),
        shop=ours.issue("shop", SHOP),
        expired=ours.issue("expired", SHOP, days=-1),
        stranger=another.issue("stranger", SHOP),
    )


@pytest.fixture
async def layer(tmp_path: Path) -> AsyncIterator[Layer]:
    """A layer in which ``acme`` has the service account ``shop``."""
    settings = Settings(data_dir=tmp_path / "data", database_url=None, log_level="error")
    async with running(settings) as made:
        await made.first_key()
        await made.control.tenants.create("acme")
        await made.control.service_accounts.create("acme", "shop", role="developer")
        yield made


def _tls(certificates: Certificates, *, required: bool = False) -> Tls:
    server = certificates.server
    return Tls(server.certificate, server.key, certificates.authority.certificate, required)


def _client(address: str, certificates: Certificates, issued: Issued | None, **headers: str) -> httpx2.AsyncClient:
    context = ssl.create_default_context(cafile=str(certificates.authority.certificate))
    if issued is not None:
        context.load_cert_chain(issued.certificate, issued.key)
    return httpx2.AsyncClient(base_url=address, verify=context, headers=headers, trust_env=False, timeout=30)


async def _register(layer: Layer, kind: Any, value: str) -> str:
    made = await layer.control.client_certificates.register(
        "acme", service_account="shop", kind=kind, value=value, created_by="key_1"
    )
    return made.id


async def _is_untouched(layer: Layer) -> bool:
    """Whether nobody has written what these tests try to write."""
    _, text = await layer.control.api_keys.create("acme", role="developer")
    transport = httpx2.ASGITransport(app=layer.application())
    async with httpx2.AsyncClient(transport=transport, base_url="http://layer.test") as client:
        read = await client.post("/providers/cache/memory/get", json=GET, headers={"authorization": f"Bearer {text}"})
    return read.json()["data"] == {"found": False}


async def test_a_registered_certificate_is_its_service_account(layer: Layer, certificates: Certificates) -> None:
    await _register(layer, "fingerprint", certificates.shop.fingerprint)
    async with serving(layer.application(), tls=_tls(certificates)) as address:
        assert address.startswith("https://")
        async with _client(address, certificates, certificates.shop) as client:
            me = (await client.get("/me")).json()
            assert (await client.post("/providers/cache/memory/set", json=SET)).status_code == 200
    assert (me["id"], me["tenant"], me["roles"]) == ("account_shop", "acme", ["developer"])


@pytest.mark.parametrize(("kind", "value"), [("uri", "spiffe://example.com/shop"), ("dns", "Shop.Example.com")])
async def test_a_name_that_the_authority_has_confirmed_stands_for_the_account(
    layer: Layer, certificates: Certificates, kind: str, value: str
) -> None:
    await _register(layer, kind, value)
    async with (
        serving(layer.application(), tls=_tls(certificates)) as address,
        _client(address, certificates, certificates.shop) as client,
    ):
        assert (await client.get("/me")).json()["id"] == "account_shop"


async def test_a_certificate_of_an_unknown_authority_is_refused_in_the_handshake(
    layer: Layer, certificates: Certificates
) -> None:
    await _register(layer, "fingerprint", certificates.stranger.fingerprint)
    async with (
        serving(layer.application(), tls=_tls(certificates)) as address,
        _client(address, certificates, certificates.stranger) as client,
    ):
        with pytest.raises(httpx2.TransportError):
            await client.post("/providers/cache/memory/set", json=SET)
    assert await _is_untouched(layer)


async def test_an_expired_certificate_is_refused_in_the_handshake(layer: Layer, certificates: Certificates) -> None:
    await _register(layer, "fingerprint", certificates.expired.fingerprint)
    async with (
        serving(layer.application(), tls=_tls(certificates)) as address,
        _client(address, certificates, certificates.expired) as client,
    ):
        with pytest.raises(httpx2.TransportError):
            await client.post("/providers/cache/memory/set", json=SET)
    assert await _is_untouched(layer)


async def test_a_certificate_whose_mapping_was_removed_is_refused_on_the_same_connection(
    layer: Layer, certificates: Certificates
) -> None:
    mapping = await _register(layer, "fingerprint", certificates.shop.fingerprint)
    async with (
        serving(layer.application(), tls=_tls(certificates)) as address,
        _client(address, certificates, certificates.shop) as client,
    ):
        assert (await client.get("/me")).status_code == 200
        await layer.control.client_certificates.remove("acme", mapping)
        refused = await client.post("/providers/cache/memory/set", json=SET)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert await _is_untouched(layer)


async def test_a_certificate_of_a_disabled_account_is_refused(layer: Layer, certificates: Certificates) -> None:
    await _register(layer, "fingerprint", certificates.shop.fingerprint)
    await layer.control.service_accounts.disable("acme", "shop", disabled=True)
    async with (
        serving(layer.application(), tls=_tls(certificates)) as address,
        _client(address, certificates, certificates.shop) as client,
    ):
        assert (await client.post("/providers/cache/memory/set", json=SET)).status_code == 401
    assert await _is_untouched(layer)


async def test_a_valid_certificate_that_nobody_registered_is_nobody(layer: Layer, certificates: Certificates) -> None:
    async with (
        serving(layer.application(), tls=_tls(certificates)) as address,
        _client(address, certificates, certificates.shop) as client,
    ):
        refused = await client.post("/providers/cache/memory/set", json=SET)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert await _is_untouched(layer)


async def test_a_certificate_whose_names_belong_to_two_accounts_is_nobody(
    layer: Layer, certificates: Certificates
) -> None:
    await layer.control.service_accounts.create("acme", "till", role="developer")
    await _register(layer, "uri", "spiffe://example.com/shop")
    await layer.control.client_certificates.register(
        "acme", service_account="till", kind="dns", value="shop.example.com", created_by="key_1"
    )
    async with (
        serving(layer.application(), tls=_tls(certificates)) as address,
        _client(address, certificates, certificates.shop) as client,
    ):
        assert (await client.post("/providers/cache/memory/set", json=SET)).status_code == 401
    assert await _is_untouched(layer)


async def test_without_a_certificate_a_key_still_works_where_certificates_are_optional(
    layer: Layer, certificates: Certificates
) -> None:
    _, text = await layer.control.api_keys.create("acme", role="developer")
    async with (
        serving(layer.application(), tls=_tls(certificates)) as address,
        _client(address, certificates, None, authorization=f"Bearer {text}") as client,
    ):
        assert (await client.get("/me")).status_code == 200


async def test_without_a_certificate_there_is_no_connection_where_they_are_required(
    layer: Layer, certificates: Certificates
) -> None:
    _, text = await layer.control.api_keys.create("acme", role="developer")
    async with (
        serving(layer.application(), tls=_tls(certificates, required=True)) as address,
        _client(address, certificates, None, authorization=f"Bearer {text}") as client,
    ):
        with pytest.raises(httpx2.TransportError):
            await client.post("/providers/cache/memory/set", json=SET)
    assert await _is_untouched(layer)


async def test_a_header_from_a_peer_that_is_no_trusted_proxy_means_nothing(
    layer: Layer, certificates: Certificates
) -> None:
    await _register(layer, "fingerprint", certificates.shop.fingerprint)
    async with (
        serving(layer.application()) as address,
        httpx2.AsyncClient(base_url=address, headers={"client-cert": certificates.shop.header}) as client,
    ):
        refused = await client.post("/providers/cache/memory/set", json=SET)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert await _is_untouched(layer)


async def test_a_header_does_not_override_the_certificate_of_the_connection(
    layer: Layer, certificates: Certificates
) -> None:
    await layer.control.service_accounts.create("acme", "boss", role="admin")
    boss = certificates.authority.issue("boss", "DNS:boss.example.com")
    await layer.control.client_certificates.register(
        "acme", service_account="boss", kind="fingerprint", value=boss.fingerprint, created_by="key_1"
    )
    await _register(layer, "fingerprint", certificates.shop.fingerprint)
    async with (
        serving(layer.application(), tls=_tls(certificates)) as address,
        _client(address, certificates, certificates.shop, **{"client-cert": boss.header}) as client,
    ):
        assert (await client.get("/me")).json()["id"] == "account_shop"


async def test_a_trusted_proxy_passes_on_whose_certificate_it_has_seen(
    layer: Layer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _register(layer, "fingerprint", certificates.shop.fingerprint)
    monkeypatch.setenv("ERP_TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1")
    async with (
        serving(layer.application(), proxies=trusted_proxies()) as address,
        httpx2.AsyncClient(base_url=address, trust_env=False) as proxy,
    ):
        passed_on = await proxy.get("/me", headers={"client-cert": certificates.shop.header})
        without = await proxy.get("/me")
    assert passed_on.json()["id"] == "account_shop"
    assert without.status_code == 401


async def test_an_expired_certificate_is_refused_also_when_a_proxy_passes_it_on(
    layer: Layer, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _register(layer, "fingerprint", certificates.expired.fingerprint)
    monkeypatch.setenv("ERP_TRUSTED_PROXIES", "127.0.0.1")
    async with (
        serving(layer.application(), proxies=trusted_proxies()) as address,
        httpx2.AsyncClient(base_url=address, headers={"client-cert": certificates.expired.header}) as proxy,
    ):
        assert (await proxy.post("/providers/cache/memory/set", json=SET)).status_code == 401
    assert await _is_untouched(layer)


@pytest.mark.parametrize("values", [["nonsense"], [":!!:"], [":AAAA:", ":AAAA:"], [""]])
async def test_a_malformed_header_of_a_trusted_proxy_is_refused(
    layer: Layer, monkeypatch: pytest.MonkeyPatch, values: list[str]
) -> None:
    monkeypatch.setenv("ERP_TRUSTED_PROXIES", "127.0.0.0/8")
    headers = [("client-cert", value) for value in values]
    async with (
        serving(layer.application(), proxies=trusted_proxies()) as address,
        httpx2.AsyncClient(base_url=address, headers=headers, trust_env=False) as proxy,
    ):
        refused = await proxy.post("/providers/cache/memory/set", json=SET)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/headers/Client-Cert")
    assert await _is_untouched(layer)


async def test_malformed_proxies_are_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_TRUSTED_PROXIES", "10.0.0.0/8,proxy.example.com")
    with pytest.raises(ProviderError, match="ERP_TRUSTED_PROXIES"):
        trusted_proxies()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--tls-cert", "server.crt"], "both --tls-cert and --tls-key"),
        (["--client-cert", "required"], "both --tls-cert and --tls-key"),
        (["--tls-cert", "server.crt", "--tls-key", "server.key", "--client-cert", "required"], "needs --client-ca"),
        (["--tls-cert", "server.crt", "--tls-key", "nothing.key"], "There is no file"),
        (["--tls-cert", "server.crt", "--tls-key", "shop.key"], "cannot be used"),
    ],
)
def test_options_that_cannot_be_right_end_the_command(
    certificates: Certificates, tmp_path: Path, options: list[str], reason: str
) -> None:
    folder = certificates.server.key.parent
    placed = [str(folder / option) if "." in option else option for option in options]
    ended = erp("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), *placed)
    assert (ended.returncode, reason in ended.stderr.replace("\n", " ")) == (1, True), ended.stderr
    assert not (tmp_path / "data").exists()


async def test_the_command_serves_https_in_several_processes_and_asks_for_certificates(
    certificates: Certificates, tmp_path: Path
) -> None:
    issued, authority = certificates.server, certificates.authority.certificate
    options = ["--tls-cert", str(issued.certificate), "--tls-key", str(issued.key), "--client-ca", str(authority)]
    server = Server(tmp_path / "data", *options, "--client-cert", "required", "--workers", "2").ready()
    try:
        assert server.address.startswith("https://")
        key = {"authorization": f"Bearer {server.first_key}"}
        async with _client(server.address, certificates, certificates.shop, **key) as platform:
            account = {"name": "shop", "role": "operator"}
            assert (await platform.post("/service-accounts", json=account)).status_code == 201
            named = {"service_account": "shop", "uri": "spiffe://example.com/shop"}
            assert (await platform.post("/certificates", json=named)).status_code == 201
        found = set()
        for _ in range(4):
            async with _client(server.address, certificates, certificates.shop) as client:
                found.add((await client.get("/me")).json()["id"])
        assert found == {"account_shop"}
        async with _client(server.address, certificates, None, **key) as client:
            with pytest.raises(httpx2.TransportError):
                await client.get("/me")
    finally:
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.ended) == 0
        assert server.process.stderr is not None
        server.process.stderr.close()
