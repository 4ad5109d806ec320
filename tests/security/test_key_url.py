"""Key-encryption keys in files, in the environment, in AWS KMS (moto) and in a PKCS#11 token (SoftHSM)."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets as random
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hvac
import pytest
from moto.server import ThreadedMotoServer
from tests.support.vault_double import Double
from typer.testing import CliRunner

from erp.cli import app
from erp.control_plane import ControlPlane
from erp.errors import ProviderError
from erp.main import Settings, open_control_plane
from erp.security.data_keys import DataKeys
from erp.security.hsm import HsmKey, parse
from erp.security.key_url import open_keyring
from erp.security.keyring import Keyring
from erp.security.vault import EnvelopeVault
from erp.security.wrapping import Place

pytestmark = pytest.mark.anyio

PIN = "not-a-real-pin-7391"
PLACE = Place("acme", "db/password", 1)
MODULE = os.environ.get("ERP_TEST_SOFTHSM", "")
needs_softhsm = pytest.mark.skipif(not MODULE, reason="set ERP_TEST_SOFTHSM to the path of libsofthsm2.so")
KINDS = ["file", "env", "awskms", "vault+transit", pytest.param("pkcs11", marks=[pytest.mark.live, needs_softhsm])]


class Simulator:
    """AWS as moto simulates it, in this process; its state outlives a stop."""

    def __init__(self) -> None:
        self.port = 0
        self._server: ThreadedMotoServer | None = None
        self.start()

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def client(self) -> Any:
        import boto3

        place = {"endpoint_url": f"http://127.0.0.1:{self.port}", "region_name": "eu-west-1"}
        return boto3.client("kms", aws_access_key_id="not-a-real-id", aws_secret_access_key="not-a-real-key", **place)

    def url(self, key: str) -> str:
        return f"awskms:{key}?region=eu-west-1&endpoint=http://127.0.0.1:{self.port}"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ERP_KEK", "ERP_KEK_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "not-a-real-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-key")


@pytest.fixture(scope="module")
def aws() -> Iterator[Simulator]:
    simulator = Simulator()
    kms = simulator.client()
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName=f"alias/{simulator.port}", TargetKeyId=key)
    yield simulator
    simulator.stop()


class Transit:
    """The double of a Vault server with a key ``erp``; the token is in a file, as an agent writes it."""

    def __init__(self, file: Path) -> None:
        self.double, self.file = Double(), file
        self.file.write_text(f"{self.double.vault.root_token}\n")
        hvac.Client(url=self.double.address, token=self.double.vault.root_token).secrets.transit.create_key("erp")

    def url(self, key: str = "erp") -> str:
        host = self.double.address.removeprefix("http://")
        return f"vault+transit://{host}/transit/{key}?tls=off&token-source=file:{self.file}"


@pytest.fixture
def transit(tmp_path: Path) -> Iterator[Transit]:
    made = Transit(tmp_path / "vault-token")
    yield made
    made.double.close()


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A token with a key that cannot leave it; the URI of that key."""
    import pkcs11

    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    (folder / "pin").write_text(f"{PIN}\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    steps = ["--init-token", "--free", "--label", "erp", "--so-pin", "1234567", "--pin", PIN]
    subprocess.run(["softhsm2-util", "--module", MODULE, *steps], check=True, capture_output=True)
    made = pkcs11.lib(MODULE).get_token(token_label="erp")
    with made.open(rw=True, user_pin=PIN) as session:
        hidden = {pkcs11.Attribute.EXTRACTABLE: False, pkcs11.Attribute.SENSITIVE: True}
        session.generate_key(pkcs11.KeyType.AES, 256, label="kek", store=True, template=hidden)
        shown = {pkcs11.Attribute.EXTRACTABLE: True, pkcs11.Attribute.SENSITIVE: False}
        session.generate_key(pkcs11.KeyType.AES, 256, label="loose", store=True, template=shown)
    yield f"pkcs11:token=erp;object=kek;type=secret-key?module-path={MODULE}&pin-source=file:{folder / 'pin'}"
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


def new_key() -> str:
    return base64.b64encode(random.token_bytes(32)).decode()


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(kind: str) -> str:
        if kind == "file":
            file = tmp_path / "kek-elsewhere"
            file.touch(0o600)
            file.write_text(new_key())
            return f"file:{file}"
        if kind == "env":
            monkeypatch.setenv("THE_KEK", new_key())
            return "env:THE_KEK"
        if kind == "awskms":
            simulator: Simulator = request.getfixturevalue("aws")
            return simulator.url(f"alias/{simulator.port}")
        if kind == "vault+transit":
            transit: Transit = request.getfixturevalue("transit")
            return transit.url()
        found: str = request.getfixturevalue("token")
        return found

    return made


async def opened(data_dir: Path, monkeypatch: pytest.MonkeyPatch, *urls: str) -> tuple[ControlPlane, Keyring]:
    monkeypatch.setenv("ERP_KEK_URL", " ".join(urls))
    return await open_control_plane(Settings(data_dir=data_dir, database_url=None))


async def closed(control: ControlPlane, keyring: Keyring) -> None:
    await control.close()
    await keyring.close()


@pytest.fixture
async def stored(tmp_path: Path, aws: Simulator, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EnvelopeVault]:
    """A vault under a key of KMS, with two secrets."""
    control, keyring = await opened(tmp_path / "data", monkeypatch, aws.url(f"alias/{aws.port}"))
    await control.tenants.create("acme")
    vault = EnvelopeVault(control.secrets, keyring)
    for path in ("a", "b"):
        await vault.put("acme", path, f"value of {path}")
    yield vault
    await closed(control, keyring)


@pytest.mark.slow
@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
async def test_secrets_move_from_any_key_to_any_other(
    before: str, after: str, url_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before == after:
        return
    data_dir, old, new = tmp_path / "data", url_of(before), url_of(after)
    control, keyring = await opened(data_dir, monkeypatch, old)
    await control.tenants.create("acme")
    for number in range(7):
        await EnvelopeVault(control.secrets, keyring).put("acme", f"s{number}", f"value {number}")
    sealed = (await control.secrets.versions("acme", "s3"))[0].envelope
    await closed(control, keyring)

    monkeypatch.setenv("ERP_KEK_URL", f"{new} {old}")
    command = ["keys", "rotate-kek", "--resume", "--data-dir", str(data_dir)]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert (result.exit_code, "7 secrets" in result.stdout) == (0, True), result.output

    control, keyring = await opened(data_dir, monkeypatch, new)
    vault = EnvelopeVault(control.secrets, keyring)
    assert [await vault.get("acme", f"s{number}") for number in range(7)] == [f"value {n}" for n in range(7)]
    assert await vault.count_to_rewrap() == 0
    wrapped_anew = (await control.secrets.versions("acme", "s3"))[0].envelope
    assert sealed is not None
    assert wrapped_anew is not None
    payload = 12 + len("value 3") + 16
    assert sealed[-payload:] == wrapped_anew[-payload:]
    await closed(control, keyring)


@pytest.mark.slow
async def test_an_outage_of_the_kms_stops_no_read_of_what_was_read_before(
    stored: EnvelopeVault, aws: Simulator
) -> None:
    assert await stored.get("acme", "a") == "value of a"
    aws.stop()
    assert await stored.get("acme", "a") == "value of a"
    assert await stored.get("acme", "a", 1) == "value of a"
    for attempt in (stored.get("acme", "b"), stored.put("acme", "c", "value of c")):
        with pytest.raises(ProviderError) as refused:
            await attempt
        assert refused.value.code == "unavailable"
        assert refused.value.retry_after_seconds == 5.0
    assert await stored.list("acme", "") == ["a", "b"]

    aws.start()
    assert await stored.get("acme", "b") == "value of b"
    assert await stored.put("acme", "c", "value of c") == 1


async def test_what_a_kms_wrapped_for_one_place_does_not_open_at_another(aws: Simulator) -> None:
    keyring = await open_keyring(Path("/nonexistent"), kms_only(aws))
    key = keyring.current
    wrapped = await key.wrap(bytes(32), PLACE)
    assert await key.unwrap(wrapped, PLACE) == bytes(32)
    for other in (PLACE._replace(tenant="globex"), PLACE._replace(path="x"), PLACE._replace(version=2)):
        with pytest.raises(ProviderError) as refused:
            await key.unwrap(wrapped, other)
        assert refused.value.code == "internal"
    assert key.id.startswith("arn:aws:kms:eu-west-1:")
    await keyring.close()


def kms_only(aws: Simulator, key: str | None = None) -> dict[str, str]:
    return {"ERP_PEPPER": new_key(), "ERP_KEK_URL": aws.url(key or f"alias/{aws.port}")}


async def refusal(data_dir: Path, environment: dict[str, str]) -> ProviderError:
    with pytest.raises(ProviderError) as refused:
        await open_keyring(data_dir, environment)
    return refused.value


@pytest.mark.slow
async def test_a_key_that_is_not_there_or_disabled_is_explained_at_start(tmp_path: Path, aws: Simulator) -> None:
    missing = await refusal(tmp_path, kms_only(aws, "alias/none"))
    assert (missing.code, "there is no such key in this region" in missing.message) == ("failed_precondition", True)

    key = aws.client().create_key()["KeyMetadata"]["KeyId"]
    aws.client().disable_key(KeyId=key)
    disabled = await refusal(tmp_path, kms_only(aws, key))
    assert (disabled.code, "it is disabled" in disabled.message) == ("failed_precondition", True)

    aws.stop()
    silent = await refusal(tmp_path, kms_only(aws))
    aws.start()
    assert (silent.code, "cannot be reached now" in silent.message) == ("unavailable", True)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("gopher:x", "Use one of: file:"),
        ("awskms:", "Write awskms:KEY?region=REGION"),
        ("awskms:k?colour=red", "Write awskms:KEY?region=REGION"),
        ("file:relative", "is not absolute"),
        ("file:/nonexistent/kek", "does not exist"),
        ("env:NOWHERE", "NOWHERE must be 32 bytes in base64"),
        ("vault+transit://vault.example/erp", "Write vault+transit://HOST:PORT/MOUNT/KEY"),
        ("vault+transit://v.example/transit/erp?colour=red", "Write vault+transit://HOST:PORT/MOUNT/KEY"),
        ("vault+transit://v.example/transit/erp", "there is no token in VAULT_TOKEN"),
        ("vault+transit://v.example/transit/erp?token-source=file:/nonexistent", "/nonexistent cannot be read"),
        ("pkcs11:token=erp", "lacks object, module-path"),
        ("pkcs11:token=erp;object=kek?module-path=/m.so", "PIN"),
    ],
)
async def test_what_is_wrong_with_a_key_url_is_said(tmp_path: Path, url: str, says: str) -> None:
    refused = await refusal(tmp_path, {"ERP_PEPPER": new_key(), "ERP_KEK_URL": url})
    assert refused.code == "failed_precondition"
    assert says in refused.message
    assert [*tmp_path.glob("*")] == []  # noqa: ASYNC240  (a folder of the test)


