"""Providers that break one rule of every call."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from tests.conformance.saboteur import breaks

from erp.runtime.spi import ErrorCode, ProviderError

REF = "cache/memory"
HURRIED_SECONDS = 0.2


@breaks("CALL-01", ref=REF)
class WillNotBeCancelled:
    async def set(self, request: Any, context: Any) -> Any:
        if context.remaining_seconds() < HURRIED_SECONDS:
            for _ in range(2):
                try:
                    await asyncio.sleep(1.2)
                except asyncio.CancelledError:
                    continue
        return await super().set(request, context)  # type: ignore[misc]


@breaks("CALL-02", ref=REF)
class TakesAHundredAtMost:
    running = 0

    async def set(self, request: Any, context: Any) -> Any:
        if self.running >= 100:
            raise ProviderError(ErrorCode.UNAVAILABLE, "Too many at once.")
        self.running += 1
        try:
            await asyncio.sleep(0.5)  # long enough for all to have come, also where others use the machine
            return await super().set(request, context)  # type: ignore[misc]
        finally:
            self.running -= 1


@breaks("CALL-02", ref=REF)
class AnswersAreMixedUp:
    """As with one connection from which two callers read at the same time."""

    async def get(self, request: Any, context: Any) -> Any:
        asked = vars(self).setdefault("asked", [])
        asked.append(request)
        await asyncio.sleep(0.001)
        return await super().get(asked.pop(), context)  # type: ignore[misc]


@breaks("CALL-03", ref=REF, also=("CACHE-05", "CACHE-70", "CACHE-72"))
class AnswersAnEmptyVersion:
    async def set(self, request: Any, context: Any) -> Any:
        result = await super().set(request, context)  # type: ignore[misc]
        result.version = ""
        return result


@breaks("CALL-04", ref=REF, also=("CALL-01",))
class BlamesItself:
    async def set(self, request: Any, context: Any) -> Any:
        if context.remaining_seconds() < HURRIED_SECONDS:
            raise ProviderError(ErrorCode.INTERNAL, "No time.")
        return await super().set(request, context)  # type: ignore[misc]


@breaks("CALL-05", ref=REF)
class AnnouncesWhatNobodyKnows:
    async def set(self, request: Any, context: Any) -> Any:
        context.emit("written", {"key": request.key})
        return await super().set(request, context)  # type: ignore[misc]


@breaks("CALL-06", ref=REF, also=("CACHE-31",))
class OffersWhatItCannotDo:
    async def touch(self, request: Any, context: Any) -> Any:
        raise ProviderError(ErrorCode.UNSUPPORTED, "Not implemented.")


class Everything(list[str]):
    """Capabilities that list little and contain all."""

    def __contains__(self, _: object) -> bool:
        return True


@breaks("CALL-07", ref=REF, manifest={"capabilities": Everything(["ttl"])})
class DoesWhatItDoesNotDeclare:
    """Nothing else is wrong with it."""


@breaks("CALL-08", ref=REF)
class IsNotAsynchronous:
    def touch(self, request: Any, context: Any) -> Any:
        return super().touch(request, context)  # type: ignore[misc]


@breaks("CALL-09", ref=REF)
class TranslatesToNoCode:
    translate: ClassVar[dict[type[BaseException], Any]] = {ValueError: "no_such_code"}
