"""Secrets in the platform's own vault. Values go in through the contract and come out only to the layer."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import ClassVar

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
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    ErrorCode,
    ErrorTable,
    Health,
    OpenContext,
    ProviderError,
    SecretVersion,
)

SPACE = "tenant/"
"""Where a tenant's own secrets live, apart from those of its connections."""


class LocalSecrets:
    """A thin translation to the vault, confined to the tenant and to its own space."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._overlap_seconds = config["overlap_seconds"]
        self._vault = context.vault
        self._tenant = context.tenant

    async def open(self) -> None:
        """Nothing to acquire."""

    async def close(self) -> None:
        """Nothing to release."""

    async def health(self) -> Health:
        """Ask the vault."""
        await self._vault.list(self._tenant, SPACE)
        return Health(status="ok")

    async def put(self, request: PutRequest, context: CallContext) -> PutResult:  # noqa: ARG002
        version = await self._vault.put(self._tenant, SPACE + request.path, request.value)
        return PutResult(version=version, reference=_reference(request.path, version))

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:  # noqa: ARG002
        version = None if request.version is UNSET else request.version
        if request.version_id is not UNSET:
            version = _number(request.version_id)
        return GetResult(value=await self._vault.get(self._tenant, SPACE + request.path, version))

    async def rotate(self, request: RotateRequest, context: CallContext) -> RotateResult:
        await self._versions(request.path)
        overlap = self._overlap_seconds if request.overlap_seconds is UNSET else request.overlap_seconds
        path = SPACE + request.path
        version = await self._vault.put(self._tenant, path, request.value, overlap_seconds=overlap)
        context.emit("rotated", {"path": request.path, "version": version}, key=request.path)
        return RotateResult(version=version, reference=_reference(request.path, version))

    async def newest(self, request: NewestRequest, context: CallContext) -> NewestResult:  # noqa: ARG002
        version = await self._vault.newest(self._tenant, SPACE + request.path)
        if version is None:
            raise _absent(request.path)
        return NewestResult(version_id=str(version))

    async def list(self, request: ListRequest, context: CallContext) -> ListResult:  # noqa: ARG002
        found = sorted(
            path.removeprefix(SPACE) for path in await self._vault.list(self._tenant, SPACE + request.prefix)
        )
        after = "" if request.cursor is UNSET else request.cursor
        paths = [path for path in found if path > after][: request.limit + 1]
        result = ListResult(paths=paths[: request.limit])
        if len(paths) > request.limit:
            result.next_cursor = result.paths[-1]
        return result

    async def list_versions(self, request: ListVersionsRequest, context: CallContext) -> ListVersionsResult:  # noqa: ARG002
        found = await self._versions(request.path)
        return ListVersionsResult(
            versions=[
                VersionFacts(
                    version=item.version,
                    created_at=_moment(item.created_at),
                    state=item.state,
                    destroyed_after=UNSET if item.destroyed_after is None else _moment(item.destroyed_after),
                )
                for item in found
            ]
        )

    async def _versions(self, path: str) -> Sequence[SecretVersion]:
        found = await self._vault.versions(self._tenant, SPACE + path)
        if not any(item.state == "current" for item in found):
            raise _absent(path)
        return found

    async def destroy_version(self, request: DestroyVersionRequest, context: CallContext) -> DestroyVersionResult:  # noqa: ARG002
        path, version = SPACE + request.path, _number(request.version_id)
        if version == await self._vault.newest(self._tenant, path):
            return DestroyVersionResult(destroyed=False)
        await self._vault.destroy(self._tenant, path, version)
        return DestroyVersionResult(destroyed=True)

    async def delete(self, request: DeleteRequest, context: CallContext) -> DeleteResult:  # noqa: ARG002
        return DeleteResult(deleted=await self._vault.delete(self._tenant, SPACE + request.path))


def _number(version_id: str) -> int:
    if not version_id.isdecimal():
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no version {version_id[:50]!r}.")
    return int(version_id)


def _absent(path: str) -> ProviderError:
    return ProviderError(ErrorCode.NOT_FOUND, f"There is no secret {path!r}.")


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def _reference(path: str, version: int) -> str:
    return f"secret://{SPACE}{path}#{version}"
