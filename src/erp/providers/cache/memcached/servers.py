"""The Memcached servers of a connection: which of them holds a key, and the connections to it."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from erp.providers.cache.memcached.wire import NOTHING, Reply, ReplyError, Wire
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.guarded_tcp import tls_for

TOO_LARGE = "object too large"


class Server:
    """One server and its connections: at most so many at a time, further calls wait."""

    def __init__(self, address: str, config: Mapping[str, Any]) -> None:
        self.address = address
        host, separator, port = address.rpartition(":")
        has_port = bool(separator) and port.isdigit() and not (":" in host and not host.startswith("["))
        self._host = (host if has_port else address).strip("[]")
        self._port = int(port) if has_port else 11211
        self._config = config
        self._places = asyncio.Semaphore(config.get("max_connections", 16))
        self._free: list[Wire] = []
        self._all: set[Wire] = set()
        self._is_closed = False

    async def ask(self, requests: Sequence[bytes], *, repeatable: bool) -> list[Reply]:
        """Send requests and return their answers.

        Raises:
            ProviderError: ``unavailable``; ``outcome_unknown`` when the answers to what is not ``repeatable`` were lost;
                ``failed_precondition`` for a value that the server does not take.
        """
        await self._enter()
        try:
            wire = await self._wire()
            return await self._exchange(wire, requests, repeatable=repeatable)
        finally:
            self._places.release()

    async def _exchange(self, wire: Wire, requests: Sequence[bytes], *, repeatable: bool) -> list[Reply]:
        is_whole = False
        try:
            async with asyncio.timeout(self._config.get("answer_timeout_seconds", 5.0)):
                found = await wire.exchange(requests)
            is_whole = True
        except ReplyError as error:
            is_whole = True
            raise _refused(error) from error
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise _lost(error, repeatable=repeatable) from error
        finally:
            self._give_back(wire, is_whole=is_whole)
        return found

    async def _wire(self) -> Wire:
        while self._free:
            wire = self._free.pop()
            if not wire.is_broken:
                return wire
            self._drop(wire)
        if self._is_closed:
            raise ProviderError(
                ErrorCode.UNAVAILABLE, "The connection to Memcached is closed.", retry_after_seconds=1.0
            )
        try:
            async with asyncio.timeout(self._config.get("connect_timeout_seconds", 5.0)):
                wire = await Wire.connect(self._host, self._port, self._tls(), self._credentials())
        except ssl.SSLCertVerificationError as error:
            message = "The server's certificate is not trusted or is another one's; name its authority in tls_ca."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=str(error)) from error
        except (OSError, EOFError) as error:
            message = f"Memcached at {self.address} cannot be reached."
            detail = f"{type(error).__name__}: {error}"
            raise ProviderError(ErrorCode.UNAVAILABLE, message, detail=detail, retry_after_seconds=1.0) from error
        self._all.add(wire)
        return wire

    def _give_back(self, wire: Wire, *, is_whole: bool) -> None:
        if is_whole and not self._is_closed:
            self._free.append(wire)
        else:
            self._drop(wire)

    def _drop(self, wire: Wire) -> None:
        self._all.discard(wire)
        wire.abort()

    async def _enter(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        seconds = self._config.get("pool_wait_seconds", 2.0)
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            message = f"All connections to Memcached at {self.address} were busy for {seconds:g} s."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0) from None

    def _credentials(self) -> tuple[str, str] | None:
        if "password" not in self._config:
            return None
        return self._config.get("username", ""), self._config["password"]

    def _tls(self) -> ssl.SSLContext | None:
        if not self._config.get("tls"):
            return None
        return tls_for(self._host, verify=True, authority=self._config.get("tls_ca"))

    async def close(self) -> None:
        """Hang up; calls under way end with an error."""
        self._is_closed = True
        wires, self._all = self._all, set()
        self._free.clear()
        for wire in wires:
            await wire.close()


class Servers:
    """All servers. A key is on the one whose digest with it is highest: a further server moves only its own share."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._servers = [Server(address, config) for address in config.get("hosts", ["127.0.0.1:11211"])]

    def of(self, key: str) -> Server:
        """Return the server that holds a key (rendezvous hashing)."""
        if len(self._servers) == 1:
            return self._servers[0]
        return max(
            self._servers, key=lambda one: hashlib.blake2b(f"{one.address}\n{key}".encode(), digest_size=8).digest()
        )

    async def ask(self, requests: Sequence[tuple[str, bytes]]) -> list[Reply]:
        """Send repeatable requests, each for a key, and return their answers in that order."""
        places: dict[Server, list[int]] = {}
        for number, (key, _) in enumerate(requests):
            places.setdefault(self.of(key), []).append(number)
        found: list[Reply] = [Reply("")] * len(requests)
        for server, numbers in places.items():
            replies = await server.ask([requests[number][1] for number in numbers], repeatable=True)
            for number, reply in zip(numbers, replies, strict=True):
                found[number] = reply
        return found

    async def silent(self) -> list[tuple[str, ProviderError]]:
        """Return the servers that do not answer now, and why."""
        found = []
        for server in self._servers:
            try:
                await server.ask([NOTHING], repeatable=True)
            except ProviderError as error:
                found.append((server.address, error))
        return found

    @property
    def addresses(self) -> list[str]:
        """Of all servers."""
        return [one.address for one in self._servers]

    async def close(self) -> None:
        """Hang up everywhere. Safe twice."""
        for server in self._servers:
            await server.close()


def _refused(error: ReplyError) -> ProviderError:
    text = str(error)
    if TOO_LARGE in text:
        message = "The value is larger than the server takes; store less, or start Memcached with a larger -I."
        return ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=text)
    if "unauthenticated" in text:
        return ProviderError(ErrorCode.UNAUTHENTICATED, "Memcached asks for a user name and password.", detail=text)
    if text.startswith("SERVER_ERROR"):
        return ProviderError(ErrorCode.UNAVAILABLE, "Memcached cannot serve the request now.", detail=text)
    return ProviderError(ErrorCode.INTERNAL, "Memcached answered with an error that was not foreseen.", detail=text)


def _lost(error: BaseException, *, repeatable: bool) -> ProviderError:
    detail = f"{type(error).__name__}: {error}"
    if repeatable:
        message = "The connection to Memcached broke before the answer came."
        return ProviderError(ErrorCode.UNAVAILABLE, message, detail=detail, retry_after_seconds=1.0)
    message = "The answer of Memcached was lost; the request may have taken effect."
    return ProviderError(ErrorCode.OUTCOME_UNKNOWN, message, detail=detail)
