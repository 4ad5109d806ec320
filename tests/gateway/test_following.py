"""Connections take versions of secrets into use that were made elsewhere: proven first, and without a failed call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import boto3
import httpx2
import pytest
from moto.server import ThreadedMotoServer
from tests.gateway.conftest import Site
from tests.support.vault_double import Double

from erp.runtime.conformance.scaffold import write_provider

pytestmark = pytest.mark.anyio

PATH = "/providers/cache/guarded/configure"
PASSWORD = """\
    password: {type: string, title: Password, description: Opens the cache., maxLength: 100, x-erp-secret: true}
    revoked: {type: string, title: Revoked, description: File that names passwords that are no longer good., maxLength: 500}
"""
CODE = {
    "self._context = context": "self._context = context\n        self._config = config",
    '        """Acquire connections here, not in the constructor."""': '        """Knock."""\n        self._knock()',
    "GetResult(found=False)": 'GetResult(found=self._knock(), value=self._config["password"])',
    "    async def health(": """\
    def _knock(self) -> bool:
        from pathlib import Path

        if self._config["password"] in Path(self._config["revoked"]).read_text().split():
            raise ProviderError(ErrorCode.UNAUTHENTICATED, "The password is not good.")
        return True

    async def health(""",
}


class Elsewhere(Protocol):
    """Where secrets are kept, seen from outside the layer."""

    ref: str
    reference: str

    def settings(self) -> dict[str, Any]: ...
    def store(self, value: str) -> None: ...


class VaultServer:
    """The double of a Vault server."""

    ref, reference = "secrets/vault", "secret://secrets/vault/default/crm"

    def __init__(self, double: Double) -> None:
        self.double = double

    def settings(self) -> dict[str, Any]:
        return {"address": self.double.address, "token": self.double.vault.root_token}

    def store(self, value: str) -> None:
        self.double.vault._data_post("|erp/acme/default/crm", {}, {"data": {"value": value}})


class AwsAccount:
    """Moto, by the vendor's own client, which names versions as it likes."""

    ref, reference = "secrets/aws", "secret://secrets/aws/default/crm"

    def __init__(self, address: str) -> None:
        self._address = address
        keys = {"aws_access_key_id": "other", "aws_secret_access_key": "other", "region_name": "eu-west-1"}
        self._client = boto3.client("secretsmanager", endpoint_url=address, **keys)
        for one in self._client.list_secrets()["SecretList"]:
            self._client.delete_secret(SecretId=one["Name"], ForceDeleteWithoutRecovery=True)
        self._is_new = True

    def settings(self) -> dict[str, Any]:
        keys = {"access_key_id": "not-a-real-id", "secret_access_key": "not-a-real-key"}
        return {**keys, "region": "eu-west-1", "endpoint": self._address}

    def store(self, value: str) -> None:
        if self._is_new:
            self._client.create_secret(Name="erp/acme/default/crm", SecretString=value)
        else:
            self._client.put_secret_value(SecretId="erp/acme/default/crm", SecretString=value)
        self._is_new = False


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    monkeypatch.setenv("ERP_SECRETS_POLL_SECONDS", "1")


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture(params=["vault", "aws"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Elsewhere]:
    if request.param == "aws":
        yield AwsAccount(request.getfixturevalue("moto"))
        return
    double = Double()
    yield VaultServer(double)
    double.close()


@pytest.fixture
def vault() -> Iterator[VaultServer]:
    double = Double()
    yield VaultServer(double)
    double.close()


@pytest.fixture
def revoked(tmp_path: Path) -> Path:
    """Names the passwords that open nothing."""
    made = tmp_path / "revoked"
    made.write_text("wrong")
    return made


@pytest.fixture
async def operator(site: Site, environment: None) -> AsyncIterator[httpx2.AsyncClient]:
    folder = write_provider("cache/guarded", site.layer.settings.drop_in_dir)
    manifest, module = folder / "provider.yaml", folder / "provider.py"
    manifest.write_text(manifest.read_text().replace("  properties:\n", f"  properties:\n{PASSWORD}"))
    code = module.read_text()
    for old, new in CODE.items():
        code = code.replace(old, new)
    module.write_text(code)
    [change] = await site.layer.hot_swap.reload()
    assert change.outcome == "added", change
    async with site.client("operator") as made:
        yield made


async def connect(operator: httpx2.AsyncClient, elsewhere: Elsewhere, revoked: Path) -> None:
    elsewhere.store("first")
    answer = await operator.post(f"/providers/{elsewhere.ref}/configure", json={"config": elsewhere.settings()})
    assert answer.status_code == 200, answer.text
    config = {"password": elsewhere.reference, "revoked": str(revoked)}
    answer = await operator.post(PATH, json={"config": config})
    assert answer.status_code == 200, answer.text


async def ask(operator: httpx2.AsyncClient) -> httpx2.Response:
    return await operator.post("/providers/cache/guarded/get", json={"params": {"key": "k"}})


async def password(operator: httpx2.AsyncClient) -> Any:
    answer = await ask(operator)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["value"]


async def connection(operator: httpx2.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await operator.get(PATH)).json()["items"][0]
    return found


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    ends = time.monotonic() + 30
    while not await condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)


def uses(operator: httpx2.AsyncClient, wanted: str) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return bool(await password(operator) == wanted)

    return is_so


def has_failed(operator: httpx2.AsyncClient) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return bool((await connection(operator)).get("last_operation", {}).get("state") == "failed")

    return is_so


def sleepy(site: Site) -> None:
    """Let nobody poll any more."""
    next(task for task in site.layer._tasks if task.get_name() == "rotation").cancel()


@pytest.mark.slow
async def test_a_version_that_was_made_elsewhere_is_taken_into_use_without_a_failed_call(
    operator: httpx2.AsyncClient, elsewhere: Elsewhere, revoked: Path
) -> None:
    await connect(operator, elsewhere, revoked)
    assert await password(operator) == "first"
    before = (await connection(operator))["secret_versions"]
    elsewhere.store("second")

    await until(uses(operator, "second"))  # every call on the way was answered

    after = (await connection(operator))["secret_versions"]
    assert set(before) == set(after) == {"password"}
    assert before != after


@pytest.mark.slow
async def test_a_bad_version_is_refused_and_the_old_one_stays_in_use_even_after_a_new_start(
    site: Site, operator: httpx2.AsyncClient, elsewhere: Elsewhere, revoked: Path
) -> None:
    await connect(operator, elsewhere, revoked)
    assert await password(operator) == "first"
    elsewhere.store("wrong")
    await until(has_failed(operator))
    failed = (await connection(operator))["last_operation"]
    assert "The password is not good" in failed["description"]

    site.layer.pool.discard("acme", "cache", "guarded", "default")
    assert await password(operator) == "first"
    await asyncio.sleep(2.5)
    assert (await connection(operator))["last_operation"]["id"] == failed["id"], "it was tried at every poll"

    elsewhere.store("third")
    await until(uses(operator, "third"))


@pytest.mark.slow
async def test_when_the_peer_refuses_a_live_connection_the_newest_version_is_looked_for_at_once(
    site: Site, operator: httpx2.AsyncClient, elsewhere: Elsewhere, revoked: Path
) -> None:
    await connect(operator, elsewhere, revoked)
    assert await password(operator) == "first"
    sleepy(site)
    elsewhere.store("second")
    await asyncio.sleep(1.5)
    assert await password(operator) == "first", "nobody has told"
    await asyncio.to_thread(revoked.write_text, "wrong first")

    assert (await ask(operator)).status_code == 401

    async def is_well() -> bool:
        return bool((await ask(operator)).status_code == 200)

    await until(is_well)
    assert await password(operator) == "second"


async def test_what_was_closed_meanwhile_opens_with_the_newest_version_when_the_old_one_is_refused(
    site: Site, operator: httpx2.AsyncClient, elsewhere: Elsewhere, revoked: Path
) -> None:
    await connect(operator, elsewhere, revoked)
    sleepy(site)
    before = (await connection(operator))["secret_versions"]
    site.layer.pool.discard("acme", "cache", "guarded", "default")
    elsewhere.store("second")
    await asyncio.to_thread(revoked.write_text, "wrong first")

    assert await password(operator) == "second"

    async def is_remembered() -> bool:
        return bool((await connection(operator))["secret_versions"] != before)

    await until(is_remembered)


@pytest.mark.slow
async def test_looking_for_a_newer_version_reads_no_value(
    operator: httpx2.AsyncClient, vault: VaultServer, revoked: Path
) -> None:
    await connect(operator, vault, revoked)
    assert await password(operator) == "first"
    asked = vault.double.vault.asked
    asked.clear()
    await asyncio.sleep(3.5)
    assert {(method, path) for method, path in asked} == {("GET", "secret/metadata/erp/acme/default/crm")}
    assert 2 <= len(asked) <= 5


@pytest.mark.slow
async def test_a_server_that_does_not_answer_changes_nothing_and_is_asked_again(
    operator: httpx2.AsyncClient, vault: VaultServer, revoked: Path
) -> None:
    await connect(operator, vault, revoked)
    vault.double.vault.is_sealed = True
    vault.store("second")
    await asyncio.sleep(2.5)
    assert await password(operator) == "first"
    vault.double.vault.is_sealed = False
    await until(uses(operator, "second"))


@pytest.mark.slow
async def test_a_rotation_whose_process_died_before_it_told_anybody_is_followed(
    site: Site, operator: httpx2.AsyncClient, revoked: Path
) -> None:
    vault = site.layer.vault
    vault.on_put = lambda _tenant, _path: None
    await vault.put("acme", "tenant/crm", "first")
    config = {"password": "secret://tenant/crm", "revoked": str(revoked)}
    assert (await operator.post(PATH, json={"config": config})).status_code == 200
    assert await password(operator) == "first"
    await vault.put("acme", "tenant/crm", "second")

    await until(uses(operator, "second"))


async def test_a_version_that_has_not_proven_itself_destroys_nothing(
    site: Site, operator: httpx2.AsyncClient, revoked: Path
) -> None:
    vault = site.layer.vault
    await vault.put("acme", "tenant/crm", "first")
    config = {"password": "secret://tenant/crm", "revoked": str(revoked)}
    assert (await operator.post(PATH, json={"config": config})).status_code == 200
    await vault.put("acme", "tenant/crm", "wrong", overlap_seconds=0)
    await until(has_failed(operator))
    [waiting] = await site.layer.control.retirements.waiting(limit=10)

    assert await site.layer.control.retirements.destroy(waiting) is None

    assert await vault.get("acme", "tenant/crm", 1) == "first"
    assert await password(operator) == "first"
    await vault.put("acme", "tenant/crm", "third", overlap_seconds=0)
    await until(uses(operator, "third"))
    assert await site.layer.control.retirements.destroy(waiting) is True
