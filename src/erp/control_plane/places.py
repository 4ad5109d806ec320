"""Places for the calls of a connection that all processes of one control plane share. Implements ``sharing.PlaceBook``.

A process takes from the database as many places as its calls need, lets calls in and out from memory, and says a few
times a second what it needs now; what it does not need others can have. Places of a killed process are free again
after ``LEASE_SECONDS``. A process that could not say for so long that it lives lets nobody in until it has asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
import weakref
from collections import deque
from functools import partial

from erp.control_plane.database import Database
from erp.control_plane.place_rows import LEASE_SECONDS, Claim, agree, release

SYNC_SECONDS = 0.25
POLL_SECONDS = 0.05
"""How often a process asks that waits for places of others."""

_jitter = random.SystemRandom()


class SharedPlaces:
    """The places of all connections that have a limit for all processes together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owner = os.urandom(8).hex()
        self._known: weakref.WeakValueDictionary[tuple[str, str], ConnectionPlaces] = weakref.WeakValueDictionary()
        self._was_used = False

    def of(self, owner: tuple[str, str], limit: int) -> ConnectionPlaces:
        self._was_used = True
        found = self._known.get(owner)
        if found is None:
            found = self._known[owner] = ConnectionPlaces(self._database, self._owner, owner, limit)
        found.limit = limit
        return found

    async def close(self) -> None:
        """Give everything back. Safe twice."""
        for places in list(self._known.values()):
            await places.close()
        if self._was_used:
            self._was_used = False
            await self._database.count(partial(release, self._owner))


class ConnectionPlaces:
    """The places of one connection, as one process has them."""

    def __init__(self, database: Database, process: str, owner: tuple[str, str], limit: int) -> None:
        self.limit = limit
        self._database = database
        self._process = process
        self._owner = owner
        self._inside = 0
        self._most = 0
        """Of what was inside at a time since others were told last."""
        self._allowed = 0
        """How many may be inside. The database never says less of this process than this, or than are inside."""
        self._is_short = False
        """Whether fewer were given than were asked for."""
        self._until = 0.0
        """Monotonic time up to which the others believe what they were told."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._told = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def try_enter(self) -> bool:
        if self._waiting or not self._has_room():
            return False
        self._enter()
        return True

    def _has_room(self) -> bool:
        return self._inside < min(self._allowed, self.limit) and time.monotonic() < self._until

    def _enter(self) -> None:
        self._inside += 1
        self._most = max(self._most, self._inside)

    async def wait_to_enter(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._let_in()
        if not place.done():
            self._ask()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(place)
            raise

    def leave(self) -> None:
        self._inside -= 1
        self._let_in()
        if self._inside >= self._allowed:  # others wait for what was left
            self._told.set()

    def _let_in(self) -> None:
        while self._waiting and self._has_room():
            place = self._waiting.popleft()
            if not place.done():
                self._enter()
                place.set_result(None)

    def _ask(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="places of a connection")
        elif self._allowed < self.limit or time.monotonic() >= self._until:
            self._told.set()

    async def _keep(self) -> None:
        """Tell the others what is needed, for as long as anything is."""
        try:
            while True:
                self._told.clear()
                try:
                    places = await self._agree()
                except Exception as error:  # noqa: BLE001  (whoever waits is told)
                    self._refuse(error)
                else:
                    self._let_in()
                    if not places and not self._waiting:
                        return
                    if places > max(self._inside, self._allowed):
                        continue
                await self._pause()
        finally:
            self._keeper = None

    async def _agree(self) -> int:
        """Return how many places the others know of."""
        asked_at = time.monotonic()
        wanted = max(self._most, self._inside + len(self._waiting))
        self._most = self._inside
        # What is agreed meanwhile counts with what may come in meanwhile.
        self._allowed = min(self._allowed, wanted, self.limit) if asked_at < self._until else 0
        claim = Claim(self._process, max(self._inside, self._allowed), wanted)
        agreement = await self._database.count(partial(agree, *self._owner, self.limit, claim))
        self._allowed = agreement.allowed
        self._is_short = self._allowed < min(wanted, self.limit)
        self._until = asked_at + LEASE_SECONDS
        return agreement.places

    def _refuse(self, error: Exception) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)

    async def _pause(self) -> None:
        if self._is_short:
            await asyncio.sleep(POLL_SECONDS * _jitter.uniform(0.5, 1.5))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SYNC_SECONDS):
                await self._told.wait()

    async def close(self) -> None:
        """Tell nobody anything any more. Safe twice."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
