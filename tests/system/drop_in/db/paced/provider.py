"""A database whose every step waits for a file, so that a test decides when it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import ClassVar

from erp.contracts.models.db import QueryRequest, QueryResult, StreamRequest, StreamResult
from erp.runtime.spi import CallContext, Config, ErrorCode, ErrorTable, Health, OpenContext, ProviderError

STEP_SECONDS = 0.01


class PacedDatabase:
    """The statement is the name of a run; step n happens when the file ``RUN.n`` says ``row``, ``fail`` or ``end``."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._folder = context.data_dir

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def health(self) -> Health:
        return Health(status="ok")

    async def query(self, request: QueryRequest, context: CallContext) -> QueryResult:
        return QueryResult(columns=[], rows=[], row_count=0, truncated=False)

    async def stream(self, request: StreamRequest, context: CallContext) -> AsyncGenerator[StreamResult]:
        number = 0
        try:
            while (step := await self._step(f"{request.sql}.{number}")) != "end":
                if step == "fail":
                    raise ProviderError(ErrorCode.UNAVAILABLE, "The paced database went away.")
                yield StreamResult(rows=[[number]])
                number += 1
        finally:
            (self._folder / f"{request.sql}.closed").touch()

    async def _step(self, name: str) -> str:
        while not (self._folder / name).exists():  # noqa: ASYNC110  (the event is in another process)
            await asyncio.sleep(STEP_SECONDS)
        return (self._folder / name).read_text()
