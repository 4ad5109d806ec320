"""Object stores that break one rule each of versions and of encryption keys.

No embedded store has either, so the correct ones they are made from stand here: ``storage/filesystem`` that remembers.
"""

from __future__ import annotations

import datetime
import itertools
from typing import Any, ClassVar

import msgspec
from tests.conformance.saboteur import breaks

from erp.contracts.models import storage
from erp.errors import ProviderError
from erp.runtime.spi import UNSET

REF = "storage/filesystem"
CAPABILITIES = [
    "conditional_writes", "ranges", "metadata", "multipart", "streaming", "signed_urls", "lifecycle",
]  # fmt: skip
VERSIONS: dict[str, Any] = {"capabilities": [*CAPABILITIES, "versioning"]}
KEYS: dict[str, Any] = {
    "capabilities": [*CAPABILITIES, "server_side_encryption"],
    "conformance": {"server": None, "gaps": [], "encryption_key": "mine"},
}


class Versioned:
    """Keeps every version in memory; correct."""

    _numbers: ClassVar[Any] = itertools.count(1)

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.kept: dict[str, list[tuple[str, storage.PutRequest | None, Any]]] = {}

    def keep(self, key: str, request: storage.PutRequest | None) -> str:
        version = f"v{next(self._numbers)}"
        self.kept.setdefault(key, []).insert(0, (version, request, datetime.datetime.now(datetime.UTC)))
        return version

    def found(self, request: Any) -> storage.PutRequest | None:
        return next((put for version, put, _ in self.kept.get(request.key, []) if version == request.version), None)

    async def put(self, request: Any, context: Any) -> Any:
        result = await super().put(request, context)  # type: ignore[misc]
        result.version = self.keep(request.key, request)
        return result

    async def get(self, request: Any, context: Any) -> Any:
        if request.version is UNSET:
            return await super().get(request, context)  # type: ignore[misc]
        put = self.found(request)
        if put is None:
            raise ProviderError("not_found", "There is no such version.")
        return storage.GetResult(
            content=put.content,
            content_type=put.content_type,
            metadata={},
            etag="e",
            size=len(put.content),
            modified_at=datetime.datetime.now(datetime.UTC),
        )

    async def head(self, request: Any, context: Any) -> Any:
        if request.version is UNSET:
            result = await super().head(request, context)  # type: ignore[misc]
            if result.found and self.kept.get(request.key):
                result.version = self.kept[request.key][0][0]
            return result
        put = self.found(request)
        return storage.HeadResult(found=False) if put is None else storage.HeadResult(found=True, size=len(put.content))

    async def delete(self, request: Any, context: Any) -> Any:
        if request.version is UNSET:
            result = await super().delete(request, context)  # type: ignore[misc]
            if result.deleted and request.key in self.kept:
                self.keep(request.key, None)
            return result
        before = len(self.kept.get(request.key, []))
        self.kept[request.key] = [one for one in self.kept.get(request.key, []) if one[0] != request.version]
        return storage.DeleteResult(deleted=len(self.kept[request.key]) < before)

    async def list_versions(self, request: Any, context: Any) -> Any:
        first = 0 if request.cursor is UNSET else int(request.cursor)
        kept = self.kept.get(request.key, [])
        last = first + request.limit
        versions = [
            storage.StoredVersion(version=version, modified_at=moment, is_latest=number == 0, is_deleted=put is None)
            for number, (version, put, moment) in enumerate(kept)
        ]
        return storage.ListVersionsResult(
            versions=versions[first:last], next_cursor=str(last) if last < len(kept) else UNSET
        )


@breaks("STORE-90", ref=REF, manifest=VERSIONS)
class AVersionIsTheNewest(Versioned):
    async def get(self, request: Any, context: Any) -> Any:
        if request.version is not UNSET and self.found(request) is not None:
            newest = next((put for _, put, _ in self.kept[request.key] if put), None)
            if newest is not None and newest.content == b"first":
                request.version = next(version for version, put, _ in self.kept[request.key] if put is newest)
        return await super().get(request, context)


@breaks("STORE-91", ref=REF, manifest=VERSIONS)
class VersionsAreListedOldestFirst(Versioned):
    async def list_versions(self, request: Any, context: Any) -> Any:
        result = await super().list_versions(request, context)
        if len(self.kept[request.key]) == 3 and not any(one.is_deleted for one in result.versions):
            result.versions.reverse()
        return result


@breaks("STORE-92", ref=REF, manifest=VERSIONS)
class AVersionTakesTheOthersWithIt(Versioned):
    async def delete(self, request: Any, context: Any) -> Any:
        result = await super().delete(request, context)
        if request.version is not UNSET:
            self.kept[request.key] = []
        return result


@breaks("STORE-93", ref=REF)
class AVersionIsOverlooked:
    async def get(self, request: Any, context: Any) -> Any:
        return await super().get(msgspec.structs.replace(request, version=UNSET), context)  # type: ignore[misc]


class Encrypted:
    """Remembers which key each object has; correct."""

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.keys: dict[str, str] = {}

    async def put(self, request: Any, context: Any) -> Any:
        key, request.encryption_key = request.encryption_key, UNSET
        result = await super().put(request, context)  # type: ignore[misc]
        self.remember(request.key, key)
        return result

    async def create_multipart(self, request: Any, context: Any) -> Any:
        key, request.encryption_key = request.encryption_key, UNSET
        result = await super().create_multipart(request, context)  # type: ignore[misc]
        self.remember(request.key, key)
        return result

    def remember(self, key: str, encryption_key: Any) -> None:
        self.keys.pop(key, None)
        if encryption_key is not UNSET:
            self.keys[key] = encryption_key

    async def head(self, request: Any, context: Any) -> Any:
        result = await super().head(request, context)  # type: ignore[misc]
        if result.found and request.key in self.keys:
            result.encryption_key = self.keys[request.key]
        return result


@breaks("STORE-95", ref=REF, manifest=KEYS)
class TheKeyIsForgotten(Encrypted):
    async def create_multipart(self, request: Any, context: Any) -> Any:
        request.encryption_key = UNSET
        return await super().create_multipart(request, context)


@breaks("STORE-96", ref=REF)
class TheKeyIsOverlooked:
    async def put(self, request: Any, context: Any) -> Any:
        return await super().put(msgspec.structs.replace(request, encryption_key=UNSET), context)  # type: ignore[misc]
