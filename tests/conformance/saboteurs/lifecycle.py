"""Providers that break one rule of a provider's life."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any, ClassVar

from tests.conformance.saboteur import breaks

from erp.runtime.spi import ErrorCode, Health, ProviderError

REF = "cache/memory"


@breaks("LIFE-01", ref=REF)
class StartsAThreadAtOnce:
    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.ended.wait, args=[5], daemon=True)
        self.thread.start()

    async def close(self) -> None:
        self.ended.set()
        self.thread.join()


@breaks("LIFE-01", ref=REF)
class OpensAFileAtOnce:
    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.file = Path(os.devnull).open("rb")  # noqa: SIM115  (kept open)

    async def close(self) -> None:
        self.file.close()


@breaks("LIFE-01", ref=REF)
class MakesAFileAtOnce:
    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        (context.data_dir / "made").touch()


@breaks("LIFE-02", ref=REF)
class ClosesOnlyWhatIsOpen:
    async def open(self) -> None:
        self.peer = "open"

    async def close(self) -> None:
        self.peer.lower()


@breaks("LIFE-03", ref=REF)
class ClosesOnce:
    closed = 0

    async def close(self) -> None:
        self.closed += 1
        if self.closed > 1:
            raise RuntimeError("closed already")


@breaks("LIFE-04", ref=REF, also=("LIFE-05",))
class NeverFeelsWell:
    async def health(self) -> Health:
        return Health(status="degraded")


@breaks("LIFE-05", ref=REF)
class OneObjectClosesAll:
    is_closed: ClassVar[bool] = False

    async def open(self) -> None:
        type(self).is_closed = False

    async def close(self) -> None:
        type(self).is_closed = True

    async def health(self) -> Health:
        return Health(status="down" if self.is_closed else "ok")


@breaks("LIFE-06", ref=REF)
class KeepsADescriptor:
    async def open(self) -> None:
        os.open(os.devnull, os.O_RDONLY)


@breaks("LIFE-07", ref=REF, also=("CONF-03", "CONF-04"))
class LocksItsPlaceForGood:
    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.lock = context.data_dir / "lock"

    async def open(self) -> None:
        if self.lock.exists():
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "Somebody else has it open.")
        self.lock.touch()


@breaks("LIFE-08", ref=REF, also=("CALL-01",))
class KeepsTheLockWhenCancelled:
    async def set(self, request: Any, context: Any) -> Any:
        lock = vars(self).setdefault("lock", asyncio.Lock())
        await lock.acquire()
        await asyncio.sleep(0.0005)
        lock.release()
        return await super().set(request, context)  # type: ignore[misc]


@breaks("LIFE-09", ref=REF)
class ClosesOnlyWhenNobodyCalls:
    running = 0

    async def set(self, request: Any, context: Any) -> Any:
        self.running += 1
        try:
            await asyncio.sleep(0.005)
            return await super().set(request, context)  # type: ignore[misc]
        finally:
            self.running -= 1

    async def close(self) -> None:
        if self.running:
            await asyncio.Event().wait()


@breaks("LIFE-10", ref=REF)
class CannotCloseWhatIsHalfOpen:
    half_open = False

    async def open(self) -> None:
        self.half_open = True
        await asyncio.sleep(0.005)
        self.half_open = False

    async def close(self) -> None:
        if self.half_open:
            raise RuntimeError("not open yet")
