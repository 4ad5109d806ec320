"""Secret stores that break one rule each."""

from __future__ import annotations

import asyncio
import datetime
import logging
from typing import Any

from tests.conformance.saboteur import breaks

from erp.runtime.spi import UNSET

REF = "secrets/local"


@breaks("SECRET-01", ref=REF)
class TrimsValues:
    async def put(self, request: Any, context: Any) -> Any:
        request.value = request.value.strip(" ") or request.value
        return await super().put(request, context)  # type: ignore[misc]


@breaks("SECRET-02", ref=REF)
class ReferencesNoVersion:
    async def put(self, request: Any, context: Any) -> Any:
        result = await super().put(request, context)  # type: ignore[misc]
        result.reference = result.reference.partition("#")[0]
        return result


@breaks("SECRET-03", ref=REF)
class AnswersTheNewestForAnUnknownVersion:
    async def get(self, request: Any, context: Any) -> Any:
        if request.version == 2 and request.path.startswith("known"):
            request.version = UNSET
        return await super().get(request, context)  # type: ignore[misc]


@breaks("SECRET-04", ref=REF)
class DeletesWhatBeginsAlike:
    async def delete(self, request: Any, context: Any) -> Any:
        await self._vault.delete(self._tenant, f"tenant/{request.path}/x")  # type: ignore[attr-defined]
        return await super().delete(request, context)  # type: ignore[misc]


@breaks("SECRET-05", ref=REF)
class ForgetsTheFirstOfEveryPage:
    async def list(self, request: Any, context: Any) -> Any:
        result = await super().list(request, context)  # type: ignore[misc]
        if request.cursor is not UNSET:
            result.paths = result.paths[1:]
        return result


@breaks("SECRET-06", ref=REF)
class TenantsShareAVault:
    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self._tenant = "alpha"


@breaks("SECRET-07", ref=REF)
class CountsByItself:
    async def put(self, request: Any, context: Any) -> Any:
        if request.path.startswith("raced"):
            listed = await self._vault.versions(self._tenant, f"tenant/{request.path}")  # type: ignore[attr-defined]
            await asyncio.sleep(0.05)  # whoever comes meanwhile has counted as many
            result = await super().put(request, context)  # type: ignore[misc]
            result.version = len(listed) + 1
            return result
        return await super().put(request, context)  # type: ignore[misc]


@breaks("SECRET-08", ref=REF)
class LogsValues:
    async def put(self, request: Any, context: Any) -> Any:
        if request.path.startswith("silent"):
            logging.getLogger("toy").error("storing %s", request.value)
        return await super().put(request, context)  # type: ignore[misc]


@breaks("SECRET-20", ref=REF)
class OnlyTheNewestIsKept:
    async def get(self, request: Any, context: Any) -> Any:
        if request.version == 1 and request.path.startswith("versions"):
            request.version = UNSET
        return await super().get(request, context)  # type: ignore[misc]


@breaks("SECRET-21", ref=REF)
class EveryVersionIsCurrent:
    async def list_versions(self, request: Any, context: Any) -> Any:
        result = await super().list_versions(request, context)  # type: ignore[misc]
        for version in result.versions if request.path.startswith("states") else []:
            version.state = "current"
        return result


@breaks("SECRET-30", ref=REF)
class RotatingReplaces:
    async def get(self, request: Any, context: Any) -> Any:
        if request.version == 1 and request.path.startswith("rotated"):
            request.version = 2
        return await super().get(request, context)  # type: ignore[misc]


@breaks("SECRET-31", ref=REF)
class RotatesWhatIsNotThere:
    async def rotate(self, request: Any, context: Any) -> Any:
        if request.path.startswith("absent"):
            await self._vault.put(self._tenant, f"tenant/{request.path}", "placeholder")  # type: ignore[attr-defined]
        return await super().rotate(request, context)  # type: ignore[misc]


@breaks("SECRET-32", ref=REF)
class RotatesInSilence:
    async def rotate(self, request: Any, context: Any) -> Any:
        result = await super().rotate(request, context)  # type: ignore[misc]
        context.emitted.clear()
        return result


@breaks("SECRET-40", ref=REF)
class DestroysTooEarly:
    async def list_versions(self, request: Any, context: Any) -> Any:
        result = await super().list_versions(request, context)  # type: ignore[misc]
        for version in result.versions:
            if version.destroyed_after is not UNSET:
                version.destroyed_after -= datetime.timedelta(minutes=1)
        return result


@breaks("SECRET-41", ref=REF, manifest={"capabilities": frozenset({"versions", "rotation", "following"})})
class TakesAnOverlapThatItDoesNotKeep:
    """It says nothing and keeps the version before for ever."""


@breaks("SECRET-42", ref=REF)
class DestroysTheOneBesideIt:
    async def destroy_version(self, request: Any, context: Any) -> Any:
        if request.version_id == "1":
            await self._vault.destroy(self._tenant, f"tenant/{request.path}", 2)  # type: ignore[attr-defined]
        return await super().destroy_version(request, context)  # type: ignore[misc]


@breaks("SECRET-50", ref=REF)
class NamesEveryVersionAlike:
    async def newest(self, request: Any, context: Any) -> Any:
        result = await super().newest(request, context)  # type: ignore[misc]
        if request.path.startswith("followed"):
            result.version_id = "1"
        return result
