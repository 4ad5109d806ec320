"""Secrets in AWS Secrets Manager (https://docs.aws.amazon.com/secretsmanager/latest/apireference/).

The service names versions by the text that whoever makes one chooses, so that a repeated request makes no second one
(``ClientRequestToken``). Here that is the number of the version: two who take the same number at the same time cannot both succeed.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from erp.contracts.models.secrets import (
    DeleteRequest,
    DeleteResult,
    DestroyVersionRequest,
    DestroyVersionResult,
    GetRequest,
    GetResult,
    ListRequest,
    ListResult,
    ListVersionsRequest,
    ListVersionsResult,
    NewestRequest,
    NewestResult,
    PutRequest,
    PutResult,
    RotateRequest,
    RotateResult,
    VersionFacts,
)
from erp.providers.secrets.aws.service import MEANING, RefusedError, SecretsService
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    Dependency,
    ErrorCode,
    ErrorTable,
    Health,
    OpenContext,
    Overlap,
    ProviderError,
)
from erp.vendor_clients.egress import EgressRefusedError

ABSENT, EXISTS, DOOMED = "ResourceNotFoundException", "ResourceExistsException", "InvalidRequestException"
CURRENT = "AWSCURRENT"
MOST_TRIES = 50
PAGE = 100
_MARGIN_SECONDS = 0.2
FAILURES: tuple[type[BaseException], ...] = (ProviderError, *MEANING)
_SAFE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"erp-version-(\d{24})")


class AwsSecrets:
    """Translates each call into requests to the service; keeps nothing."""

    translate: ClassVar[ErrorTable] = MEANING

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._config = config
        self._connection = context.connection
        self._folder = "/".join((config["namespace"], _safe(context.tenant), _safe(context.connection), ""))
        self._overlaps = context.overlaps
        self._service: SecretsService | None = None
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """See that the service accepts the access key."""
        try:
            service = SecretsService(self._config)
        except (EgressRefusedError, ValueError) as error:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
        try:
            await self._reached(service)
        except BaseException:
            await service.close()
            raise
        self._service = service

    async def close(self) -> None:
        """Close all connections; safe twice, and without ``open``."""
        service, self._service = self._service, None
        if service is not None:
            await service.close()

    async def _reached(self, service: SecretsService) -> None:
        """Ask for a secret that is not there: only who is known, and may ask, is told so."""
        try:
            await service.ask(
                "DescribeSecret", {"SecretId": f"{self._folder}_"}, seconds=self._config["timeout_seconds"]
            )
        except RefusedError as error:
            if error.kind != ABSENT:
                raise error.meaning() from error

    async def health(self) -> Health:
        """Ask the service now."""
        started = time.monotonic()
        service = Dependency(name="secretsmanager", status="ok")
        try:
            await self._reached(self._ready)
        except FAILURES as error:
            service = Dependency(name="secretsmanager", status="down", message=str(error))
        service.latency_ms = round((time.monotonic() - started) * 1000, 3)
        return Health(
            status=service.status, latency_ms=service.latency_ms, dependencies=[service], message=service.message
        )

    @property
    def _ready(self) -> SecretsService:
        if self._service is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The provider is not open.", retry_after_seconds=1.0)
        return self._service

    async def put(self, request: PutRequest, context: CallContext) -> PutResult:
        async with self._turn(request.path):
            facts = await self._described(request.path, context)
            version = await self._stored(request.path, request.value, facts, context)
        return PutResult(version=version, reference=self._reference(request.path, version))

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:
        params = {} if request.version is UNSET else {"VersionId": _version_id(request.version)}
        if request.version_id is not UNSET:
            params = {"VersionId": request.version_id}
        found = await self._read("GetSecretValue", request.path, context, **params)
        if found is None or "SecretString" not in found:
            raise _absent(request.path)
        if not found.get("VersionStages") and _is_over(found["VersionId"], await self._overlaps.of(request.path)):
            raise _absent(request.path)
        return GetResult(value=found["SecretString"])

    async def rotate(self, request: RotateRequest, context: CallContext) -> RotateResult:
        overlap = self._config["overlap_seconds"] if request.overlap_seconds is UNSET else request.overlap_seconds
        async with self._turn(request.path):
            facts = await self._described(request.path, context)
            if facts is None or facts.get("DeletedDate"):
                raise _absent(request.path)
            known = {_number(one["VersionId"]): one["VersionId"] for one in await self._all(request.path, context)}
            known.pop(0, None)
            async with self._overlaps.replacing(request.path, known, overlap):
                version = await self._stored(request.path, request.value, facts, context)
        context.emit("rotated", {"path": request.path, "version": version}, key=request.path)
        return RotateResult(version=version, reference=self._reference(request.path, version))

    async def newest(self, request: NewestRequest, context: CallContext) -> NewestResult:
        facts = await self._described(request.path, context)
        stages = {} if facts is None or facts.get("DeletedDate") else facts.get("VersionIdsToStages", {})
        current = next((name for name, labels in stages.items() if CURRENT in labels), None)
        if current is None:
            raise _absent(request.path)
        return NewestResult(version_id=current)

    async def destroy_version(self, request: DestroyVersionRequest, context: CallContext) -> DestroyVersionResult:
        """Take all stages from the version and read it no more; AWS deletes it when it likes, and nobody else can."""
        facts = await self._described(request.path, context)
        stages = {} if facts is None or facts.get("DeletedDate") else facts.get("VersionIdsToStages", {})
        labels = stages.get(request.version_id, [])
        if CURRENT in labels:
            return DestroyVersionResult(destroyed=False)
        await self._overlaps.end(request.path, request.version_id)
        for label in labels:
            params = {
                "SecretId": self._folder + request.path,
                "VersionStage": label,
                "RemoveFromVersionId": request.version_id,
            }
            await self._asked("UpdateSecretVersionStage", params, context, is_write=True)
        return DestroyVersionResult(destroyed=True)

    async def list(self, request: ListRequest, context: CallContext) -> ListResult:
        after = "" if request.cursor is UNSET else request.cursor
        params: dict[str, Any] = {
            "MaxResults": PAGE,
            "Filters": [{"Key": "name", "Values": [self._folder + request.prefix]}],
        }
        names: list[str] = []
        while True:
            page = await self._asked("ListSecrets", params, context)
            names += [one["Name"] for one in page["SecretList"] if not one.get("DeletedDate")]
            if not page.get("NextToken"):
                break
            params["NextToken"] = page["NextToken"]
        begins = self._folder + request.prefix
        paths = sorted(name.removeprefix(self._folder) for name in names if name.startswith(begins))
        wanted = [path for path in paths if path > after]
        result = ListResult(paths=wanted[: request.limit])
        if len(wanted) > request.limit:
            result.next_cursor = result.paths[-1]
        return result

    async def list_versions(self, request: ListVersionsRequest, context: CallContext) -> ListVersionsResult:
        facts = await self._described(request.path, context)
        if facts is None or facts.get("DeletedDate"):
            raise _absent(request.path)
        planned = await self._overlaps.of(request.path)
        found = await self._all(request.path, context)
        versions = [_facts(one, planned.get(one["VersionId"])) for one in found if _number(one["VersionId"])]
        return ListVersionsResult(versions=sorted(versions, key=lambda one: one.version))

    async def _all(self, path: str, context: CallContext) -> Sequence[dict[str, Any]]:
        """Return what the service says about all versions, also those without a stage."""
        params: dict[str, Any] = {"SecretId": self._folder + path, "IncludeDeprecated": True, "MaxResults": PAGE}
        found: list[dict[str, Any]] = []
        while True:
            page = await self._asked("ListSecretVersionIds", params, context)
            found += page["Versions"]
            if not page.get("NextToken"):
                return found
            params["NextToken"] = page["NextToken"]

    async def delete(self, request: DeleteRequest, context: CallContext) -> DeleteResult:
        facts = await self._described(request.path, context)
        if facts is None or facts.get("DeletedDate"):
            return DeleteResult(deleted=False)
        days = self._config["recovery_days"]
        how = {"RecoveryWindowInDays": days} if days else {"ForceDeleteWithoutRecovery": True}
        await self._asked("DeleteSecret", {"SecretId": self._folder + request.path, **how}, context, is_write=True)
        return DeleteResult(deleted=True)

    async def _stored(self, path: str, value: str, facts: Mapping[str, Any] | None, context: CallContext) -> int:
        """Take the next number that nobody else takes."""
        if facts is not None and facts.get("DeletedDate"):
            message = (
                f"The secret {path!r} is being deleted; restore it in AWS, or wait for the end of its recovery window."
            )
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        version = _newest(facts or {}) + 1
        is_new = facts is None
        for _ in range(MOST_TRIES):
            try:
                await self._made(path, value, version, context, is_new=is_new)
            except RefusedError as error:
                if error.kind != EXISTS:
                    raise error.meaning() from error
                version, is_new = version + 1, False
            else:
                return version
        raise ProviderError(ErrorCode.CONFLICT, "Many write this secret at the same time; nothing was stored.")

    async def _made(self, path: str, value: str, version: int, context: CallContext, *, is_new: bool) -> None:
        place = self._folder + path
        params: dict[str, Any] = {"ClientRequestToken": _version_id(version), "SecretString": value}
        if not is_new:
            await self._sent("PutSecretValue", {"SecretId": place, **params}, context, is_write=True)
            return
        if key := self._config.get("kms_key_id"):
            params["KmsKeyId"] = key
        await self._sent("CreateSecret", {"Name": place, **params}, context, is_write=True)
        await self._overlaps.forget(path)  # of a secret that had this name before

    def _reference(self, path: str, version: int) -> str:
        return f"secret://secrets/aws/{self._connection}/{path}#{version}"

    def _turn(self, path: str) -> asyncio.Lock:
        """Return what lets those who write one secret here take turns, instead of taking the same number."""
        lock = self._turns.get(path)
        if lock is None:
            lock = self._turns[path] = asyncio.Lock()
        return lock

    async def _described(self, path: str, context: CallContext) -> dict[str, Any] | None:
        return await self._read("DescribeSecret", path, context)

    async def _read(self, action: str, path: str, context: CallContext, **params: Any) -> dict[str, Any] | None:
        """Ask about a secret; None when it is not there, or is being deleted."""
        try:
            return await self._sent(action, {"SecretId": self._folder + path, **params}, context)
        except RefusedError as error:
            if error.kind in {ABSENT, DOOMED}:
                return None
            raise error.meaning() from error

    async def _asked(
        self, action: str, params: Mapping[str, Any], context: CallContext, *, is_write: bool = False
    ) -> dict[str, Any]:
        try:
            return await self._sent(action, params, context, is_write=is_write)
        except RefusedError as error:
            if error.kind == ABSENT:
                message = "The secret has gone meanwhile."
                raise ProviderError(ErrorCode.NOT_FOUND, message) from error
            raise error.meaning() from error

    async def _sent(
        self, action: str, params: Mapping[str, Any], context: CallContext, *, is_write: bool = False
    ) -> dict[str, Any]:
        seconds = context.deadline - time.monotonic() - _MARGIN_SECONDS
        return await self._ready.ask(action, params, seconds=seconds, is_write=is_write)


def _safe(name: str) -> str:
    return name if _SAFE.fullmatch(name) else f"_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _version_id(number: int) -> str:
    """Return how the service knows a version: 32 to 64 characters."""
    return f"erp-version-{number:024}"


def _number(version_id: str) -> int:
    """Return the number of a version; 0 for one that was not made here."""
    found = _VERSION.fullmatch(version_id)
    return int(found[1]) if found else 0


def _newest(facts: Mapping[str, Any]) -> int:
    return max((_number(one) for one in facts.get("VersionIdsToStages", {})), default=0)


def _is_over(version_id: str, planned: Mapping[str, Overlap]) -> bool:
    return version_id in planned and planned[version_id].is_over


def _facts(one: Mapping[str, Any], overlap: Overlap | None) -> VersionFacts:
    made = datetime.datetime.fromtimestamp(one["CreatedDate"], datetime.UTC)
    stages = one.get("VersionStages", [])
    state: Any = "previous"
    if CURRENT in stages:
        state, overlap = "current", None
    elif overlap is not None and overlap.is_over and not stages:
        state = "destroyed"
    facts = VersionFacts(version=_number(one["VersionId"]), created_at=made, state=state)
    if overlap is not None and state == "previous":
        facts.destroyed_after = overlap.ends_at
    return facts


def _absent(path: str) -> ProviderError:
    return ProviderError(ErrorCode.NOT_FOUND, f"There is no secret {path!r}, or not in this version.")
