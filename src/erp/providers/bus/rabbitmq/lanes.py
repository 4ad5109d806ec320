"""Channels on which events go to one stream each, so that a change of the stream's leader loses none.

Before 4.0 RabbitMQ sends what a stream has not confirmed to its next leader under the numbers that the *channel* gave
it, and keeps count by those that the *stream* gave it: where they differ it takes what follows for repeats, drops it and
confirms it (https://github.com/rabbitmq/rabbitmq-server/pull/12236; seen with 3.10.8). They do not differ on a channel of
which every message has reached the same stream, and that is what a lane is.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from erp.providers.bus.rabbitmq.wire import Wire, leave
from erp.runtime.spi import ErrorCode, ProviderError

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel

MOST = 1000
"""Channels that are kept open; RabbitMQ allows 2047 on a connection unless told otherwise."""


class Run:
    """A channel while every message on it has reached the stream."""

    def __init__(self, channel: AbstractChannel, connection: int) -> None:
        self.channel = channel
        self.connection = connection
        self.under_way = 0
        self.is_left = False
        """Whether nothing new goes over it."""
        self.is_spoiled = False
        """Whether a message has not reached the stream."""

    def require_whole(self) -> None:
        """Refuse what was confirmed after another message had failed.

        Raises:
            ProviderError: ``outcome_unknown``.
        """
        if self.is_spoiled:
            message = "An event before this one failed, so RabbitMQ may have confirmed it without keeping it."
            raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, message)

    def close_if_left(self) -> None:
        """Close it once nothing is under way on it, when nothing new goes over it."""
        if self.is_left and not self.under_way:
            leave(self.channel)


class Lane:
    """What is published to one stream. Another channel takes over after the first message that has not arrived."""

    def __init__(self, wire: Wire, prove: Callable[[], Awaitable[None]]) -> None:
        self._wire = wire
        self._prove = prove
        self._run: Run | None = None
        self._opening: asyncio.Task[Run] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses it now."""
        is_opening = self._opening is not None and not self._opening.done()
        return not is_opening and (self._run is None or not self._run.under_way)

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """Have the channel for one message, which is confirmed within.

        Raises:
            ProviderError: ``unavailable`` when the stream takes nothing now; ``outcome_unknown`` when a message before
                this one failed and this one was confirmed all the same.
        """
        run = await self._ready()
        run.under_way += 1
        try:
            yield run.channel
            run.require_whole()
        except BaseException as error:
            # One that nobody waits for any more may still arrive; RabbitMQ may as well confirm nothing on this channel.
            run.is_left, run.is_spoiled = True, run.is_spoiled or isinstance(error, Exception)
            raise
        finally:
            run.under_way -= 1
            run.close_if_left()

    async def _ready(self) -> Run:
        run = self._run
        if run is not None and not run.is_left and self._wire.carries(run.channel, run.connection):
            return run
        # All who wait for it share one attempt, which goes on without them.
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="bus-rabbitmq lane")
            self._opening.add_done_callback(_heard)
        return await asyncio.shield(self._opening)

    async def _open(self) -> Run:
        # A node that starts has exchanges and queues before it has streams: an event would reach the groups alone.
        await self._prove()
        channel = await self._wire.channel()
        self._run = Run(channel, self._wire.connections)
        return self._run

    def leave(self) -> None:
        """Let go of the channel of a lane that is idle; one who comes all the same opens another."""
        if self._run is not None:
            leave(self._run.channel)

    async def close(self) -> None:
        """End what is being opened; the channel ends with its connection."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)


class Lanes:
    """The lanes of a connection by stream; those used last stay open."""

    def __init__(self, wire: Wire, prove: Callable[[str], Awaitable[None]]) -> None:
        self._wire = wire
        self._prove = prove
        self._lanes: OrderedDict[str, Lane] = OrderedDict()

    def of(self, stream: str) -> Lane:
        """Return the lane of a stream."""
        lane = self._lanes.get(stream)
        if lane is None:
            lane = self._lanes[stream] = Lane(self._wire, lambda: self._prove(stream))
        self._lanes.move_to_end(stream)
        if len(self._lanes) > MOST:
            idle = next((name for name, each in self._lanes.items() if each.is_idle and each is not lane), None)
            if idle is not None:
                self._lanes.pop(idle).leave()
        return lane

    async def close(self) -> None:
        """End what is being opened."""
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))


def _heard(task: asyncio.Task[Run]) -> None:
    if not task.cancelled():
        task.exception()
