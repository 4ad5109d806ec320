"""What is special to ``secrets/aws``, on moto in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from erp.contracts.models.secrets import DeleteRequest, GetRequest, ListVersionsRequest, PutRequest, RotateRequest
from erp.errors import ProviderError
from erp.providers.secrets.aws.provider import AwsSecrets
from erp.providers.secrets.aws.service import RefusedError
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.spi import CallContext, OpenContext

pytestmark = pytest.mark.anyio

DEFAULTS = ProviderCatalog.load().provider("secrets", "aws").defaults
PLACE = "erp/acme/default/crm/key"
KEYS = {"access_key_id": "not-a-real-id", "secret_access_key": "not-a-real-key", "region": "eu-west-1"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture
def vendor(address: str) -> Iterator[Any]:
    """The vendor's own client, as whoever works in the console beside us."""
    keys = {"aws_access_key_id": "other", "aws_secret_access_key": "other"}
    client = boto3.client("secretsmanager", endpoint_url=address, region_name="eu-west-1", **keys)
    yield client
    for one in client.list_secrets(IncludePlannedDeletion=True)["SecretList"]:
        client.delete_secret(SecretId=one["Name"], ForceDeleteWithoutRecovery=True)


@pytest.fixture
async def provider(
    address: str, vendor: Any, open_context: OpenContext, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AwsSecrets]:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    made = AwsSecrets({**DEFAULTS, **KEYS, "endpoint": address}, open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


async def test_versions_carry_the_stages_of_the_vendor(provider: AwsSecrets, vendor: Any, ctx: CallContext) -> None:
    for value in ("first", "second"):
        await provider.put(PutRequest(path="crm/key", value=value), ctx)
    await provider.rotate(RotateRequest(path="crm/key", value="third"), ctx)
    assert vendor.get_secret_value(SecretId=PLACE)["SecretString"] == "third"
    assert vendor.get_secret_value(SecretId=PLACE, VersionStage="AWSPREVIOUS")["SecretString"] == "second"
    assert vendor.get_secret_value(SecretId=PLACE)["VersionId"] == f"erp-version-{3:024}"


async def test_a_version_that_was_made_elsewhere_is_read_when_it_is_current(
    provider: AwsSecrets, vendor: Any, ctx: CallContext
) -> None:
    await provider.put(PutRequest(path="crm/key", value="first"), ctx)
    vendor.put_secret_value(SecretId=PLACE, SecretString="theirs")
    assert (await provider.get(GetRequest(path="crm/key"), ctx)).value == "theirs"
    found = await provider.list_versions(ListVersionsRequest(path="crm/key"), ctx)
    assert [one.version for one in found.versions] == [1]


async def test_a_deleted_secret_can_be_restored_by_the_vendor_and_blocks_its_path_until_then(
    provider: AwsSecrets, vendor: Any, ctx: CallContext
) -> None:
    await provider.put(PutRequest(path="crm/key", value="first"), ctx)
    assert (await provider.delete(DeleteRequest(path="crm/key"), ctx)).deleted is True
    assert (await provider.delete(DeleteRequest(path="crm/key"), ctx)).deleted is False
    with pytest.raises(ProviderError) as refused:
        await provider.put(PutRequest(path="crm/key", value="second"), ctx)
    assert (refused.value.code, "recovery window" in refused.value.message) == ("failed_precondition", True)
    vendor.restore_secret(SecretId=PLACE)
    assert (await provider.get(GetRequest(path="crm/key"), ctx)).value == "first"


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("ThrottlingException", 400, "rate_limited"),
        ("AccessDeniedException", 400, "permission_denied"),
        ("ExpiredTokenException", 400, "unauthenticated"),
        ("DecryptionFailure", 400, "failed_precondition"),
        ("InvalidParameterException", 400, "invalid_argument"),
        ("InternalServiceError", 500, "unavailable"),
        ("", 502, "unavailable"),
    ],
)
def test_refusals_mean_what_the_vendor_says(kind: str, status: int, code: str) -> None:
    error = RefusedError(kind, status, "the vendor's own words").meaning()
    assert error.code == code
    assert "own words" not in error.message
