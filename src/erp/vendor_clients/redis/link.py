"""One open connection of a tenant to Redis or Valkey: bounded, asked once, with every failure explained."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from erp.runtime.spi import Dependency, ErrorCode, Health, ProviderError
from erp.vendor_clients.guarded_tcp import permitted_address
from erp.vendor_clients.redis.keyspace import literal
from erp.vendor_clients.redis.scripts import Script
from erp.vendor_clients.redis.settings import Settings

if TYPE_CHECKING:
    from erp.vendor_clients.redis.routes import Route

SCANNED_AT_ONCE = 1000


class RedisLink:
    """Asks Redis. At most ``max_connections`` requests are under way; further ones wait for ``pool_wait_seconds``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(settings.max_connections)
        self._route: Route | None = None

    async def open(self) -> None:
        """Connect, and see that the server lets us in.

        Raises:
            ProviderError: ``unavailable``, ``unauthenticated``, ``failed_precondition`` (the operator does not allow the
                address, or the certificates of the authority are unreadable).
        """
        from erp.vendor_clients.redis.routes import route_of

        for host, port in self._settings.addresses:
            await _judge(host, port)
        self._route = route_of(self._settings)
        await self.run("PING")

    async def close(self) -> None:
        """Hang up; requests under way end with an error. Safe twice and without ``open``."""
        route, self._route = self._route, None
        if route is not None:
            await route.close()

    async def health(self, key: str) -> Health:
        """Look for ``key`` now, there or not, and measure how long it took; its node of a cluster must be up and serving."""
        started = time.perf_counter()
        try:
            await self.run("EXISTS", key)
            latency = round((time.perf_counter() - started) * 1000, 3)
            server = await self._server(key)
        except ProviderError as error:
            return Health(status="down", message=error.message)
        return Health(status="ok", latency_ms=latency, dependencies=[server])

    async def _server(self, key: str) -> Dependency:
        """Name and version of the server as it says them; a user who may not ask goes without the version."""
        server = Dependency(name="Redis", status="ok")
        try:
            facts = await self.facts("server", key)
        except ProviderError as error:
            if error.code is not ErrorCode.PERMISSION_DENIED:
                raise
            return server
        if "valkey_version" in facts:
            return Dependency(name="Valkey", status="ok", version=facts["valkey_version"])
        if "redis_version" in facts:
            server.version = facts["redis_version"]
        return server

    async def run(self, *command: Any, repeatable: bool = True) -> Any:
        """Return the answer to one command, text as ``bytes``.

        Raises:
            ProviderError: what the failure means; ``outcome_unknown`` when the answer of one that is not ``repeatable``
                was lost.
        """
        route = self._open_route()
        await self._enter()
        try:
            return await route.ask(command, repeatable=repeatable)
        finally:
            self._places.release()

    async def script(self, script: Script, keys: Sequence[Any], arguments: Sequence[Any], *, repeatable: bool) -> Any:
        """Run a script as one step; a server that has not seen it is sent its text.

        Raises:
            ProviderError: as ``run``.
        """
        from redis.exceptions import NoScriptError

        rest = (len(keys), *keys, *arguments)
        try:
            return await self.run("EVALSHA", script.digest, *rest, repeatable=repeatable)
        except NoScriptError:  # it was not run
            return await self.run("EVAL", script.text, *rest, repeatable=repeatable)

    async def keys_with(self, prefix: str) -> AsyncIterator[list[bytes]]:
        """Yield the keys that begin with ``prefix``, taken literally, in portions; some may come twice.

        Goes through all keys of the database (``SCAN``) without ever holding up the server.
        """
        route = self._open_route()
        pattern = f"{literal(prefix)}*"
        cursor: Any = 0
        while True:
            await self._enter()
            try:
                command = ("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED_AT_ONCE)
                cursor, found = _page(await route.ask_owner(prefix, command))
            finally:
                self._places.release()
            if found:
                yield found
            if not int(cursor):
                return

    async def facts(self, section: str, key: str) -> dict[str, str]:
        """Return a section of ``INFO`` of the server, or of the node of a cluster that holds ``key``.

        Raises:
            ProviderError: as ``run``; ``permission_denied`` when the user may not ask.
        """
        route = self._open_route()
        await self._enter()
        try:
            answer = await route.ask_owner(key, ("INFO", section))
        finally:
            self._places.release()
        if isinstance(answer, dict):  # a cluster client has read it already
            return {name: str(value) for name, value in answer.items()}
        lines = (line.partition(":") for line in answer.decode().splitlines())
        return {name: value for name, _, value in lines}

    def _open_route(self) -> Route:
        if self._route is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The connection to Redis is closed.", retry_after_seconds=1.0)
        return self._route

    async def _enter(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        seconds = self._settings.pool_wait_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            message = f"All {self._settings.max_connections} connections to Redis were busy for {seconds:g} s."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0) from None


async def _judge(host: str, port: int) -> None:
    """Refuse an address that is not allowed; one of several that has no address now may be down."""
    try:
        await permitted_address(host, port)
    except ProviderError as error:
        if error.code is not ErrorCode.UNAVAILABLE:
            raise


def _page(answer: Any) -> tuple[Any, list[bytes]]:
    """Take an answer of SCAN apart; a cluster client puts the cursor under the name of the node."""
    cursor, found = answer
    if isinstance(cursor, dict):
        (cursor,) = cursor.values()
    return cursor, list(found)
