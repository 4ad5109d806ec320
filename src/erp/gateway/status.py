"""Endpoints about the process itself: alive, ready, metrics, contract documents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from erp import __version__
from erp.contracts.loading import document
from erp.telemetry.call_metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from starlette.requests import Request

    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.calls import Calls
    from erp.telemetry.call_metrics import CallMetrics

Check = Callable[[], Awaitable[None]]
CHECK_SECONDS = 2.0


class Status:
    """Answers orchestrators, scrapers and tools."""

    def __init__(
        self, calls: Calls, metrics: CallMetrics, checks: Mapping[str, Check], credentials: Credentials
    ) -> None:
        self._calls = calls
        self._metrics = metrics
        self._checks = checks
        self._credentials = credentials

    async def alive(self, _: Request) -> Response:
        """Answer as long as the process can answer at all."""
        return _json(200, {"status": "ok", "version": __version__})

    async def ready(self, _: Request) -> Response:
        """Answer 200 when every dependency answers, else 503 naming those that do not."""
        dependencies = list(await asyncio.gather(*(self._asked(name) for name in self._checks)))
        if self._calls.is_draining:
            dependencies.append({"name": "gateway", "status": "down", "message": "shutting down"})
        down = any(item["status"] == "down" for item in dependencies)
        body = {
            "status": "down" if down else "ok",
            "latency_ms": max((item.get("latency_ms", 0.0) for item in dependencies), default=0.0),
            "dependencies": dependencies,
        }
        return _json(503 if down else 200, body)

    async def _asked(self, name: str) -> dict[str, Any]:
        started = time.perf_counter()
        answer: dict[str, Any] = {"name": name, "status": "ok"}
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._checks[name]()
        except Exception as error:  # noqa: BLE001  (readiness reports failures, whatever they are)
            answer |= {"status": "down", "message": type(error).__name__}
        answer["latency_ms"] = round((time.perf_counter() - started) * 1000, 3)
        return answer

    async def metrics(self, visit: Visit) -> tuple[int, Any]:
        """Return OpenMetrics of the whole process, without tenants."""
        await self._credentials.authorise(visit.actor, "metrics", "*", "read", "read")
        self._metrics.in_flight = self._calls.in_flight
        return 200, Response(self._metrics.exposition(), media_type=CONTENT_TYPE)

    async def openapi(self, _: Visit) -> tuple[int, Any]:
        """Return the OpenAPI 3.1 document."""
        return 200, Response(document("openapi.json"), media_type="application/json")

    async def asyncapi(self, _: Visit) -> tuple[int, Any]:
        """Return the AsyncAPI 3.0 document."""
        return 200, Response(document("asyncapi.json"), media_type="application/json")


def _json(status: int, body: Mapping[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
