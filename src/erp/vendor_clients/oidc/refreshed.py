"""A document of an issuer, fetched when needed, by one of many callers at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from erp.vendor_clients.oidc.failures import IssuerUnavailableError

T = TypeVar("T")

FRESH_SECONDS = 600.0
STALE_SECONDS = 86_400.0
"""How long an old document serves while the issuer does not answer."""
INTERVAL_SECONDS = 30.0
"""Between two fetches that callers ask for; a flood of them causes no more."""
FAILED_SECONDS = 5.0
"""After a failed fetch nobody asks again for so long."""


class Refreshed(Generic[T]):
    """``await get()``: the document; ``await again()``: a newer one, at most once per interval."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._value: T | None = None
        self._fetched_at = 0.0
        self._failed_at: float | None = None
        self._flight: asyncio.Task[T] | None = None
        self.fetches = 0
        """How often the issuer was asked."""

    async def get(self) -> T:
        """Return the document, fetched anew when it is old.

        Raises:
            IssuerUnavailableError: there is none, and none that is old enough to serve.
        """
        value, age = self._value, self._clock() - self._fetched_at
        if value is not None and age < FRESH_SECONDS:
            return value
        try:
            return await self._refresh()
        except IssuerUnavailableError:
            if value is not None and age < STALE_SECONDS:
                return value
            raise

    async def again(self) -> T:
        """Return a document fetched within the last ``INTERVAL_SECONDS``, as far as the issuer answers."""
        value = await self.get()
        if self._flight is None and self._clock() - self._fetched_at < INTERVAL_SECONDS:
            return value
        try:
            return await self._refresh()
        except IssuerUnavailableError:
            return value

    async def _refresh(self) -> T:
        if self._flight is None:
            if self._failed_at is not None and self._clock() - self._failed_at < FAILED_SECONDS:
                raise IssuerUnavailableError("The issuer did not answer a moment ago.")
            self._flight = asyncio.create_task(self._fly(), name="document of an issuer")
            self._flight.add_done_callback(self._landed)
        return await asyncio.shield(self._flight)

    async def _fly(self) -> T:
        self.fetches += 1
        try:
            value = await self._fetch()
        except IssuerUnavailableError:
            self._failed_at = self._clock()
            raise
        self._value, self._fetched_at, self._failed_at = value, self._clock(), None
        return value

    def _landed(self, task: asyncio.Task[T]) -> None:
        self._flight = None
        if not task.cancelled():
            task.exception()  # Retrieved here in case every caller went away.

    async def aclose(self) -> None:
        """End a fetch that is under way."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)
