"""The gateway's own server around any application, in the test's process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from erp.gateway.server import GatewayServer


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[str]:
    """Serve ``app`` on a free port for the length of a block; yield the address."""
    server = GatewayServer(app, host="127.0.0.1", port=0, drain_seconds=1, **options)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server.on_ready = address.set_result
    task = asyncio.create_task(server.serve())
    try:
        yield await address
    finally:
        server.should_exit = True
        await task
