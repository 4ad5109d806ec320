"""What is special to ``secrets/aws``, on moto in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.conftest import ReadableOverlaps

from erp.contracts.models.secrets import (
    DeleteRequest,
    DestroyVersionRequest,
    GetRequest,
    ListVersionsRequest,
    PutRequest,
    RotateRequest,
)
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


async def test_a_destroyed_version_has_no_stage_any_more_and_is_refused_here_though_the_vendor_still_has_it(
    provider: AwsSecrets, vendor: Any, ctx: CallContext, overlaps: ReadableOverlaps
) -> None:
    first = f"erp-version-{1:024}"
    await provider.put(PutRequest(path="crm/key", value="first"), ctx)
    await provider.rotate(RotateRequest(path="crm/key", value="second", overlap_seconds=60), ctx)
    assert overlaps.planned == {"crm/key": {first: 60}}
    vendor.update_secret_version_stage(SecretId=PLACE, VersionStage="theirs", MoveToVersionId=first)
    request = DestroyVersionRequest(path="crm/key", version_id=first)
    assert (await provider.destroy_version(request, ctx)).destroyed is True

    stages = vendor.describe_secret(SecretId=PLACE)["VersionIdsToStages"]
    assert {name: labels for name, labels in stages.items() if labels} == {f"erp-version-{2:024}": ["AWSCURRENT"]}
    for asked in (GetRequest(path="crm/key", version=1), GetRequest(path="crm/key", version_id=first)):
        with pytest.raises(ProviderError) as refused:
            await provider.get(asked, ctx)
        assert refused.value.code == "not_found"
    assert vendor.get_secret_value(SecretId=PLACE, VersionId=first)["SecretString"] == "first"
    found = (await provider.list_versions(ListVersionsRequest(path="crm/key"), ctx)).versions
    assert [(one.version, one.state) for one in found] == [(1, "destroyed"), (2, "current")]


async def test_a_version_that_the_vendor_was_made_to_go_back_to_is_not_destroyed(
    provider: AwsSecrets, vendor: Any, ctx: CallContext
) -> None:
    first, second = (f"erp-version-{number:024}" for number in (1, 2))
    await provider.put(PutRequest(path="crm/key", value="first"), ctx)
    await provider.rotate(RotateRequest(path="crm/key", value="second"), ctx)
    back = {"MoveToVersionId": first, "RemoveFromVersionId": second}
    vendor.update_secret_version_stage(SecretId=PLACE, VersionStage="AWSCURRENT", **back)
    request = DestroyVersionRequest(path="crm/key", version_id=first)
    assert (await provider.destroy_version(request, ctx)).destroyed is False
    assert "AWSCURRENT" in vendor.describe_secret(SecretId=PLACE)["VersionIdsToStages"][first]
    assert (await provider.get(GetRequest(path="crm/key", version=1), ctx)).value == "first"


async def test_a_secret_that_is_made_anew_knows_nothing_of_the_one_before(
    provider: AwsSecrets, vendor: Any, ctx: CallContext
) -> None:
    for _ in range(2):
        for number, value in enumerate(("first", "second", "third"), 1):
            await provider.put(PutRequest(path="crm/key", value=value), ctx)
            assert (await provider.get(GetRequest(path="crm/key", version=number), ctx)).value == value
        assert (await provider.get(GetRequest(path="crm/key", version=1), ctx)).value == "first"
        await provider.rotate(RotateRequest(path="crm/key", value="fourth"), ctx)
        request = DestroyVersionRequest(path="crm/key", version_id=f"erp-version-{1:024}")
        assert (await provider.destroy_version(request, ctx)).destroyed is True
        vendor.delete_secret(SecretId=PLACE, ForceDeleteWithoutRecovery=True)


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
