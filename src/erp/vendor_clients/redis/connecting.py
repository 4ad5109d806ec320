"""Connections of redis-py that are opened only where the operator allows it, to the very address that was judged."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio.connection import Connection

from erp.vendor_clients.guarded_tcp import permitted_address, tls_for
from erp.vendor_clients.redis.settings import Settings


def guarded(kind: type[Connection], settings: Settings) -> type[Connection]:
    """Return a kind of connection that asks the egress rule first, and proves the name of the server with TLS.

    Also servers that a sentinel or a cluster names are judged: what a server says is not trusted more than a tenant.
    """

    class Guarded(kind):  # type: ignore[valid-type, misc]  # what it inherits from is an argument
        permitted = ""

        async def _connect(self) -> None:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                self.permitted = await permitted_address(self.host, self.port)
            await super()._connect()

        def _connection_arguments(self) -> dict[str, Any]:
            found: dict[str, Any] = {"host": self.permitted, "port": self.port}
            if settings.tls:
                found["ssl"] = tls_for(self.host, verify=True, authority=settings.tls_ca)
            return found

    return Guarded