@pytest.mark.live
@needs_softhsm
async def test_a_token_that_does_not_fit_is_explained_without_its_pin(tmp_path: Path, token: str) -> None:
    (tmp_path / "wrong").write_text("12345678")
    cases = {
        "there is no token": token.replace("token=erp", "token=other"),
        "no secret key with this label": token.replace("object=kek", "object=other"),
        "can be taken out of its token": token.replace("object=kek", "object=loose"),
        "the PIN is wrong": f"{token.partition('&')[0]}&pin-source=file:{tmp_path / 'wrong'}",
        "cannot be loaded": token.replace(MODULE, "/nonexistent.so"),
    }
    for says, url in cases.items():
        refused = await refusal(tmp_path, {"ERP_PEPPER": new_key(), "ERP_KEK_URL": url})
        assert (refused.code, says in refused.message) == ("failed_precondition", True), (
            refused.message,
            refused.detail,
        )
        assert PIN not in f"{refused!r} {refused.detail}"


@pytest.mark.live
@needs_softhsm
async def test_a_key_in_a_token_wraps_for_one_place_and_stays_inside(token: str) -> None:
    import pkcs11

    key = await HsmKey.open(token)
    wrapped = await key.wrap(bytes(32), PLACE)
    assert (len(wrapped), await key.unwrap(wrapped, PLACE)) == (60, bytes(32))
    with pytest.raises(ProviderError) as refused:
        await key.unwrap(wrapped, PLACE._replace(tenant="globex"))
    assert refused.value.code == "internal"
    assert await key.unwrap(wrapped, PLACE) == bytes(32)
    with pytest.raises(pkcs11.exceptions.AttributeSensitive):
        _ = key._key[pkcs11.Attribute.VALUE]
    assert PIN not in repr(key) + repr(parse(token))
    await key.close()


def test_kept_data_keys_are_bounded_and_end() -> None:
    now = 0.0
    kept = DataKeys(capacity=2, ttl_seconds=10, clock=lambda: now)
    for name in (b"a", b"b"):
        kept.keep(b"place", name, name * 2)
    assert kept.find(b"place", b"a") == b"aa"
    kept.keep(b"place", b"c", b"cc")
    assert [kept.find(b"place", name) for name in (b"a", b"b", b"c")] == [b"aa", None, b"cc"]
    assert kept.find(b"elsewhere", b"a") is None
    now = 10.0
    assert kept.find(b"place", b"a") is None
    assert "aa" not in repr(kept)


@pytest.mark.parametrize(
    "kind", ["awskms", "vault+transit", pytest.param("pkcs11", marks=[pytest.mark.live, needs_softhsm])]
)
async def test_a_key_elsewhere_is_not_made_here(
    kind: str, url_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERP_KEK_URL", url_of(kind))
    command = ["keys", "rotate-kek", "--data-dir", str(tmp_path / "data")]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert (result.exit_code, "ERP_KEK_URL='NEW OLD'" in result.output) == (1, True), result.output
